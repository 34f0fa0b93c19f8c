#!/usr/bin/env bash
# Guests that go on from a snapshot: what `matchlock run` makes of them, what each has of its own, and
# what becomes of one that does not come up.
set -u
# shellcheck source=tests/kvm/lib/guest.sh
. tests/kvm/lib/guest.sh
# shellcheck source=tests/e2e/lib/own_snapshots.sh
. tests/e2e/lib/own_snapshots.sh
export XDG_RUNTIME_DIR=$work/runtime
mkdir -m 700 "$XDG_RUNTIME_DIR"

run() { # ARGUMENT... -- COMMAND...
	"$build/matchlock" run --engine kvm --verbose --workspace "$work/tree" "$@" 2>"$work/errors"
}

# ---- sessions ------------------------------------------------------------------------------------

own='head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id'
first=$(run -- sh -c "$own")
ok "a session whose guest is stored" $?
said "stored the guest for later starts" && [ "$(ls "$snapshots")" = "$(basename "$(echo "$snapshots"/*)")" ]
ok "keeps it" $?
same "for its user alone" "700 600" "$(stat -c %a "$snapshots" "$snapshots"/* | xargs)"
began=$(date +%s)
second=$(run -- sh -c "$own; date +%s; nproc; echo made >file")
ok "the next goes on from it" $?
said "going on from a snapshot"
ok "and says so" $?
read -r -d '' -a lines <<<"$(tail -n 2 <<<"$second")"
[ "${lines[0]}" -ge "$began" ] && [ "${lines[0]}" -le "$(date +%s)" ] && [ "${lines[1]}" = 1 ]
ok "with the right time" $?
same "and the workspace" made "$(cat "$work/tree/file")"
third=$(run -- sh -c "$own")
same "three guests of one snapshot have random bytes and names of their own" "6 lines" \
	"$(printf '%s\n' "$first" "$(head -n 2 <<<"$second")" "$third" | sort -u | wc -l) lines"
# A guest's root may write where guest-init had it stored.
cat >"$work/port.c" <<'C'
#include <stdio.h>
#include <sys/io.h>

int main(void)
{
	if (ioperm(0xea, 1, 1) != 0)
		return 1;
	outb(1, 0xea);
	return puts("written") < 0;
}
C
gcc -O2 -static -o "$work/tree/port" "$work/port.c"
before=$(sha256sum "$snapshots"/*)
same "a guest that writes to the port of storing" written "$(run --user 0 -- ./port)"
same "stores nothing" "$before" "$(sha256sum "$snapshots"/*)"
run --cpus 2 --memory 1g -- nproc >/dev/null
same "another machine has another snapshot" 2 "$(find "$snapshots" -type f | wc -l)"
same "from which all its processors run" 2 "$(run --cpus 2 --memory 1g -- nproc)"
said "going on from a snapshot"
ok "(it went on)" $?
run --no-snapshot -- true && ! said "going on from a snapshot" && ! said "stored the guest"
ok "--no-snapshot boots, and stores nothing" $?
# What is not the window's is of reserved pages, all of them taken at the start, and is not stored.
! run --huge-pages --memory 128m -- true && said "its memory is 60 huge pages of 2 MiB"
ok "--huge-pages without any says what it needs" $?
echo 70 >/proc/sys/vm/nr_hugepages
before=$(ls "$snapshots")
run --huge-pages --memory 128m -- sh -c 'cp file copy; touch up; while [ -e up ]; do sleep 0.1; done' &
for _ in {1..600}; do
	[ ! -e "$work/tree/up" ] || break
	sleep 0.1
done
same "--huge-pages takes them" 10 "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)"
rm -f "$work/tree/up"
wait $!
same "and the guest serves" "0 made" "$? $(cat "$work/tree/copy")"
same "and is not stored" "$before" "$(ls "$snapshots")"
same "afterwards they are free" 70 "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)"
echo 0 >/proc/sys/vm/nr_hugepages

# ---- many in a row -------------------------------------------------------------------------------

# Each with a file that is written and read back, on one, two and four processors.
starts=3
[ -z "${MATCHLOCK_LONG:-}" ] || starts=99
good=0
began=$SECONDS
for ((i = 0; i < starts; i++)); do
	processors=$((1 << i % 3))
	out=$(run --cpus "$processors" --memory 512m -- sh -c "nproc; echo $i >counter; cat counter")
	if [ "$out" = "$processors"$'\n'"$i" ] && { [ "$i" -lt 3 ] || said "going on from a snapshot"; }; then
		good=$((good + 1))
	else
		echo "# start $i: \"$out\""
		sed 's/^/# /' "$work/errors"
	fi
done
same "$starts starts in a row, the first three of which are stored" "$starts" "$good"
echo "# $(((SECONDS - began) * 1000 / starts)) ms each"

# ---- guests that do not come up -------------------------------------------------------------------

wrecked=(--cpus 1 --memory 512m)
python3 tests/kvm/lib/spoil_snapshot.py wrecked "$snapshots"/*-1-512m
same "one whose memory is wrecked starts once more, and boots" made "$(run "${wrecked[@]}" -- cat file)"
said "the guest did not go on from its snapshot" && ! said "stored the guest"
ok "with a warning" $?
same "and is not met again" 0 "$(find "$snapshots" -name '*-1-512m' | wc -l)"

# One whose local APIC is off: it goes on until it waits for the host, and is never interrupted again.
cat >"$work/deafen.c" <<'C'
#include "vmm/snapshot.h"

#include <fcntl.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	const off_t place = offsetof(struct snapshot_state, processors);
	int fd = open(arguments[count - 1], O_RDWR);
	struct kvm_cpu_state cpu;

	if (pread(fd, &cpu, sizeof(cpu), place) != sizeof(cpu))
		return 1;
	cpu.local_apic.regs[0xf1] &= ~1; /* the spurious interrupt register's bit 8 */
	return pwrite(fd, &cpu, sizeof(cpu), place) != sizeof(cpu);
}
C
gcc -D_GNU_SOURCE -I. -o "$work/deafen" "$work/deafen.c"
deaf=(--cpus 2 --memory 1g)
"$work/deafen" "$snapshots"/*-2-1024m
ok "(a guest is spoilt)" $?
same "one that hangs is given up, and booted" made "$(run "${deaf[@]}" -- cat file)"
said "the guest did not go on from its snapshot (nothing was heard of it for 20 s)"
ok "with a warning" $?
same "and is not met again" 0 "$(find "$snapshots" -name '*-2-1024m' | wc -l)"
finish
