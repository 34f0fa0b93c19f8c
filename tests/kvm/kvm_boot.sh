#!/usr/bin/env bash
# Linux on the KVM engine: vmlinux and bzImage, one and more processors, memory on both sides of the
# hole, and a window that the kernel leaves alone.
set -u
# shellcheck source=tests/kvm/lib/guest.sh
. tests/kvm/lib/guest.sh

out=$(boot --memory 128 -- /busybox sh -c '/busybox uname -r; /busybox nproc
	/busybox cat /sys/devices/system/clocksource/clocksource0/available_clocksource
	/busybox grep -c hypervisor /proc/cpuinfo; exit 7')
same "the exit status is the command's" 7 $?
same "the guest powers off" "0 powered-off" "$(ending)"
{
	read -r release
	read -r processors
	read -r clocks
	read -r hypervisor
} <<<"$out"
[ -n "$release" ] && grep -qaF "Linux version $release " "$vmlinux"
ok "it is the kernel that was given" $?
same "one processor" 1 "$processors"
[[ "$clocks" == *kvm-clock* ]]
ok "the clock is KVM's" $?
same "which the guest knows" 1 "$hypervisor"
! grep -v 'reboot: Power down' "$work/console" | sed 's/^/# /' | grep .
ok "and its kernel has nothing to complain of" $?

# A bzImage as far as its header matters: three sectors, then the kernel, packed.
packed=$work/packed
lz4 -q -l -1 "$vmlinux" "$packed"
number() { # VALUE: four bytes, little-endian
	printf "%b" "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))"
	printf "%b" "\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 24)))"
}
{
	head -c 497 /dev/zero
	printf '\x02'
	head -c 16 /dev/zero
	printf 'HdrS\x0f\x02'
	head -c 64 /dev/zero
	number 0
	number $(($(stat -c %s "$packed") + 4))
	head -c $((1536 - 592)) /dev/zero
	cat "$packed"
	number "$(stat -L -c %s "$vmlinux")"
} >"$work/bzimage"
vmlinux=$work/bzimage
out=$(boot --memory 256 --window 0x8000000:0x1000000 -- /busybox grep 'System RAM' /proc/iomem)
same "a bzImage boots" "0 powered-off" "$(ending)"
[[ "$out" == *-07ffffff\ :*09000000-0fffffff\ :* ]]
ok "a window is not the kernel's to use" $?
vmlinux=$kernel/vmlinux

echo 0 >/proc/sys/vm/nr_hugepages
! "$vmm" --engine kvm --kernel "$vmlinux" --initrd "$work/initrd" --cid 3 --memory 128 \
	--huge-pages --socket-base "$work/refused" 2>"$work/errors" &&
	grep -q 'is 64 huge pages of 2 MiB' "$work/errors"
ok "without huge pages it says so" $?
echo 72 >/proc/sys/vm/nr_hugepages
same "with huge pages" "up 64" "$(boot --memory 128 --huge-pages -- /busybox sh -c \
	'echo up; /busybox sleep 2' | (
	read -r up
	awk -v up="$up" '/HugePages_Total/ { total = $2 } /HugePages_Free/ { print up, total - $2 }' \
		/proc/meminfo
	cat
))"
echo 0 >/proc/sys/vm/nr_hugepages

# As many as there may be take minutes where two processors are emulated: in the long form alone.
cases=("2 3584" "4 6144" "8 1024")
[ -z "${MATCHLOCK_LONG:-}" ] || cases+=("32 1024")
for case in "${cases[@]}"; do
	read -r processors mib <<<"$case"
	# shellcheck disable=SC2016 # for awk
	out=$(boot --memory "$mib" --cpus "$processors" -- /busybox sh -c '/busybox nproc
		/busybox awk "/MemTotal/ { print int(\$2 / 1024) }" /proc/meminfo')
	same "$processors processors" "$processors" "$(head -n 1 <<<"$out")"
	total=$(tail -n 1 <<<"$out")
	[ "${total:-0}" -gt $((mib * 9 / 10)) ] && [ "$total" -lt "$mib" ]
	ok "$mib MiB of memory" $?
	same "$processors processors and $mib MiB: the end" "0 powered-off" "$(ending)"
done
finish
