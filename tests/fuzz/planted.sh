#!/usr/bin/env bash
# Shows that each fuzz target can fail: tests/fuzz/planted/TARGET.patch, and TARGET-WHAT.patch where
# the target is for several parsers, each break one check in a copy of the tree, and the target must
# crash on it within the time given (default 60 s). Prints TAP.
#
#   tests/fuzz/planted.sh [SECONDS [TARGET...]]
set -u
cd "$(dirname "$0")/../.." || exit 1

limit=${1:-60}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0
# With their times, so that the copy of the build is up to date and each patch builds one object.
if ! make -s -j2 VARIANT=fuzz fuzz-targets >"$copy/build.log" 2>&1; then
	tail -n 20 "$copy/build.log"
	exit 1
fi
git ls-files -z | xargs -0 cp -p --parents -t "$copy"
find build/fuzz -type f ! -path '*/found/*' ! -name 'crash-*' -print0 | xargs -0 cp -p --parents -t "$copy"

targets=("${@:2}")
if [ ${#targets[@]} -eq 0 ]; then
	for source in tests/fuzz/*_fuzz.c; do
		targets+=("$(basename "$source" _fuzz.c)")
	done
fi
count=0 status=0

# Whether the target finds what the patch breaks; says so if not.
plant() { # TARGET PATCH NAME
	local target=$1 patch=$2 name=$3 found
	if ! [ -f "$patch" ] || ! patch -s -d "$copy" -p1 <"$patch" >"$copy/patch.log" 2>&1; then
		echo "not ok $count - planted bug in $name: the patch does not apply"
		return 1
	fi
	mkdir -p "$copy/found"
	if ! make -s -C "$copy" VARIANT=fuzz "build/fuzz/tests/fuzz/${target}_fuzz" >"$copy/build.log" 2>&1; then
		echo "not ok $count - planted bug in $name: does not build"
		tail -n 20 "$copy/build.log" | sed 's/^/# /'
		return 1
	fi
	if "$copy/build/fuzz/tests/fuzz/${target}_fuzz" -max_total_time="$limit" -timeout=5 -rss_limit_mb=2048 \
		-artifact_prefix="$copy/" "$copy/found" "tests/fuzz/corpus/$target" >"$copy/run.log" 2>&1; then
		echo "not ok $count - planted bug in $name: not found in $limit s"
		return 1
	fi
	found=$(grep -oE 'ERROR: [A-Za-z]+: [A-Za-z-]+( signal)?|runtime error: [a-z -]+' "$copy/run.log" | head -n 1)
	if [ -z "$found" ]; then
		echo "not ok $count - planted bug in $name: the target ended, but not by a finding"
		tail -n 20 "$copy/run.log" | sed 's/^/# /'
		return 1
	fi
	echo "ok $count - planted bug in $name: $found"
}

for target in "${targets[@]}"; do
	if ! "build/fuzz/tests/fuzz/${target}_fuzz" -runs=0 -artifact_prefix="$copy/" \
		"tests/fuzz/corpus/$target" >"$copy/run.log" 2>&1; then
		count=$((count + 1))
		echo "not ok $count - planted bug in $target: the target fails without it"
		tail -n 20 "$copy/run.log" | sed 's/^/# /'
		status=1
		continue
	fi
	for patch in "tests/fuzz/planted/$target.patch" "tests/fuzz/planted/$target"-*.patch; do
		# The pattern itself where there is no further one.
		[ -f "$patch" ] || [ "$patch" = "tests/fuzz/planted/$target.patch" ] || continue
		count=$((count + 1))
		plant "$target" "$patch" "$(basename "$patch" .patch)" || status=1
		[ ! -f "$patch" ] || patch -s -R -d "$copy" -p1 <"$patch" >/dev/null
		rm -rf "$copy/found"
	done
done
echo "1..$count"
exit $status
