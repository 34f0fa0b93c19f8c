#!/usr/bin/env bash
# Real programs inside a real VM, on a real workspace: git, python, npm, tar, sqlite, compiler.
# The TAP lines come from inside; this adds what the host then sees.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/engine.sh
. tests/e2e/lib/engine.sh
matchlock=$(realpath "${MATCHLOCK_BUILD:-build/release}/matchlock")
inside=$(realpath tests/e2e/inside/workloads.sh)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
use_engine "$scratch"
count=0
result() # STATUS NAME
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; fi
}

# run_group GROUP... in a workspace named after the first; sets $workspace.
run_group()
{
	workspace="$scratch/$1"
	mkdir -p "$workspace"
	cp "$inside" "$workspace/workloads.sh"
	case " $* " in *" git "*) git clone -q . "$workspace/origin" ;; esac
	"$matchlock" run --workspace "$workspace" --memory 1g -e WORKLOAD_UID="$(id -u)" -e WORKLOAD_TIME="$(date +%s)" \
		-e WORKLOAD_FILES="${WORKLOAD_FILES:-10000}" --timeout 900 -- \
		bash workloads.sh "$@" >"$scratch/out" 2>"$scratch/err"
	local status=$?
	grep -E '^(ok|not ok|#)' "$scratch/out" | sed -E "s/^(ok|not ok) [0-9]+ - /\1 - $1: /"
	count=$((count + $(grep -cE '^(ok|not ok)' "$scratch/out")))
	[ $status -eq 0 ] || sed 's/^/# /' "$scratch/err"
	result $status "the $1 run ends with status 0"
}

run_group git
git -C "$workspace/clone" fsck --strict >/dev/null 2>&1 && git -C "$workspace/origin" log -1 --format=%s | grep -qx inside
result $? "the host finds the guest's commits intact"
[ "$(stat -c %u "$workspace/clone/README.md")" = "$(id -u)" ]
result $? "what the guest made belongs to the caller"
run_group python node system
run_group tar sqlite
sqlite3 "$workspace/data.db" 'PRAGMA integrity_check' | grep -qx ok
result $? "the host finds the guest's database intact"
echo "1..$count"
