#!/usr/bin/env bash
# Attacks on the egress broker without a VM: proxy_attack.py plays a hostile guest, and hostile
# servers on loopback.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_attack.py
