#!/usr/bin/env bash
# Secrets through the egress broker without a VM: proxy_secrets.py plays the guest, and servers that
# echo what they get.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_secrets.py
