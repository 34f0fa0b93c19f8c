#!/usr/bin/env bash
# The egress broker without a VM: proxy_http.py plays the guest with raw bytes, and servers of all
# kinds on loopback.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_http.py
