#!/usr/bin/env bash
# What `matchlock run` does when KVM turns out, after the probe, not to run the guest: with --engine
# auto the session starts once more in software, with --engine kvm it ends; and what is left of a guest
# that panics. Played by a VMM in front of the real one, which says that KVM fails when it is to choose
# it, and adds to the kernel's command line.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh

build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export XDG_STATE_HOME=$scratch/state
mkdir -p "$scratch/programs" "$scratch/workspace" "$scratch/scripts"
cp "$build"/matchlock "$build"/matchlock-* "$build/initramfs.cpio" "$scratch/programs/"
cp scripts/*.sh "$scratch/scripts/"
mv "$scratch/programs/matchlock-vmm" "$scratch/programs/real-vmm"
cat >"$scratch/programs/matchlock-vmm" <<'END'
#!/bin/bash
engine='' control=''
for ((i = 1; i < $#; i++)); do
	next=$((i + 1))
	case ${!i} in
	--engine) engine=${!next} ;;
	--control-fd) control=${!next} ;;
	esac
done
echo "$engine" >>"$PLAYED"
[ "$engine" != qemu ] || exec "${0%/*}/real-vmm" "$@" ${APPEND:+--append "$APPEND"}
printf 'end kvm-internal-error: suberror 1' >&"$control"
exit 125
END
chmod +x "$scratch/programs/matchlock-vmm"
export PLAYED=$scratch/played

run()
{
	: >"$PLAYED"
	timeout 300 "$scratch/programs/matchlock" run --workspace "$scratch/workspace" "$@" \
		>"$scratch/out" 2>"$scratch/err"
}

run --engine auto --name fallen -- sh -c 'echo "$PPID" >made; echo inside'
ok "with --engine auto the command runs all the same" $?
[ "$(cat "$scratch/out")" = inside ] && [ -s "$scratch/workspace/made" ]
ok "... and works on the files" $?
[ "$(cat "$PLAYED")" = auto$'\n'qemu ]
ok "... in software, after one attempt at KVM" $?
grep -q 'KVM cannot run this guest (kvm-internal-error: suberror 1)' "$scratch/err"
ok "... which a warning says" $?
"$scratch/programs/matchlock" audit verify fallen >"$scratch/log" 2>&1
ok "... and the log is whole" $?
"$scratch/programs/matchlock" ls --json | grep -q '"engine": "qemu"'
ok "... and the session is one in software" $?

run --engine kvm -- true
[ $? -eq 125 ] && [ "$(cat "$PLAYED")" = kvm ] && grep -q 'kvm-internal-error' "$scratch/err"
ok "with --engine kvm the session ends, and says why" $?

# All that its kernel says, up to finding nothing to start.
(
	umask 0
	export APPEND='rdinit=/nosuch loglevel=7'
	run --engine qemu -- true
)
[ $? -eq 125 ] && grep -q 'the guest did not come up: .*guest-panic: Kernel panic - not syncing' "$scratch/err"
ok "a guest that panics ends the session, with its words" $?
console=$(sed -n 's/.*its console is in \(.*\)/\1/p' "$scratch/err")
grep -q 'Kernel panic - not syncing: ' "$console" && grep -q 'Linux version' "$console"
ok "... which names the file that has all of them" $?
same "... in the session's directory" "$XDG_STATE_HOME/matchlock/sessions" \
	"$(dirname "$(dirname "$console")")"
same "... for its owner alone" 600 "$(stat -c %a "$console")"
finish
