#!/usr/bin/env bash
# Runs the tests and counts them. Every test program prints TAP; this adds up, shows progress, and
# shows the whole output of what failed.
#
#   tests/run.sh                    everything that is built
#   tests/run.sh --unit VARIANT     the unit tests of one variant; of tsan, those of queues and devices
#   tests/run.sh NAME...            those tests by file name (without .sh); asan/e2e/NAME: that
#                                   end-to-end test with the sanitizers
#
# With MATCHLOCK_LONG=1 "everything" includes trimmed_kernel, which wants a kernel from make guest-kernel.
set -u
cd "$(dirname "$0")/.." || exit 1

passed=0 failed=0 skipped=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export MATCHLOCK_BUILD="${MATCHLOCK_BUILD:-build/release}"
export CK_TAP_LOG_FILE_NAME=- CK_VERBOSITY=silent CK_DEFAULT_TIMEOUT=120
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1}"
# What also runs with the sanitizers: all that does without the guest's programs, which are static.
sanitized=(fs_attack files audit exec vmm_violation vsock egress_names proxy proxy_secrets)
# What also runs with the thread sanitizer: queues and devices, which vCPUs and the device's thread share.
threaded=(virtqueue virtio_mmio virtio_vsock vsock_device vhost_user block_device small_devices kvm_payload)
# What the tester's own config.yaml sets is not what is tested.
export XDG_CONFIG_HOME="$logs/config"
# Everybody tests on the same kernel, whatever the cache has; MATCHLOCK_KERNEL=trimmed tests the other.
export MATCHLOCK_KERNEL="${MATCHLOCK_KERNEL:-debian}"
limit=${MATCHLOCK_TEST_TIMEOUT:-900}

# run_one NAME COMMAND...: one test program; adds its results to the totals.
run_one()
{
	local name=$1 log="$logs/log" limit=$limit status ok bad skip planned began took
	shift
	began=$SECONDS
	# This one is nearly all the others once more.
	[ "$name" != e2e/ordinary_user ] || limit=$((3 * limit))
	[ -t 1 ] && printf '  %-40s ...\r' "$name"
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
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
	printf '  %-40s %4d passed %3d failed %3d skipped  %4d s\n' "$name" "$ok" "$bad" "$skip" "$took"
	grep -iE '^(ok .*|1\.\.0 )# skip' "$log" | sed 's/^/    /'
	if [ "$bad" -ne 0 ]; then
		grep -E '^not ok' "$log" | sed 's/^/    /'
		echo "    ---- output of $name"
		tail -n 80 "$log" | sed 's/^/    | /'
	fi
}

run_unit()
{
	local variant=$1 test
	for test in tests/unit/*_test.c; do
		test=$(basename "$test" .c)
		run_one "$variant/$test" "build/$variant/tests/unit/$test"
	done
}

run_unit_tsan()
{
	local name
	for name in "${threaded[@]}"; do
		run_one "tsan/${name}_test" "build/tsan/tests/unit/${name}_test"
	done
}

run_e2e()
{
	local test
	for test in tests/e2e/*.sh; do
		[ "$test" != tests/e2e/trimmed_kernel.sh ] || [ -n "${MATCHLOCK_LONG:-}" ] || continue
		run_one "e2e/$(basename "$test" .sh)" bash "$test"
	done
}

run_e2e_asan() # NAME
{
	run_one "asan/e2e/$1" env MATCHLOCK_BUILD=build/asan bash "tests/e2e/$1.sh"
}

case "${1:-}" in
--unit)
	if [ "${2:-release}" = tsan ]; then run_unit_tsan; else run_unit "${2:-release}"; fi
	;;
"")
	run_unit release
	run_unit asan
	run_unit_tsan
	for name in "${sanitized[@]}"; do
		run_e2e_asan "$name"
	done
	run_e2e
	;;
*)
	for name in "$@"; do
		if [ "${name#asan/e2e/}" != "$name" ]; then
			run_e2e_asan "${name#asan/e2e/}"
		elif [ -f "tests/e2e/$name.sh" ]; then
			run_one "e2e/$name" bash "tests/e2e/$name.sh"
		else
			run_one "release/$name" "build/release/tests/unit/$name"
		fi
	done
	;;
esac

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
