#!/usr/bin/env bash
# Requests signed for AWS, through the egress broker: proxy_sigv4.py signs with placeholders, and its
# servers check what comes against the real key.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_sigv4.py
