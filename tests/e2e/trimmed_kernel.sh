#!/usr/bin/env bash
# The trimmed guest kernel (make guest-kernel) does what Debian's does: the tests that boot guests,
# once more on it. Part of the long form alone (MATCHLOCK_LONG=1 make check, or tests/run.sh
# trimmed_kernel), for nobody should have to build a kernel before a test. On KVM:
#
#   MATCHLOCK_KERNEL=trimmed make testbed-check
set -u
cd "$(dirname "$0")/../.." || exit 1
export MATCHLOCK_KERNEL=trimmed
export GUEST_BOOT_MIB=${GUEST_BOOT_MIB:-16} WORKLOAD_FILES=${WORKLOAD_FILES:-3000}
tests=(guest_boot main_job pty workloads)

# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh

kernel=$(scripts/guest-kernel.sh --print 2>/dev/null) ||
	skip_all "there is no trimmed kernel; make guest-kernel builds it"

[ -s "$kernel/vmlinux" ] && [ "${kernel%-matchlock}" != "$kernel" ]
ok "MATCHLOCK_KERNEL=trimmed finds it" $?
same "it is built from the configuration of this tree" "" \
	"$(cmp "$kernel/fragment" scripts/guest-kernel.config 2>&1)"
"${MATCHLOCK_BUILD:-build/release}/matchlock" doctor 2>/dev/null | grep -q "trimmed, $(cat "$kernel/version")"
ok "matchlock doctor names it" $?
same "a guest runs it" "-matchlock" \
	"$("${MATCHLOCK_BUILD:-build/release}/matchlock" run -q -- uname -r | grep -o -- '-matchlock$')"
for test in "${tests[@]}"; do
	replay "$test" bash "tests/e2e/$test.sh"
done
finish
