#!/usr/bin/env bash
# Bytes through the standard streams of a command in the VM: all arrive, none is changed.
# PIPE_MIB (default 256; 1024 for the long form) each way.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/engine.sh
. tests/e2e/lib/engine.sh
matchlock=$(realpath "${MATCHLOCK_BUILD:-build/release}/matchlock")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
use_engine "$scratch"
mib=${PIPE_MIB:-256}
count=0
result()
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then echo "ok $count - $2"; else echo "not ok $count - $2"; fi
}
# The same pseudo-random bytes each time, without a file to hold them.
bytes() { openssl enc -aes-128-ctr -pass pass:matchlock -nosalt -pbkdf2 </dev/zero 2>/dev/null | head -c "$((mib * 1024 * 1024))"; }

want=$(bytes | sha256sum)
got=$(bytes | "$matchlock" run -i -- cat 2>"$scratch/err" | sha256sum)
[ "$want" = "$got" ]
result $? "$mib MiB in and out again"
got=$("$matchlock" run -- sh -c "head -c $((mib * 1024 * 1024)) /dev/zero" 2>>"$scratch/err" | sha256sum)
[ "$got" = "$(head -c "$((mib * 1024 * 1024))" /dev/zero | sha256sum)" ]
result $? "$mib MiB out, the writer exiting at once"
"$matchlock" run -- sh -c 'printf out; printf err >&2; exit 3' >"$scratch/out" 2>"$scratch/both"
status=$?
[ $status -eq 3 ] && [ "$(cat "$scratch/out")" = out ] && grep -q err "$scratch/both"
result $? "standard output and error apart, status 3"
printf 'a\nb\n' | "$matchlock" run -i -- sh -c 'read -r first; echo "$first"; cat' >"$scratch/out" 2>>"$scratch/err"
[ "$(cat "$scratch/out")" = "a
b" ]
result $? "end of input reaches the command"
"$matchlock" run -- sh -c 'yes' 2>/dev/null | head -c 1000000 >/dev/null
[ "${PIPESTATUS[0]}" -ne 0 ]
result $? "a reader that goes away ends the command"
sed 's/^/# /' "$scratch/err"
echo "1..$count"
