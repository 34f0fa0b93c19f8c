#!/bin/bash
# Boots real guests (in QEMU, emulated, unless MATCHLOCK_TEST_ENGINE is kvm) from an initramfs with
# busybox and runs commands in them: what guest-init sets up, the streams through the VM's vsock, and
# the power-off.
#
# GUEST_BOOT_MIB sets how much is sent each way (default 64; 1024 takes minutes).
set -u
build=${MATCHLOCK_BUILD:-build/release}
mib=${GUEST_BOOT_MIB:-64}
engine=${MATCHLOCK_TEST_ENGINE:-qemu}
vmm=$build/matchlock-vmm
host=$build/tests/e2e/exec_host
init=$build/guest/guest-init

# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh

busybox=$(command -v busybox) || skip_all "busybox-static is not installed"
command -v qemu-system-x86_64 >/dev/null || skip_all "qemu-system-x86_64 is not installed"
for program in "$vmm" "$host" "$init"; do
	[ -x "$program" ] || skip_all "$program is not built"
done

work=$(mktemp -d /tmp/matchlock-guest-boot-XXXXXX)
trap 'rm -rf "$work"' EXIT
scripts/make-initramfs.sh "$work/initramfs.cpio" "$init" "$busybox" || exit 1
kernel=$(scripts/guest-kernel.sh --print) || exit 1
cp "$work/initramfs.cpio" "$work/initrd"
truncate -s %512 "$work/initrd"
cat "$kernel/modules.cpio" >>"$work/initrd"

# boot EXEC_HOST-ARGUMENTS: one guest's life, of $cpus processors. Streams are the command's; its status is returned.
# The VMM's status is left in the file vmm-status, for this may run in a subshell.
boot() {
	local pid status base
	base=$(mktemp -u "$work/guest-XXXXXX")
	timeout 180 "$vmm" --engine "$engine" --kernel "$kernel/vmlinux" --initrd "$work/initrd" \
		--memory 256 --cpus "${cpus:-1}" --cid 3 --socket-base "$base" --console-fd 3 \
		3>"$work/console" </dev/null >"$work/vmm-log" 2>&1 &
	pid=$!
	# Listens at once; the guest takes a second until it dials.
	timeout 180 "$host" --base "$base" "$@"
	status=$?
	wait "$pid"
	echo $? >"$work/vmm-status"
	return "$status"
}
vmm_status() {
	cat "$work/vmm-status"
}

out=$(boot -u 1234 -g 1235 --tmpfs /home/tester -e FOO=bar -C /home/tester -m 027 -- \
	/busybox sh -c '/busybox id; echo "$FOO"; /busybox pwd; umask; /busybox hostname
		/busybox touch file; /busybox stat -c "%u %g %a" file .
		/busybox cat /proc/sys/kernel/random/entropy_avail
		/busybox ip addr show lo | /busybox grep -c "inet 127.0.0.1/8"
		/busybox ls /sys/class/net
		/busybox nslookup example.com >/dev/null 2>&1 && echo resolved
		[ -c /dev/null ] && [ -e /dev/fd/0 ] && [ -d /dev/pts ] && echo devices
		echo words >&2; exit 7' 2>"$work/errors")
same "the exit status is the command's" 7 $?
same "the guest powers off" 0 "$(vmm_status)"
same "standard error is its own" "words" "$(grep -v exec_host "$work/errors")"
{
	read -r id
	read -r foo
	read -r pwd
	read -r umask
	read -r name
	read -r file
	read -r directory
	read -r entropy
	read -r loopback
	read -r interfaces
	read -r devices
} <<<"$out"
same "user and group" "uid=1234(tester) gid=1235(testers)" "$id"
same "environment" bar "$foo"
same "working directory" /home/tester "$pwd"
same "umask" 0027 "$umask"
same "host name" matchlock-test "$name"
same "a file belongs to the user" "1234 1235 640" "$file"
same "the home is the user's" "1234 1235 755" "$directory"
[ "$entropy" -ge 256 ]
ok "the random generator is seeded" $?
same "loopback is up" 1 "$loopback"
same "and is the only interface" lo "$interfaces"
same "names are not resolved; devices are there" devices "$devices"

out=$(cpus=3 boot -- /busybox nproc)
same "all processors are started" 3 "$out"
out=$(boot -u 0 -g 0 -- /busybox sh -c '/busybox grep -o "^Clock Event Device: [a-z].*" /proc/timer_list; /busybox poweroff -f' 2>/dev/null)
if [ "$engine" = qemu ]; then
	# A speed that had to be measured would be wrong when the host is busy.
	same "a guest of one processor has a timer of known speed" "Clock Event Device: pit" "$out"
fi
same "a power-off from inside is one" 0 "$(vmm_status)"

before=$(date +%s)
out=$(boot -- /busybox date +%s)
after=$(date +%s)
[ "$out" -ge "$before" ] && [ "$out" -le "$after" ]
ok "the clock is right" $?

boot -- /nosuch 2>/dev/null
same "a command that is not there" 127 $?
boot -- /dev/null 2>/dev/null
same "a command that cannot be run" 126 $?
boot -- /busybox sh -c 'kill -9 $$'
same "a command that is killed" 137 $?
boot --timeout 500 -- /busybox sh -c '/busybox sleep 1000 & /busybox sleep 1000' 2>/dev/null
same "a command whose time is up" 124 $?
same "and the guest still powers off" 0 "$(vmm_status)"

sum=$(head -c "${mib}M" /dev/zero | tr '\0' 'x' | sha256sum)
out=$(head -c "${mib}M" /dev/zero | tr '\0' 'x' | boot -i -- /busybox sha256sum)
same "$mib MiB into the guest" "$sum" "$out"
out=$(boot -- /busybox sh -c "/busybox head -c $((mib << 20)) /dev/zero | /busybox tr '\\0' x" | sha256sum)
same "$mib MiB out of the guest, none lost at the exit" "$sum" "$out"
out=$(head -c "${mib}M" /dev/zero | tr '\0' 'x' | boot -i -- /busybox cat | sha256sum)
same "$mib MiB through the guest" "$sum" "$out"

out=$(boot -i -t -- /busybox sh -c '/busybox tty; /busybox stty size; [ -t 0 ] && [ -t 1 ] && echo tty' </dev/null |
	tr -d '\r' | tr '\n' ' ')
same "a pty" "/dev/pts/0 24 80 tty " "$out"
out=$(boot -- /busybox sh -c '/busybox setsid /busybox sleep 1000 & echo started' --then \
	/busybox sh -c '/busybox ps | /busybox grep -c "[s]leep 1000"')
same "background processes end with their command" "started 0" "$(tr '\n' ' ' <<<"$out" | sed 's/ $//')"

# The guest ends when its host side does.
"$vmm" --engine "$engine" --kernel "$kernel/vmlinux" --initrd "$work/initrd" --memory 256 --cid 3 \
	--socket-base "$work/gone" --console-fd 3 3>"$work/console-gone" </dev/null \
	>"$work/vmm-gone" 2>&1 &
pid=$!
"$host" --base "$work/gone" -- /busybox sh -c 'echo up; /busybox sleep 1000' >"$work/gone-out" &
host_pid=$!
for ((i = 0; i < 600; i++)); do
	[ ! -s "$work/gone-out" ] || break
	sleep 0.1
done
kill -9 "$host_pid"
wait "$host_pid" 2>/dev/null
for ((i = 0; i < 100; i++)); do
	kill -0 "$pid" 2>/dev/null || break
	sleep 0.1
done
! kill -0 "$pid" 2>/dev/null
ok "the guest powers off when the host's side is killed" $?
kill "$pid" 2>/dev/null

finish
