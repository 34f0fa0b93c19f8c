#!/usr/bin/env bash
# A terminal session in the VM, driven by a script: size, resize, Ctrl-C, job control, less, vim,
# top, exit status.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/engine.sh
. tests/e2e/lib/engine.sh
matchlock=$(realpath "${MATCHLOCK_BUILD:-build/release}/matchlock")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
use_engine "$scratch"
mkdir "$scratch/workspace"
seq 500 >"$scratch/workspace/numbers"
TERM=xterm expect -f tests/e2e/pty.exp "$matchlock" "$scratch/workspace" 2>"$scratch/err"
grep -qx 'written in vim' "$scratch/workspace/vim.txt" 2>/dev/null && echo "ok 9 - what vim saved is on the host" ||
	echo "not ok 9 - what vim saved is on the host"
sed 's/^/# /' "$scratch/err"
echo "1..9"
