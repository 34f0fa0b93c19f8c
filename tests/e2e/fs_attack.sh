#!/usr/bin/env bash
# A hostile guest against the real file server, in the classes of the design's list of attacks.
set -euo pipefail

build=${MATCHLOCK_BUILD:-build/release}
exec "$build/tests/e2e/fs_attack" "$build/matchlock-fsserver"
