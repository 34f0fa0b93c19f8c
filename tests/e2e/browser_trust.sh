#!/usr/bin/env bash
# Real browsers take the session's certificate authority from the files that guest-init writes:
# browser_trust.py runs them in a mount namespace where these files lie at their places. In an
# emulated guest Chromium takes a minute and a half for a page.
set -u
cd "$(dirname "$0")/../.." || exit 1
if [ "$(id -u)" -ne 0 ] && ! unshare --user --map-root-user --mount true 2>/dev/null; then
	echo "1..0 # SKIP needs a mount namespace"
	exit 0
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(--user --map-root-user)
PYTHONPATH=tests/e2e/lib exec timeout 300 unshare "${as_root[@]}" --mount python3 tests/e2e/browser_trust.py
