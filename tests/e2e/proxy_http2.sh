#!/usr/bin/env bash
# HTTP/2 through the egress broker without a VM: proxy_http2.py, with real clients and servers.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_http2.py
