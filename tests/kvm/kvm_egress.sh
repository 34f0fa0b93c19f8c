#!/usr/bin/env bash
# The network of guests of the KVM engine: tests/e2e/egress.sh with 10,000 connections at once, and streams
# of two minutes with a pause of 66 s (tests/e2e/streams.sh). Part of the long form alone
# (tests/testbed/check.sh).
set -u
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"

export MATCHLOCK_TEST_ENGINE=kvm MATCHLOCK_ENGINE=kvm
# The broker has two descriptors for each connection, the server and the VMM one.
ulimit -n 60000
ok "60,000 files may be open" $?
# What is emulated twice moves less, and takes the clients that every system has.
export EGRESS_CONNECTIONS=10000 EGRESS_MIB=4 EGRESS_BRIEF=1
replay egress bash tests/e2e/egress.sh
# A processor that is emulated twice may stand still for seconds; the pause is longer.
export EGRESS_STREAM_S=120 EGRESS_STREAM_DELAY_MS=10000 EGRESS_STREAM_MEDIAN_MS=500
replay streams bash tests/e2e/streams.sh
finish
