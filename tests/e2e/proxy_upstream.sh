#!/usr/bin/env bash
# How the egress broker gets to servers: proxy_upstream.py has an HTTP proxy that it must go through,
# and servers that the host's own certificates vouch for, or do not.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_upstream.py
