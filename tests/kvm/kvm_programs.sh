#!/usr/bin/env bash
# Programs in guests of the KVM engine: the tests of tests/e2e/ that do more than the main job in
# them. Part of the long form alone (tests/testbed/check.sh), for they take many minutes.
set -u
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"

export MATCHLOCK_TEST_ENGINE=kvm
# What is emulated twice moves less, and the compiler builds one program.
export PIPE_MIB=64 GUEST_BOOT_MIB=16 WORKLOAD_FILES=1000 MATCHLOCK_BRIEF=1
for test in pty pipes guest_boot workloads build_inside; do
	replay "$test" bash "tests/e2e/$test.sh"
done
finish
