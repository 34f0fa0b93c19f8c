#!/usr/bin/env bash
# The egress broker's own jail: proxy_jail.py looks at a broker that runs, as the kernel shows it.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_jail.py
