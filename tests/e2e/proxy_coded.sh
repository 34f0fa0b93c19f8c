#!/usr/bin/env bash
# Compressed request bodies through the egress broker: proxy_coded.py hides placeholders in them.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_coded.py
