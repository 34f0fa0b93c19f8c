#!/usr/bin/env bash
# A hostile engine: what breaks the protocol of the vsock device ends the VMM, which says so.
set -eu

build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
exec "$build/tests/e2e/vmm_violation" "$build/matchlock-vmm"
