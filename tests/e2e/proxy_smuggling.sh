#!/usr/bin/env bash
# Request smuggling through the egress broker, judged by what real servers saw: proxy_smuggling.py.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_smuggling.py
