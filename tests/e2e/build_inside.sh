#!/usr/bin/env bash
# This project, built inside the VM on a real workspace; what was built runs there and on the host.
# Without optimizing and what debuggers need, for the compiler may be emulated and would take more than
# twice as long; MATCHLOCK_BRIEF=1 builds one program alone, MATCHLOCK_LONG=1 what users get.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/engine.sh
. tests/e2e/lib/engine.sh
matchlock=$(realpath "${MATCHLOCK_BUILD:-build/release}/matchlock")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
use_engine "$scratch"
# Else, where that is another file system, the undo store is in the workspace and stays for rm.
export XDG_STATE_HOME=$scratch/state
git clone -q . "$scratch/project"
cd "$scratch/project" || exit 1

goal="make -j2 VARIANT=debug FLAGS_debug=-O0" program=build/debug/matchlock arguments=version
if [ -n "${MATCHLOCK_BRIEF:-}" ]; then
	goal+=" build/debug/matchlock-audit" program=build/debug/matchlock-audit arguments=--help
elif [ -n "${MATCHLOCK_LONG:-}" ]; then
	goal="make -j2" program=build/release/matchlock
fi
"$matchlock" run --name "build-inside-$$" --workspace . --memory 2g --cpus 2 --timeout 1200 -- sh -c "$goal && $program $arguments" >"$scratch/out" 2>&1
status=$?
if [ $status -eq 0 ]; then
	echo "ok 1 - inside: $goal, and the program runs"
else
	echo "not ok 1 - inside: $goal (status $status)"
	tail -n 30 "$scratch/out" | sed 's/^/# /'
fi
if "$program" $arguments >/dev/null 2>&1; then
	echo "ok 2 - the program runs on the host too"
else
	echo "not ok 2 - the program runs on the host too"
fi
if "$matchlock" rollback "build-inside-$$" >"$scratch/rollback" 2>&1 &&
	[ -z "$(git status --porcelain --ignored | tee -a "$scratch/rollback")" ]; then
	echo "ok 3 - a roll-back removes all of it"
else
	echo "not ok 3 - a roll-back removes all of it"
	tail -n 30 "$scratch/rollback" | sed 's/^/# /'
fi
echo "1..3"
