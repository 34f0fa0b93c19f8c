#!/usr/bin/env bash
# WebSockets through the egress broker without a VM: proxy_websocket.py plays guests that try to
# get secrets out in frames, and a library's server and client talk through it as they like.
set -u
cd "$(dirname "$0")/../.." || exit 1
# The distribution's own Python has the library, whatever another one on the path has.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
PYTHONPATH=tests/e2e/lib exec timeout 300 "$python" tests/e2e/proxy_websocket.py
