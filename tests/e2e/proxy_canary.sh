#!/usr/bin/env bash
# Decoy secrets through the egress broker without a VM: proxy_canary.py sends them in every form, and
# looks for what still leaves a session that is frozen.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_canary.py
