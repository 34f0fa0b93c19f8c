#!/usr/bin/env bash
# Runs the tests and counts them. Every test program prints TAP; this adds up, shows progress, and
# shows the whole output of what failed.
#
#   tests/run.sh                    everything that is built
#   tests/run.sh --unit VARIANT     the unit tests of one variant; of tsan, those of queues and devices
#   tests/run.sh NAME...            those tests by file name (without .sh); asan/e2e/NAME: that
#                                   end-to-end test with the sanitizers
#
# MATCHLOCK_TEST_JOBS says how many run at a time (2); MATCHLOCK_TEST_TIMEOUT how many seconds each may take.
# With MATCHLOCK_LONG=1 "everything" includes trimmed_kernel, which wants a kernel from make guest-kernel.
set -u
cd "$(dirname "$0")/.." || exit 1

passed=0 failed=0 skipped=0 started=0
logs=$(mktemp -d)
: >"$logs/.counts"
trap 'rm -rf "$logs"' EXIT
export MATCHLOCK_BUILD="${MATCHLOCK_BUILD:-build/release}"
# Servers are there for root alone in the PATH of many.
export PATH="$PATH:/usr/sbin:/sbin"
export CK_TAP_LOG_FILE_NAME=- CK_VERBOSITY=silent CK_DEFAULT_TIMEOUT=120
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"
# What also runs with the sanitizers: all that does without the guest's programs, which are static.
sanitized=(fs_attack files audit exec vmm_violation vsock egress_names proxy proxy_attack proxy_secrets proxy_rules proxy_identity proxy_canary proxy_grpc proxy_coded proxy_sigv4 proxy_upstream proxy_jail)
# What also runs with the thread sanitizer: queues and devices, which vCPUs and the device's thread share.
threaded=(virtqueue virtio_mmio virtio_vsock vsock_device vsock_flow vhost_user block_device small_devices kvm_payload)
# What the tester's own config.yaml sets is not what is tested.
export XDG_CONFIG_HOME="$logs/config"
# Everybody tests on the same kernel, whatever the cache has; MATCHLOCK_KERNEL=trimmed tests the other.
export MATCHLOCK_KERNEL="${MATCHLOCK_KERNEL:-debian}"
limit=${MATCHLOCK_TEST_TIMEOUT:-1800}
# Programs that run at a time. Much of a test is waiting, for a VM to boot or for a time limit.
at_once=${MATCHLOCK_TEST_JOBS:-2}
# These keep two processors busy themselves: first, and alone. Two emulated guests of two processors
# each slow one another down by much more than half (875 s instead of 160).
alone=(ordinary_user workloads build_inside)
# These take minutes: next, so that the last to end does not end alone.
long=(main_job egress files guest_boot)

# run_one NAME COMMAND...: one test program; says how it went in one piece, for others run beside
# it, and leaves its counts in a file.
run_one()
{
	local name=$1 log limit=$limit status ok bad skip planned began took
	shift
	log=$logs/${name//\//,}
	began=$SECONDS
	# This one is nearly all the others once more.
	[ "$name" != e2e/ordinary_user ] || limit=$((2 * limit))
	timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
	status=$?
	took=$((SECONDS - began))
	skip=$(grep -ciE '^ok .*# skip' "$log")
	ok=$(($(grep -cE '^ok\b' "$log") - skip))
	bad=$(grep -cE '^not ok\b' "$log")
	planned=$(awk -F '[.][.]' '/^1[.][.][0-9]/ { sum += $2 } END { print sum + 0 }' "$log")
	if [ "$status" -eq 0 ] && grep -qiE '^1\.\.0 # skip' "$log"; then
		skip=1
	elif [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
		bad=1
		echo "not ok - ended with status $status" >>"$log"
	elif [ $((ok + bad + skip)) -eq 0 ]; then
		bad=1
		echo "not ok - ran no test" >>"$log"
	elif [ $((ok + bad + skip)) -ne "$planned" ]; then
		echo "not ok - planned $planned tests, ran $((ok + bad + skip))" >>"$log"
		bad=$((bad + 1))
	fi
	{
		flock 9
		echo "$ok $bad $skip" >>"$logs/.counts"
		printf '  %-40s %4d passed %3d failed %3d skipped  %4d s\n' "$name" "$ok" "$bad" "$skip" "$took"
		grep -iE '^(ok .*|1\.\.0 )# skip' "$log" | sed 's/^/    /'
		if [ "$bad" -ne 0 ]; then
			grep -E '^not ok' "$log" | sed 's/^/    /'
			echo "    ---- output of $name"
			tail -n 80 "$log" | sed 's/^/    | /'
		fi
	} 9>>"$logs/.lock"
}

# start NAME COMMAND...: the same beside others, as soon as there is room.
start()
{
	while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do
		wait -n
	done
	[ -t 1 ] && printf '  %-40s ...\r' "$1"
	started=$((started + 1))
	run_one "$@" &
}

run_unit()
{
	local variant=$1 test
	for test in tests/unit/*_test.c; do
		test=$(basename "$test" .c)
		start "$variant/$test" "build/$variant/tests/unit/$test"
	done
}

run_unit_tsan()
{
	local name
	for name in "${threaded[@]}"; do
		start "tsan/${name}_test" "build/tsan/tests/unit/${name}_test"
	done
}

run_e2e()
{
	local name names=()
	for name in "${alone[@]}" "${long[@]}"; do
		[ ! -f "tests/e2e/$name.sh" ] || names+=("$name")
	done
	for name in tests/e2e/*.sh; do
		name=$(basename "$name" .sh)
		[ "$name" != trimmed_kernel ] || [ -n "${MATCHLOCK_LONG:-}" ] || continue
		case " ${alone[*]} ${long[*]} " in *" $name "*) ;; *) names+=("$name") ;; esac
	done
	for name in "${names[@]}"; do
		start "e2e/$name" bash "tests/e2e/$name.sh"
		case " ${alone[*]} " in *" $name "*) wait ;; esac
	done
}

run_e2e_asan() # NAME
{
	start "asan/e2e/$1" env MATCHLOCK_BUILD=build/asan bash "tests/e2e/$1.sh"
}

case "${1:-}" in
--unit)
	if [ "${2:-release}" = tsan ]; then run_unit_tsan; else run_unit "${2:-release}"; fi
	;;
"")
	run_e2e
	for name in "${sanitized[@]}"; do
		run_e2e_asan "$name"
	done
	run_unit release
	run_unit asan
	run_unit_tsan
	;;
*)
	for name in "$@"; do
		if [ "${name#asan/e2e/}" != "$name" ]; then
			run_e2e_asan "${name#asan/e2e/}"
		elif [ -f "tests/e2e/$name.sh" ]; then
			start "e2e/$name" bash "tests/e2e/$name.sh"
		else
			start "release/$name" "build/release/tests/unit/$name"
		fi
	done
	;;
esac

wait
while read -r ok bad skip; do
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
	started=$((started - 1))
done <"$logs/.counts"
if [ "$started" -ne 0 ]; then
	echo "  $started test programs have no result"
	failed=$((failed + started))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
