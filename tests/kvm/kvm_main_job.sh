#!/usr/bin/env bash
# The main job on the KVM engine: tests/e2e/main_job.sh. The short form has the parts that matter
# most; each guest takes several seconds where it is emulated twice.
set -u
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"

export MATCHLOCK_TEST_ENGINE=kvm
[ -n "${MATCHLOCK_LONG:-}" ] || export MAIN_JOB_PARTS="simplest changes rollback kill_all"
replay main_job bash tests/e2e/main_job.sh
finish
