#!/usr/bin/env bash
# Runs fuzz targets from the kept corpora: tests/fuzz/run.sh SECONDS [TARGET...]. New inputs go to
# build/fuzz/found/TARGET, a crash to build/fuzz/crash-TARGET-*; the corpus in the tree is not
# touched. Prints TAP.
set -u
cd "$(dirname "$0")/../.." || exit 1

seconds=${1:-20}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
	for source in tests/fuzz/*_fuzz.c; do
		targets+=("$(basename "$source" _fuzz.c)")
	done
fi
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}"

# fuzz NUMBER TARGET: says how it went in one piece, for another runs beside it.
fuzz()
{
	local target=$2 found="build/fuzz/found/$2" log="build/fuzz/$2.log" runs cover
	mkdir -p "$found" "tests/fuzz/corpus/$target"
	if "build/fuzz/tests/fuzz/${target}_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
		-print_final_stats=1 -artifact_prefix="$PWD/build/fuzz/crash-$target-" \
		"$found" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
		runs=$(awk '/stat::number_of_executed_units/ { print $2 }' "$log")
		cover=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)
		echo "ok $1 - fuzz $target: ${runs:-0} runs, ${cover:-cov: ?}"
	else
		printf 'not ok %d - fuzz %s\n%s\n' "$1" "$target" "$(tail -n 60 "$log" | sed 's/^/# /')"
		touch "$failed"
	fi
}

# Each is one thread.
at_once=$(nproc)
failed=$(mktemp -u)
trap 'rm -f "$failed"' EXIT
count=0
for target in "${targets[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do
		wait -n
	done
	count=$((count + 1))
	fuzz "$count" "$target" &
done
wait
echo "1..$count"
[ ! -e "$failed" ]
