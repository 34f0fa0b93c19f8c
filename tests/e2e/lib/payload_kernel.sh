# shellcheck shell=bash
# Kernels of a few instructions for the tests of the KVM engine, put into $work, and an empty initrd
# beside them.
: "${work:?}"

kernel() { # NAME ASSEMBLY: an ELF image that begins with it
	printf '.globl _start\n_start:\n%s\n1: hlt\njmp 1b\n' "$2" >"$work/$1.s" &&
		as -o "$work/$1.o" "$work/$1.s" &&
		ld -nostdlib -static -Ttext=0x1000000 -o "$work/$1" "$work/$1.o" || exit 1
}
say() { # TEXT: code that writes it to the console, as a line
	printf 'lea text(%%rip), %%rsi\nmov $%d, %%ecx\n' $((${#1} + 1))
	printf 'mov $0x3f8, %%edx\ncld\nrep outsb\n'
	printf 'jmp 9f\ntext: .ascii "%s\\n"\n9:\n' "$1"
}
# A dot on the console, now and then.
kernel_tick() {
	kernel tick 'mov $0x3f8, %edx
mov $0x2e, %al
2: mov $20000, %ecx
3: dec %ecx
jnz 3b
out %al, %dx
jmp 2b'
}
head -c 5000 /dev/zero >"$work/initrd"
