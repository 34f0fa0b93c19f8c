#!/usr/bin/env bash
# Shows that each fuzz target can fail: tests/fuzz/planted/TARGET.patch breaks one check in a copy
# of the tree, and the target must crash on it within the time given (default 60 s). Prints TAP.
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

count=0 status=0
for source in tests/fuzz/*_fuzz.c; do
	target=$(basename "$source" _fuzz.c)
	patch="tests/fuzz/planted/$target.patch"
	count=$((count + 1))
	if ! [ -f "$patch" ] || ! patch -s -d "$copy" -p1 <"$patch" >"$copy/patch.log" 2>&1; then
		echo "not ok $count - planted bug in $target: the patch does not apply"
		status=1
		continue
	fi
	mkdir -p "$copy/found"
	if ! make -s -C "$copy" VARIANT=fuzz "build/fuzz/tests/fuzz/${target}_fuzz" >"$copy/build.log" 2>&1; then
		echo "not ok $count - planted bug in $target: does not build"
		tail -n 20 "$copy/build.log" | sed 's/^/# /'
		status=1
	elif ! "build/fuzz/tests/fuzz/${target}_fuzz" -runs=0 \
		-artifact_prefix="$copy/" "tests/fuzz/corpus/$target" >"$copy/run.log" 2>&1; then
		echo "not ok $count - planted bug in $target: the target fails without it"
		tail -n 20 "$copy/run.log" | sed 's/^/# /'
		status=1
	elif "$copy/build/fuzz/tests/fuzz/${target}_fuzz" -max_total_time="$limit" -timeout=5 -rss_limit_mb=2048 \
		-artifact_prefix="$copy/" "$copy/found" "tests/fuzz/corpus/$target" >"$copy/run.log" 2>&1; then
		echo "not ok $count - planted bug in $target: not found in $limit s"
		status=1
	else
		found=$(grep -oE 'ERROR: [A-Za-z]+: [A-Za-z-]+( signal)?|runtime error: [a-z -]+' "$copy/run.log" | head -n 1)
		if [ -n "$found" ]; then
			echo "ok $count - planted bug in $target: $found"
		else
			echo "not ok $count - planted bug in $target: the target ended, but not by a finding"
			tail -n 20 "$copy/run.log" | sed 's/^/# /'
			status=1
		fi
	fi
	patch -s -R -d "$copy" -p1 <"$patch" >/dev/null
	rm -rf "$copy/found"
done
echo "1..$count"
exit $status
