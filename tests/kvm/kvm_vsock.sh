#!/usr/bin/env bash
# The vsock device of the KVM engine against the guest's driver: tests/e2e/vsock.sh, with its 1,000
# streams at once, and 128 MiB through it both ways at once, each byte compared; 10 GiB in the long
# form.
set -u
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"

export MATCHLOCK_TEST_ENGINE=kvm VSOCK_ECHO_MIB=128
[ -z "${MATCHLOCK_LONG:-}" ] || VSOCK_ECHO_MIB=10240
replay vsock bash tests/e2e/vsock.sh
finish
