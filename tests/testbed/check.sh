#!/usr/bin/env bash
# Runs the KVM tests, tests/kvm/*.sh or those named, inside the testbed: TAP of all of them, as it
# comes, then the totals. With MATCHLOCK_LONG=1 they take their long form. What they need is there, so
# one that is skipped has failed. Of several testbeds with one list (check_all.sh) each leaves out what
# has a directory in MATCHLOCK_TESTS_TAKEN.
set -u
cd "$(dirname "$0")/../.." || exit 125
export MATCHLOCK_BUILD="${MATCHLOCK_BUILD:-build/release}"
# Everybody tests on the same kernel, whatever the cache has.
export MATCHLOCK_KERNEL="${MATCHLOCK_KERNEL:-debian}"
limit=${MATCHLOCK_TEST_TIMEOUT:-300}
count=0 passed=0 failed=0

result() { # ok|not ok, DESCRIPTION
	count=$((count + 1))
	if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	echo "$1 $count - $2"
}

run_test() { # FILE
	local name line planned=0 ran=0 bad=0 status=0
	name=$(basename "$1" .sh)
	echo "# $name (${SECONDS} s)"
	while IFS= read -r line; do
		case $line in
		"ok "*[Ss][Kk][Ii][Pp]*) result "not ok" "$name: skipped: ${line#*- }" ;;
		"ok "*) result ok "$name: ${line#*- }" ;;
		"not ok "*)
			result "not ok" "$name: ${line#*- }"
			bad=$((bad + 1))
			;;
		"1..0"*) result "not ok" "$name: skipped: ${line#1..0}" ;;
		"1.."*) planned=${line#1..} ;;
		"testbed-status "*) status=${line#testbed-status } ;;
		"" | "#"*) [ -z "$line" ] || echo "$line" ;;
		*) echo "# $line" ;;
		esac
		case $line in "ok "* | "not ok "*) ran=$((ran + 1)) ;; esac
	done < <(
		timeout -k 10 "$limit" bash "$1" 2>&1 </dev/null
		printf '\ntestbed-status %d\n' $?
	)
	if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
		result "not ok" "$name: ended with status $status"
	elif [ "$planned" != "$ran" ]; then
		result "not ok" "$name: planned $planned tests, ran $ran"
	fi
}

tests=()
for name in "$@"; do
	tests+=("tests/kvm/$name.sh")
done
if [ ${#tests[@]} -eq 0 ]; then
	for test in tests/kvm/*.sh; do
		case $test in
		*/kvm_programs.sh | */kvm_egress.sh) [ -n "${MATCHLOCK_LONG:-}" ] || continue ;;
		esac
		tests+=("$test")
	done
fi
taken=${MATCHLOCK_TESTS_TAKEN:-}
for test in "${tests[@]}"; do
	[ -z "$taken" ] || mkdir "$taken/$(basename "$test" .sh)" 2>/dev/null || continue
	run_test "$test"
done
echo "1..$count"
echo "$passed passed, $failed failed, 0 skipped ($SECONDS s)"
[ "$failed" -eq 0 ] && { [ "$passed" -gt 0 ] || [ -n "$taken" ]; }
