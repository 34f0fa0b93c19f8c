#!/usr/bin/env bash
# The KVM engine as a whole, on this machine's own /dev/kvm, with kernels of a few instructions: how
# each ending is named, that nothing hangs, pausing, and being stopped by a signal.
set -u
build=${MATCHLOCK_BUILD:-build/release}

if [ ! -c /dev/kvm ]; then
	echo "1..0 # SKIP there is no /dev/kvm"
	exit 0
fi
work=$(mktemp -d /tmp/matchlock-kvm-machine-XXXXXX)
trap 'rm -rf "$work"' EXIT

# shellcheck source=tests/e2e/lib/payload_kernel.sh
. "$(dirname "$0")/lib/payload_kernel.sh"

kernel off "$(say hello)
mov \$0x600, %edx
mov \$0x34, %al
out %al, %dx"
kernel reset 'mov $0x602, %edx
mov $1, %al
out %al, %dx'
kernel keyboard 'mov $0xfe, %al
out %al, $0x64'
kernel panic "$(say 'Kernel panic - not syncing: test')
mov \$0xfe, %al
out %al, \$0x64"
kernel triple 'push $0
push $0
lidt (%rsp)
ud2'
# An instruction out of where no memory is, which KVM cannot emulate.
kernel device 'mov $0x30000000, %eax
jmp *%rax'
kernel halt ''
kernel spin '2: jmp 2b'
kernel flood 'mov $0x3f8, %edx
mov $0x2e, %al
2: out %al, %dx
jmp 2b'
kernel strings 'mov $0x3f8, %edx
cld
2: mov $0x100000, %esi
mov $4096, %ecx
rep outsb
jmp 2b'
kernel_tick
# Every register of the first four devices (vsock, entropy, balloon, disk), at each width, and ports all over. The page tables that
# a kernel starts with do not reach so far.
kernel poke 'movq $0x1200003, 0xa018
movl $0xd0000083, 0x1200400
movl $0, 0x1200404
mov $0xd0000000, %ebx
2: movb $0xff, (%rbx)
mov (%rbx), %eax
cmp $0xd0000070, %ebx
je 4f
movl $0x7, (%rbx)
mov (%rbx), %rax
4: inc %ebx
cmp $0xd0004000, %ebx
jne 2b
xor %edx, %edx
3: in %dx, %eax
inc %edx
cmp $0x10000, %edx
jne 3b
mov $0x600, %edx
mov $0x34, %al
out %al, %dx'
# The third device's read-only first register, written.
kernel balloon 'movq $0x1200003, 0xa018
movl $0xd0000083, 0x1200400
movl $0, 0x1200404
mov $0xd0002000, %ebx
movl $0, (%rbx)
mov $0x600, %edx
mov $0x34, %al
out %al, %dx'
kernel bell 'mov $0x42, %al
out %al, $0xe9
mov $0x600, %edx
mov $0x34, %al
out %al, %dx'
# The seed that its boot parameters lead to, behind a header of 16 bytes.
kernel seed 'mov 0x250(%rsi), %rsi
add $16, %rsi
mov $32, %ecx
mov $0x3f8, %edx
cld
rep outsb
mov $0x600, %edx
mov $0x34, %al
out %al, %dx'
printf 'no kernel' >"$work/text"

export PYTHONPATH=${0%/*}/lib
python3 - "$build/matchlock-vmm" "$work" <<'PYTHON'
import fcntl, os, signal, socket, time

from machine import Machine, ends, finish, ok, work


machine, heard = ends("off", "powered-off", 0)
ok("the console's text is kept", machine.shown == "hello\n", repr(machine.shown))
ends("off", "powered-off", 0, cpus=32)
ends("off", "powered-off", 0, memory=5000)
ends("off", "powered-off", 0, extra=("--window", "0x2000000:0x1000000"))
ends("reset", "powered-off", 0)
ends("keyboard", "powered-off", 0)
machine, heard = ends("panic", "guest-panic", 125)
ok("a panic's text is told", "not syncing: test" in heard, heard)
ends("triple", "triple-fault", 125, cpus=2)
machine, heard = ends("device", "kvm-internal-error", 125)
ok("an internal error says where", "rip" in heard, heard)
seeds = [ends("seed", "powered-off", 0)[0].shown for _ in range(2)]
ok("each machine has a seed of its own",
   seeds[0] != seeds[1] and all(len(set(seed)) > 4 for seed in seeds), seeds)
disk = os.open(f"{work}/disk", os.O_RDWR | os.O_CREAT)
os.ftruncate(disk, 1 << 20)
reading = os.open(f"{work}/disk", os.O_RDONLY)
ends("poke", "powered-off", 0, extra=("--disk", f"{disk}:serial=x"), fds=[disk])
machine, heard = ends("balloon", "powered-off", 0)
ok("a violation names its device", "the guest broke the balloon protocol" in machine.said,
   machine.said)
ends("off", "powered-off", 0, extra=("--disk", f"{reading}:ro", "--disk", str(disk)),
     fds=[disk, reading])
for extra, why in (((str(reading),), "writing"), (("1000",), "not open")):
    machine = Machine("off", extra=("--disk", *extra), fds=[reading])
    ok(f"a disk that is no good: {why}", machine.end() == 125 and why in machine.said,
       machine.said)
machine = Machine("off", extra=("--engine", "qemu", "--disk", str(disk)), fds=[disk])
heard = machine.hear()
ok("QEMU has no disks", heard.startswith("end engine-failed") and "--disk" in heard, heard)
ok("with status 125", machine.end() == 125)
machine = Machine("off", extra=("--engine", "qemu", "--huge-pages"))
heard = machine.hear()
ok("nor huge pages", heard.startswith("end engine-failed") and "--huge-pages" in heard, heard)
ok("with status 125 too", machine.end() == 125)

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
ends("bell", "powered-off", 0, extra=("--doorbell-fd", str(theirs.fileno())),
     fds=[theirs.fileno()])
theirs.close()
ok("a doorbell is passed on", ours.recv(10) == b"B")
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
ours.close()
ends("bell", "powered-off", 0, extra=("--doorbell-fd", str(theirs.fileno())),
     fds=[theirs.fileno()])
theirs.close()

memory = os.memfd_create("memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
os.ftruncate(memory, 64 << 20)
fcntl.fcntl(memory, 1033, 2)  # F_ADD_SEALS, F_SEAL_SHRINK
ends("bell", "powered-off", 0, fds=[memory], extra=(
    "--memory-fd", str(memory), "--window", "0x2000000:0x1000000"))

for kernel in "halt", "spin", "flood", "strings":
    machine = Machine(kernel, cpus=2)
    time.sleep(0.3)
    machine.control.send(b"stop")
    heard = machine.hear()
    ok(f"{kernel}: stops when asked", heard == "end stopped: as asked", heard)
    ok(f"{kernel}: with status 0", machine.end() == 0)
machine = Machine("spin")
time.sleep(0.3)
machine.control.shutdown(socket.SHUT_RDWR)
ok("the caller's end ends it", machine.end() == 0)

machine = Machine("tick", cpus=2)
ok("a guest at work", machine.grows())
machine.control.send(b"pause")
heard = machine.hear()
ok("pauses when asked", heard == "paused", heard)
ok("and does nothing then", machine.rests())
machine.control.send(b"resume")
ok("and goes on", machine.grows())
machine.process.send_signal(signal.SIGSTOP)
ok("a stopped process does nothing", machine.rests())
machine.process.send_signal(signal.SIGCONT)
ok("and goes on when it is continued", machine.grows())
machine.control.send(b"pause")
machine.hear()
machine.control.send(b"stop")
heard = machine.hear()
ok("a paused guest stops", heard == "end stopped: as asked", heard)
ok("with status 0", machine.end() == 0)

for kernel, why in (("text", "not an ELF"), ("nosuch", "nosuch"), ("initrd", "not an ELF")):
    machine = Machine(kernel)
    heard = machine.hear()
    ok(f"{kernel} is no kernel", heard.startswith("end engine-failed"), heard)
    ok(f"{kernel}: the message names it", f"{work}/{kernel}" in machine.said
       if machine.end() == 125 else False, machine.said)
machine = Machine("off", cpus=33)
ok("33 processors are too many", machine.hear().startswith("end engine-failed"))
ok("which is told", machine.end() == 125 and "32" in machine.said, machine.said)
machine = Machine("off", extra=("--append", "a" * 3000))
ok("a long command line is refused", machine.hear().startswith("end engine-failed"))
ok("which is told", machine.end() == 125 and "2047" in machine.said, machine.said)

finish()
PYTHON
