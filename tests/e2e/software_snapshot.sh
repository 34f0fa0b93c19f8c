#!/usr/bin/env bash
# Sessions in software whose guests go on from memory that was stored as one slept: what `matchlock run`
# makes of them, what each has of its own, and what becomes of one that does not come up.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh

build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
command -v qemu-system-x86_64 >/dev/null || skip_all "qemu-system-x86_64 is not installed"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/e2e/lib/own_snapshots.sh
. tests/e2e/lib/own_snapshots.sh

run() { # ARGUMENT... -- COMMAND...
	timeout -k 10 300 "$build/matchlock" run --engine qemu --cpus 1 --memory 512m --verbose \
		--workspace "$work/tree" "$@" 2>"$work/errors"
}

# ---- sessions ------------------------------------------------------------------------------------

own='head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id'
first=$(run --name first -- sh -c "$own")
ok "a session whose guest is stored" $?
said "stored the guest for later starts" && said "going on from a snapshot"
ok "goes on from that itself" $?
same "for its user alone" "700 600 software-${MATCHLOCK_KERNEL:-debian}-1-512m" \
	"$(stat -c %a "$snapshots" "$snapshots"/* | xargs) $(ls "$snapshots")"
"$build/matchlock" audit verify first >"$work/log" 2>&1
ok "its log is whole" $?
began=$(date +%s)
second=$(run -- sh -c "$own; date +%s; cut -d. -f1 /proc/uptime; echo made >file")
ok "the next goes on from it" $?
said "going on from a snapshot" && ! said "stored the guest"
ok "at once" $?
read -r -d '' -a lines <<<"$(tail -n 2 <<<"$second")"
[ "${lines[0]}" -ge "$began" ] && [ "${lines[0]}" -le "$(date +%s)" ]
ok "with the right time" $?
[ "${lines[1]}" -lt 60 ]
ok "and an uptime without the time asleep" $?
same "and the workspace" made "$(cat "$work/tree/file")"
third=$(run -- sh -c "$own")
same "three guests of one snapshot have random bytes and names of their own" "6 lines" \
	"$(printf '%s\n' "$first" "$(head -n 2 <<<"$second")" "$third" | sort -u | wc -l) lines"
run --no-snapshot -- true && ! said "going on from a snapshot" && ! said "stored the guest"
ok "--no-snapshot boots, and stores nothing" $?
same "a guest with more processors has another snapshot" 2 "$(run --cpus 2 -- nproc)"
same "from which all of them run" 2 "$(run --cpus 2 -- nproc)"
said "going on from a snapshot"
ok "(it went on)" $?

# ---- what a guest's root can do ------------------------------------------------------------------

cat >"$work/port.c" <<'C'
#include "vmm/acpi_tables.h"

#include <stdio.h>
#include <sys/io.h>

int main(void)
{
	if (iopl(3) != 0)
		return 1;
	outw(0xfffb, ACPI_SLEEP_PORT);
	return puts("written") < 0;
}
C
cat >"$work/off.c" <<'C'
#include <sys/reboot.h>

int main(void)
{
	return reboot(RB_POWER_OFF);
}
C
for program in port off; do
	gcc -O2 -static -I. -o "$work/tree/$program" "$work/$program.c"
done
before=$(sha256sum "$snapshots"/*)
same "one that writes where a guest sleeps" written "$(run --user 0 -- ./port)"
run --user 0 -- ./off
[ $? -eq 125 ] && said "powered-off"
ok "one that turns its machine off" $?
run --user 0 -- sh -c 'echo mem >/sys/power/state; echo on'
[ $? -eq 125 ] && said "powered-off"
ok "one that is sent to sleep, which loses its streams" $?
same "store nothing" "$before" "$(sha256sum "$snapshots"/*)"

# A kernel that cannot sleep goes on in the QEMU that ends where a guest sleeps. There its root does
# all that the kernel would: the address to be woken at, then the register.
busybox=$(command -v busybox) && kernel=$(scripts/guest-kernel.sh --print) &&
	scripts/make-initramfs.sh "$work/initrd" "$build/guest/guest-init" "$busybox" "$work/tree/port" || exit 1
truncate -s %512 "$work/initrd"
cat "$kernel/modules.cpio" >>"$work/initrd"
: >"$work/snapshot"
vector=$(gcc -E -P -I. - <<'C' | tail -n 1
#include "vmm/acpi_tables.h"
(ACPI_MICROVM_ADDRESS + ACPI_FACS_OFFSET + ACPI_FACS_WAKING_VECTOR) / 4
C
)
timeout -k 10 120 "$build/matchlock-vmm" -v --engine qemu --kernel "$kernel/vmlinux" --initrd "$work/initrd" \
	--memory 256 --cid 3 --socket-base "$work/socket" --console-fd 3 --new-snapshot 4 \
	--append initcall_blacklist=pm_init 3>"$work/console" 4<>"$work/snapshot" </dev/null >"$work/vmm-log" 2>&1 &
awake=$(timeout -k 10 120 "$build/tests/e2e/exec_host" --base "$work/socket" -u 0 -g 0 -- /busybox sh -c '
	[ -c /dev/mem ] || exit
	printf "\0\0\001\0" | /busybox dd of=/dev/mem bs=4 seek=$1 conv=notrunc 2>/dev/null
	/busybox dd if=/dev/mem bs=4 skip=$1 count=1 2>/dev/null | /busybox od -An -tx1
	/port' sh $((vector)) 2>"$work/errors")
wait $!
same "one whose kernel cannot sleep, and whose root says that it does," " 00 00 01 00" "$awake"
grep -q 'cannot sleep' "$work/console" && grep -q 'the guest ended: powered-off\|end powered-off' "$work/vmm-log"
ok "has turned its machine off" $?
same "and is not stored" 0 "$(stat -c %s "$work/snapshot")"

# ---- guests that do not come up -------------------------------------------------------------------

# At the address where it is woken, code that does nothing for good.
cat >"$work/stun.c" <<'C'
#include "vmm/acpi_tables.h"
#include "vmm/snapshot.h"

#include <fcntl.h>
#include <unistd.h>

static int fd;
static struct snapshot_state state;

/* Where a byte of the guest's lies in the file. */
static off_t place(uint64_t address)
{
	const off_t list = (off_t)(offsetof(struct snapshot_state, processors) +
				   state.cpus * sizeof(state.processors[0]));
	off_t at = (off_t)((list + state.run_count * 16 + 4095) / 4096 * 4096);
	uint64_t run[2];

	for (uint64_t i = 0; i < state.run_count; i++, at += (off_t)run[1]) {
		if (pread(fd, run, sizeof(run), list + (off_t)i * 16) != sizeof(run))
			return -1;
		if (address >= run[0] && address - run[0] < run[1])
			return at + (off_t)(address - run[0]);
	}
	return -1;
}

int main(int count, char **arguments)
{
	static const unsigned char code[] = { 0xfa, 0xf4, 0xeb, 0xfd }; /* cli, hlt, again */
	const uint64_t vector = ACPI_MICROVM_ADDRESS + ACPI_FACS_OFFSET + ACPI_FACS_WAKING_VECTOR;
	uint32_t address = 0;

	fd = open(arguments[count - 1], O_RDWR);
	if (pread(fd, &state, offsetof(struct snapshot_state, processors), 0) < 0 ||
	    pread(fd, &address, sizeof(address), place(vector)) != sizeof(address))
		return 1;
	return pwrite(fd, code, sizeof(code), place(address)) != sizeof(code);
}
C
gcc -D_GNU_SOURCE -I. -o "$work/stun" "$work/stun.c" && "$work/stun" "$snapshots"/*-2-512m
ok "(a guest is spoilt)" $?
same "one that hangs is given up, and booted" made "$(run --cpus 2 -- cat file)"
said "the guest did not go on from its snapshot (nothing was heard of it for 20 s)"
ok "with a warning" $?
same "and is not met again" 0 "$(find "$snapshots" -name '*-2-512m' | wc -l)"
python3 tests/kvm/lib/spoil_snapshot.py noise "$snapshots"/*-1-512m
same "one that is none is booted and stored anew" made "$(run -- cat file)"
said "starting afresh: the snapshot: it cannot be read" && said "stored the guest for later starts"
ok "which is told" $?
same "and met again" made "$(run -- cat file)"
said "going on from a snapshot" && ! said "stored the guest"
ok "(it went on)" $?

# ---- a session that is interrupted while its guest sleeps ------------------------------------------

rm -f "$snapshots"/*
: >"$work/errors"
"$build/matchlock" run --engine qemu --verbose --workspace "$work/tree" --name interrupted -- \
	sleep 300 2>"$work/errors" &
until said "stored the guest for later starts"; do
	kill -0 $! || break
	sleep 0.01
done
kill -INT $!
wait $!
same "one that is interrupted as its guest is stored" 130 $?
same "leaves nothing that is half stored" "" "$(find "$snapshots" -name '*.new')"
same "and no process" "" "$(pgrep -f "$work/tree")"
same "and the next runs" made "$(run -- cat file)"
finish
