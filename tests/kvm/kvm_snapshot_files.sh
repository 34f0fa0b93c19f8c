#!/usr/bin/env bash
# Storing a guest and going on from the file, as the VMM does it for whoever calls it: what is left of
# storing in a VMM while it runs, and what becomes of files that do not fit.
set -u
# shellcheck source=tests/kvm/lib/guest.sh
. tests/kvm/lib/guest.sh

# A guest that is asked to be stored, and what is left of that in its VMM while it runs. With an empty
# variable guest-init does not know of it, and dials at once.
running() { # TELLS OPTION...
	local pid
	: >"$work/snapshot"
	exec 8<>"$work/snapshot"
	controlled=1 boot --memory 128 --new-snapshot 8 "${@:2}" -- \
		/busybox sh -c 'echo up; while :; do /busybox sleep 1; done' >"$work/out" &
	runner=$!
	exec 8<&-
	until grep -q up "$work/out"; do sleep 0.1; done
	exec 4<>"$work/orders"
	pid=$(pgrep -P "$(pgrep -P "$(cat "$work/starter")" python3)" matchlock-vmm)
	same "a guest that is $1: its VMM has no descriptor of the file" "" \
		"$(find "/proc/$pid/fd" -lname "$work/snapshot" 2>/dev/null)"
	# The lock's own filter, and the thread's.
	same "and its threads are locked as any other's" "2 2" \
		"$(awk '$1 == "Seccomp_filters:" { print $2 }' "/proc/$pid"/task/*/status | xargs)"
	same "(it is $1)" "$1" "$(grep -qx stored "$work/answers" || echo "not ")stored"
	echo stop >&4
	exec 4>&-
	wait "$runner"
}
running "not stored" --append matchlock_snapshot=
grep -q 'could not be stored for later starts: the guest has opened a stream before' "$work/vmm-log" &&
	[ ! -s "$work/snapshot" ]
ok "which is told, and the file is empty" $?
truncate -s 1M "$work/disk"
exec 9<>"$work/disk"
running "not stored" --disk 9
exec 9>&-
running stored
cp "$work/snapshot" "$work/good"

# Answers by whether the guest went on, and has a right shell all the same.
starts_with() { # MEMORY
	exec 7<"$work/snapshot"
	boot --memory "$1" --snapshot 7 -- /busybox echo works >"$work/out"
	exec 7<&-
	if grep -q 'going on from a snapshot' "$work/vmm-log"; then
		echo "restored $(cat "$work/out")"
	else
		echo "booted $(cat "$work/out")$(sed -n 's/.*starting afresh: /: /p' "$work/vmm-log")"
	fi
}
same "the file as it was" "restored works" "$(starts_with 128)"
same "on a machine with other memory" "booted works: the snapshot is of another machine" "$(starts_with 256)"
# The rest of these is tests/unit/snapshot_test.c's; in the long form they are all here.
unreadable="cut noise" others=identity
[ -z "${MATCHLOCK_LONG:-}" ] || unreadable="empty cut longer magic processors devices runs bytes noise" others="memory identity"
for how in $unreadable; do
	cp "$work/good" "$work/snapshot"
	python3 tests/kvm/lib/spoil_snapshot.py "$how" "$work/snapshot"
	[[ "$(starts_with 128)" == "booted works: the snapshot cannot be read: "* ]]
	ok "a file that is spoilt: $how" $?
done
for how in $others; do
	cp "$work/good" "$work/snapshot"
	python3 tests/kvm/lib/spoil_snapshot.py "$how" "$work/snapshot"
	same "one of another: $how" "booted works: the snapshot is of another machine" "$(starts_with 128)"
done
finish
