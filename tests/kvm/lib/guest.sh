# shellcheck shell=bash
# Guests of the KVM engine for the tests that source this, from the repository's root: an initrd
# with busybox, and boot.
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
build=${MATCHLOCK_BUILD:-build/release}
vmm=$build/matchlock-vmm
host=$build/tests/e2e/exec_host
[ -c /dev/kvm ] || skip_all "there is no /dev/kvm"

work=$(mktemp -d /tmp/matchlock-kvm-XXXXXX)
trap 'rm -rf "$work"' EXIT
busybox=$(command -v busybox) && kernel=$(scripts/guest-kernel.sh --print) &&
	scripts/make-initramfs.sh "$work/initrd" "$build/guest/guest-init" "$busybox" || exit 1
truncate -s %512 "$work/initrd"
cat "$kernel/modules.cpio" >>"$work/initrd"
vmlinux=$kernel/vmlinux
# A guest's life takes no longer, in seconds.
limit=120
[ -z "${MATCHLOCK_LONG:-}" ] || limit=900

# boot VMM-ARGUMENTS -- COMMAND: one guest's life; the command's output and status. What the VMM
# said, its status and the process that started it are in the files vmm-log, vmm-status and
# starter. With `controlled=1` it has a control socket: orders are lines to the named pipe orders, and
# what it answers becomes lines of the file answers.
boot() {
	local arguments=() program=("$vmm") pid status
	while [ "$1" != -- ]; do
		arguments+=("$1")
		shift
	done
	rm -f "$work/socket"*
	if [ -n "${controlled:-}" ]; then
		rm -f "$work/orders" "$work/answers"
		mkfifo "$work/orders"
		program=(python3 tests/kvm/lib/controlled_vmm.py "$work/orders" "$work/answers" "$vmm")
	fi
	timeout "$limit" "${program[@]}" -v --engine kvm --kernel "$vmlinux" --initrd "$work/initrd" --cid 3 \
		--socket-base "$work/socket" --console-fd 3 "${arguments[@]}" \
		3>"$work/console" </dev/null >"$work/vmm-log" 2>&1 &
	pid=$!
	echo "$pid" >"$work/starter"
	timeout "$limit" "$host" --base "$work/socket" "$@" 2>"$work/errors"
	status=$?
	wait "$pid"
	echo $? >"$work/vmm-status"
	return "$status"
}

# The VMM's status and the ending that it named.
ending() {
	echo "$(cat "$work/vmm-status")" "$(sed -n \
		's/^matchlock-vmm: end //p; s/^matchlock-vmm: the guest ended: //p' \
		"$work/vmm-log" | head -n 1)"
}
