#!/usr/bin/env bash
# Rules for hosts through the egress broker without a VM: proxy_rules.py plays the guest, and a real
# git pushes to a real git server.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_rules.py
