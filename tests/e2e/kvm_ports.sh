#!/usr/bin/env bash
# Every port of the KVM engine's machine, read and written in each width, aligned and not, one value
# at a time and by strings, on this machine's own /dev/kvm: nothing but what ends a machine by design
# may do so, and the machine must go on to say that it is through.
set -u
build=${MATCHLOCK_BUILD:-build/release}

if [ ! -c /dev/kvm ]; then
	echo "1..0 # SKIP there is no /dev/kvm"
	exit 0
fi
work=$(mktemp -d /tmp/matchlock-kvm-ports-XXXXXX)
trap 'rm -rf "$work"' EXIT

# shellcheck source=tests/e2e/lib/payload_kernel.sh
. "$(dirname "$0")/lib/payload_kernel.sh"

sweep() { # VALUE INSTRUCTION [PORT-TO-SPARE]
	printf 'xor %%edx, %%edx\n2: mov $%s, %%eax\ncmp $%s, %%edx\nje 3f\n' "$1" "${3:--1}"
	printf '%s\n3: inc %%edx\ncmp $0x10000, %%edx\njne 2b\n' "$2"
}
# The serial port may have been told anything: its divisor's latch is closed and its loop opened.
through() { # CODE, of a kernel that then says so and ends
	printf '%s\nmov $0x3fb, %%edx\nxor %%eax, %%eax\nout %%al, %%dx\n' "$1"
	printf 'inc %%edx\nout %%al, %%dx\n'
	say "and through"
	printf 'mov $0x600, %%edx\nmov $0x34, %%al\nout %%al, %%dx\n'
}
strings() { # INSTRUCTION: three times in a row, from and to memory that is zero
	sweep 0 "mov \$0x110000, %esi
mov \$0x120000, %edi
mov \$3, %ecx
cld
rep $1"
}

kernel in "$(through "$(sweep 0 'in %dx, %al')
$(sweep 0 'in %dx, %ax')
$(sweep 0 'in %dx, %eax')")"
kernel in-strings "$(through "$(strings insb)
$(strings insw)
$(strings insl)")"
kernel out-strings "$(through "$(strings outsb)
$(strings outsw)
$(strings outsl)")"
# The values that end a machine at 0x600, 0x602 and 0x64; there alone, in the width that is meant
# or, where the port has a second byte, in the one of both.
kernel sleep "$(through "$(sweep 0x34343434 'out %al, %dx' 0x600)
$(sweep 0x34343434 'out %ax, %dx' 0x600)
$(sweep 0x34343434 'out %eax, %dx')")"
kernel reset "$(through "$(sweep 0x01010101 'out %al, %dx' 0x602)
$(sweep 0x01010101 'out %ax, %dx')
$(sweep 0x01010101 'out %eax, %dx')")"
kernel keyboard "$(through "$(sweep 0xfefefefe 'out %al, %dx' 0x64)
$(sweep 0xfefefefe 'out %ax, %dx')
$(sweep 0xfefefefe 'out %eax, %dx')")"
kernel ones "$(through "$(sweep -1 'out %al, %dx')
$(sweep -1 'out %ax, %dx')
$(sweep -1 'out %eax, %dx')")"
# What ends a machine must not only have been spared.
kernel wide 'mov $0x600, %edx
mov $0x1234, %eax
out %ax, %dx'
kernel string "mov \$0x602, %edx
movl \$0x01010000, 0x110000
mov \$0x110000, %esi
mov \$4, %ecx
cld
rep outsb"

export PYTHONPATH=${0%/*}/lib
python3 - "$build/matchlock-vmm" "$work" <<'PYTHON'
import socket

from machine import ends, finish, ok

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
extra = ("--doorbell-fd", str(theirs.fileno()))
for kernel in "in", "in-strings", "out-strings", "sleep", "reset", "keyboard", "ones":
    machine, heard = ends(kernel, "powered-off", 0, extra=extra, fds=[theirs.fileno()])
    ok(f"{kernel}: every port was tried", "and through\n" in machine.shown, machine.shown[-100:])
ok("the doorbell was rung", len(ours.recv(1 << 16)) > 3)
ends("wide", "powered-off", 0)
machine, heard = ends("string", "powered-off", 0)
ok("string: by the reset register", "reset register" in heard, heard)
finish()
PYTHON
