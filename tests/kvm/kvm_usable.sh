#!/usr/bin/env bash
# /dev/kvm is the kernel's, with what our engine asks of it, and `matchlock doctor` says that it is
# usable.
set -u
build=${MATCHLOCK_BUILD:-build/release}

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

# Numbers: the kernel's include/uapi/linux/kvm.h.
answers=$(python3 - <<'PYTHON'
import fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
print("version", fcntl.ioctl(kvm, 0xAE00))
for name, number in (("irqchip", 0), ("user_memory", 3), ("set_tss_addr", 4), ("irqfd", 32),
                     ("ioeventfd", 36), ("set_identity_map_addr", 37), ("tsc_deadline_timer", 72)):
    print(name, int(fcntl.ioctl(kvm, 0xAE03, number) > 0))
vm = fcntl.ioctl(kvm, 0xAE01, 0)
print("vm", int(vm >= 0))
print("irqchip_made", int(fcntl.ioctl(vm, 0xAE60, 0) == 0))
print("vcpu", int(fcntl.ioctl(vm, 0xAE41, 0) >= 0))
PYTHON
)
ok "/dev/kvm answers" $?
grep -qx 'version 12' <<<"$answers"
ok "its version is 12" $?
for name in irqchip user_memory set_tss_addr irqfd ioeventfd set_identity_map_addr \
	tsc_deadline_timer vm irqchip_made vcpu; do
	grep -qx "$name 1" <<<"$answers"
	ok "it has: $name" $?
done

doctor=$("$build/matchlock" doctor --json | python3 -c '
import json, sys
for check in json.load(sys.stdin)["checks"]:
    if check["name"] == "kvm":
        print(check["verdict"], check["detail"])')
[[ $doctor == ok\ * ]]
ok "doctor finds it usable" $?
echo "# doctor: $doctor"
echo "1..$count"
exit "$failed"
