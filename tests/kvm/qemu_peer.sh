#!/usr/bin/env bash
# The peer: QEMU's microvm machine with KVM boots the guest's kernel, as it is and with two
# processors, and its init reports where it is. That this works says that the testbed's KVM does.
set -u
work=$(mktemp -d /tmp/matchlock-peer-XXXXXX)
trap 'rm -rf "$work"' EXIT

count=0
failed=0
ok() { # DESCRIPTION CONDITION-STATUS
	count=$((count + 1))
	if [ "$2" = 0 ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		failed=1
	fi
}
if [ ! -c /dev/kvm ]; then
	echo "1..0 # SKIP there is no /dev/kvm"
	exit 0
fi

cat >"$work/guest-init" <<'INIT'
#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
echo "peer-version $(/busybox uname -r) $(/busybox uname -v)"
echo "peer-processors $(/busybox nproc)"
clocks=/sys/devices/system/clocksource/clocksource0/available_clocksource
echo "peer-clocks $(/busybox cat "$clocks")"
/busybox sleep 0.2
/busybox reboot -f
INIT
busybox=$(command -v busybox) &&
	scripts/make-initramfs.sh "$work/initrd" "$work/guest-init" "$busybox" &&
	kernel=$(scripts/guest-kernel.sh --print)
ok "there are a kernel and an initramfs" $?
version=$(cat "$kernel/version")
# Debian's tells its package's version; the trimmed one that of its sources.
case $version in
*-matchlock) shown=${version%%-*}-matchlock ;;
*) shown=$version ;;
esac

command_line="no_timer_check mitigations=off cryptomgr.notests quiet loglevel=1 panic=-1 reboot=t"
command_line+=" random.trust_cpu=on console=ttyS0 8250.nr_uarts=1"
boot() { # PROCESSORS
	timeout -k 5 100 qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
		-M microvm,pit=on,pic=on,rtc=on,usb=off -accel kvm -cpu host -smp "$1" -m 256 \
		-kernel "$kernel/vmlinux" -initrd "$work/initrd" -serial stdio \
		-append "$command_line" \
		</dev/null >"$work/console" 2>"$work/errors"
}
for processors in 1 2; do
	boot "$processors"
	ok "$processors: QEMU ended by itself" $?
	grep -qF "$shown" <(grep "^peer-version " "$work/console")
	ok "$processors: the init of kernel $version reported" $?
	grep -q "^peer-processors $processors\b" "$work/console"
	ok "$processors: all processors are up" $?
	grep -q '^peer-clocks .*kvm-clock' "$work/console"
	ok "$processors: it runs under KVM" $?
	if [ "$failed" -ne 0 ]; then
		sed 's/^/# /' "$work/errors" "$work/console"
		break
	fi
done
echo "1..$count"
exit "$failed"
