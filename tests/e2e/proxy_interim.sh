#!/usr/bin/env bash
# Interim responses and Expect on both legs of the broker and in either version of HTTP:
# proxy_interim.py has node's clients and servers, and servers that go wrong.
set -u
cd "$(dirname "$0")/../.." || exit 1
command -v node >/dev/null || {
	echo "1..0 # SKIP node is not installed"
	exit 0
}
PYTHONPATH=tests/e2e/lib exec timeout 300 python3 tests/e2e/proxy_interim.py
