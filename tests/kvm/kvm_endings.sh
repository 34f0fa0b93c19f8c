#!/usr/bin/env bash
# How Linux on the KVM engine ends, each with its name; its clock while the VMM is stopped; and
# `matchlock run` on top.
set -u
# shellcheck source=tests/kvm/lib/guest.sh
. tests/kvm/lib/guest.sh
export XDG_RUNTIME_DIR=$work/runtime
mkdir -m 700 "$XDG_RUNTIME_DIR"

boot --memory 256 -- /busybox sh -c 'echo c >/proc/sysrq-trigger; /busybox sleep 100' >"$work/out"
same "a panic" "125 guest-panic: Kernel panic - not syncing: sysrq triggered crash" "$(ending)"
boot --memory 256 -- /busybox sh -c 'echo b >/proc/sysrq-trigger; /busybox sleep 100' >"$work/out"
[[ "$(ending)" == "0 powered-off"* ]]
ok "a reset by the guest" $?
boot --memory 256 --append reboot=t -- \
	/busybox sh -c 'echo b >/proc/sysrq-trigger; /busybox sleep 100' >"$work/out"
same "a triple fault" "125 triple-fault" "$(ending)"

# One that tells the time, in the file dates.
boot_clock() {
	: >"$work/dates"
	# shellcheck disable=SC2016 # for the guest's shell
	boot --memory 256 --cpus 2 -- /busybox sh -c 'i=0; while [ $i -lt 1000 ]; do
		/busybox date +%s; /busybox sleep 0.2; i=$((i + 1)); done' >"$work/dates" &
	runner=$!
}
await() { # COMMAND: until it succeeds
	for ((i = 0; i < 900; i++)); do
		"$@" && return 0
		sleep 0.1
	done
	return 1
}
# shellcheck disable=SC2317 # called by await
has_lines() { # COUNT
	[ "$(wc -l <"$work/dates")" -ge "$1" ]
}
# The times around the guest's own bound it.
right_time() { # DESCRIPTION
	continued=$(date +%s)
	"${@:2}"
	await has_lines $((lines + 5))
	seen=$(tail -n 1 "$work/dates")
	now=$(date +%s)
	[ "$seen" -ge "$continued" ] && [ "$seen" -le "$now" ]
	ok "$1" $?
	echo "# continued at $continued, the guest says $seen, it is $now"
}

boot_clock
await has_lines 1
pid=$(pgrep -P "$(cat "$work/starter")" matchlock-vmm)
kill -STOP "$pid"
sleep 5
lines=$(wc -l <"$work/dates")
right_time "the clock is right after SIGSTOP and SIGCONT" kill -CONT "$pid"
kill -9 "$pid"
wait "$runner"
[ "$(cat "$work/vmm-status")" -gt 128 ]
ok "a VMM that is killed is missed" $?

order() { # TEXT
	echo "$1" >&4
}
controlled=1 boot_clock
await [ -p "$work/orders" ] && exec 4<>"$work/orders"
await has_lines 1
order pause
await grep -q '^paused' "$work/answers"
ok "a guest is paused when asked" $?
sleep 1 # for what it wrote before
lines=$(wc -l <"$work/dates")
sleep 4
same "and says nothing then" "$lines" "$(wc -l <"$work/dates")"
right_time "the clock is right after a pause" order resume
order stop
await grep -q '^end stopped: as asked' "$work/answers"
ok "and the guest ends when asked" $?
exec 4>&-
wait "$runner"
same "with status 0" "0 stopped: as asked" "$(ending)"

mkdir "$work/tree"
out=$("$build/matchlock" run --engine kvm --workspace "$work/tree" -- \
	sh -c 'echo made >file; uname -r; grep -c hypervisor /proc/cpuinfo' 2>"$work/errors")
same "matchlock run" "0 made" "$? $(cat "$work/tree/file")"
grep -qaF "Linux version ${out%%$'\n'*} " "$kernel/vmlinux"
ok "in its guest" $?
sed 's/^/# /' "$work/errors"
"$build/matchlock" run --engine kvm --timeout 2s --workspace "$work/tree" -- sleep 1000 \
	2>"$work/errors"
same "and its time limit" 124 $?
"$build/matchlock" run --workspace "$work/tree" -- false 2>"$work/errors"
same "matchlock run takes this engine by itself" "1 0" "$? $(grep -c 'engine qemu' "$work/errors")"
[ -s "$XDG_RUNTIME_DIR/matchlock/kvm-probe" ]
ok "and keeps what it found out" $?
finish
