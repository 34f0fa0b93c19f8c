#!/usr/bin/env bash
# gRPC through the egress broker: proxy_grpc.py has the library's own server and client.
set -u
cd "$(dirname "$0")/../.." || exit 1
# The distribution's own Python has the library, whatever another one on the path has.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
"$python" -c 'import grpc' 2>/dev/null || {
	echo "1..0 # SKIP python3-grpcio is not installed"
	exit 0
}
GRPC_ENABLE_FORK_SUPPORT=0 GRPC_VERBOSITY=NONE PYTHONPATH=tests/e2e/lib exec timeout 300 "$python" tests/e2e/proxy_grpc.py
