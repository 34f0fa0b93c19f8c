#!/usr/bin/env bash
# Runs the KVM tests, tests/kvm/*.sh or those named, in testbeds side by side: TAP of all of them, as it
# comes, then the totals.
#
#   tests/testbed/check_all.sh SECONDS [TEST...]
#
# A testbed has one processor, whatever the machine has (run.sh says why), so there are two where the machine
# has two and memory for both (MATCHLOCK_TESTBEDS=N: so many). All have the same list, and take from it
# what no other has taken: a directory that they share has one for each test that is begun.
set -u
cd "$(dirname "$0")/../.." || exit 125
limit=$1
shift

testbeds=${MATCHLOCK_TESTBEDS:-}
[ -z "$testbeds" ] || [[ $testbeds =~ ^[1-9]$ ]] || {
	echo "MATCHLOCK_TESTBEDS wants a number up to 9, not '$testbeds'" >&2
	exit 125
}
if [ -z "$testbeds" ]; then
	available=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
	testbeds=1
	if [ "$(nproc)" -ge 2 ] && [ "$available" -ge 10 ] && [ $# -ne 1 ]; then testbeds=2; fi
fi

scratch=$(mktemp -d)
children=()
# Called by the trap.
# shellcheck disable=SC2317
clean() {
	[ ${#children[@]} -eq 0 ] || kill -TERM "${children[@]}" 2>/dev/null || true
	wait
	rm -rf "$scratch"
}
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

count=0 failed=0
result() { # ok|not ok, DESCRIPTION
	count=$((count + 1))
	[ "$1" = ok ] || failed=$((failed + 1))
	echo "$1 $count - $2"
}

mkdir "$scratch/taken"
mkfifo "$scratch/tap"
for ((i = 0; i < testbeds; i++)); do
	tests/testbed/run.sh --boot 60 --timeout "$limit" --output "$scratch/taken" \
		--env "MATCHLOCK_TESTS_TAKEN=$scratch/taken" -- tests/testbed/check.sh "$@" >"$scratch/tap" &
	children+=($!)
done
while IFS= read -r line; do
	case $line in
	"ok "*) result ok "${line#*- }" ;;
	"not ok "*) result "not ok" "${line#*- }" ;;
	"1.."* | *" passed, "*" failed, "*) ;;
	*) echo "$line" ;;
	esac
done <"$scratch/tap"
reported=$failed
for child in "${children[@]}"; do
	status=0
	wait "$child" || status=$?
	# 1 is a test's failure.
	if [ "$status" -gt 1 ] || { [ "$status" -eq 1 ] && [ "$reported" -eq 0 ]; }; then
		result "not ok" "a testbed ended with status $status"
	fi
done
children=()
[ "$count" -gt 0 ] || result "not ok" "no test has run"
echo "1..$count"
echo "$((count - failed)) passed, $failed failed, 0 skipped ($SECONDS s)"
[ "$failed" -eq 0 ]
