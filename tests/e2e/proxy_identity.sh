#!/usr/bin/env bash
# Client certificates that the broker holds: proxy_identity.py has servers that want one, and a
# guest that would like to have it, or to use it elsewhere.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_identity.py
