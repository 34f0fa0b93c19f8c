#!/usr/bin/env bash
# Runs a command where /dev/kvm is real: in a VM that QEMU emulates, processor's virtualization
# and all.
#
#   tests/testbed/run.sh [OPTION...] -- COMMAND...
#
#   --cpus N        of the VM (default 1; see below before you take more)
#   --memory SIZE   of the VM, as QEMU takes it (default 4G)
#   --timeout S     for the command (default 1200)
#   --boot S        for the boot (default 120)
#   --env K=V       for the command; may be repeated
#   --show PATH     keep this directory below /tmp visible; may be repeated
#   --output DIR    a directory that the command writes through to the host; may be repeated
#   --console FILE  keep the console's output there
#
# One argument after -- is a line for the shell, several are a program and its arguments. It runs
# as root, at the root of the repository. Status: the command's; 124 when it took too long; 125 when
# the testbed itself failed, with the reason and the end of the console on standard error.
#
# Theory of operation
#
# QEMU translates every instruction (TCG) and offers `-cpu max,+svm`; Debian's cloud kernel loads
# kvm-amd in there, and its /dev/kvm runs guests as hardware would, which the machine's own may
# not (vmm/kvm_probe.c). That kernel and the modules it needs are a set of their own in the cache,
# made by scripts/guest-kernel.sh.
#
# The VM's root is the host's system, so that whatever is installed and built is there at the same
# path: virtiofsd exports /, and init.sh lays an overlay on it whose upper layer is on the scratch
# disk, an ext4 image that lives as long as the run. Everything may be written and nothing
# survives, but for the directories of --output. /tmp and /var/tmp are fresh directories of the
# scratch disk itself, because tests want a file system without layers; what is needed below the
# host's /tmp (MATCHLOCK_BUILD, say) is bound into it. Caches hold for the whole run: what changes
# on the host meanwhile need not be seen.
#
# The VM has one processor. With more, each is a thread of QEMU, and two faults of its emulation stop
# one testbed in three or so: before version 8.1 a thread can keep the translation of a breakpoint
# that another has just patched away, and meets it for ever (KVM patches the kernel at each VM's
# start and end); and a thread that another wants to stop for a moment, as it does to empty the
# buffer of translations, delivers the last interrupt that was injected into its guest once more, with
# interrupts off (helper_vmrun leaves its vector in exception_index): a deadlock or a triple fault of the
# guest. With one nothing is patched behind a translator's back and nobody else asks.
#
# What the command writes comes through one virtio-serial port in frames (relay.c), then a named
# pipe. This script ends QEMU when relay has the status, and QEMU and virtiofsd end with this script
# however it ends (the kernel's parent-death signal).
set -euo pipefail
repository=$(readlink -f -- "$(dirname -- "${BASH_SOURCE[0]}")/../..")

modules='virtio_mmio virtio_blk virtio_console virtiofs overlay kvm-amd loop tun vhost_vsock'
cpus=1 memory=4G limit=1200 boot_limit=120 console=
environment=() show=() output=()

fail() {
	echo "testbed: $*" >&2
	exit 125
}

usage() {
	sed -n '2,/^# Theory/{s/^# \{0,1\}//;/^Theory/d;p}' "$0"
}

need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null || fail "$1 is missing; install it with: sudo apt-get install $2"
}

number() { # OPTION VALUE
	[[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || fail "$1 wants a number, not '$2'"
}

while [ $# -gt 0 ]; do
	case $1 in
	--)
		shift
		break
		;;
	-h | --help)
		usage
		exit 0
		;;
	--*) [ $# -ge 2 ] || fail "$1 wants a value; see --help" ;;
	*) fail "unknown argument '$1'; the command follows --, see --help" ;;
	esac
	case $1 in
	--cpus) number "$1" "$2" && cpus=$2 ;;
	--memory)
		numfmt --from=iec "$2" >/dev/null 2>&1 || fail "--memory wants a size such as 4G, not '$2'"
		memory=$2
		;;
	--timeout) number "$1" "$2" && limit=$2 ;;
	--boot) number "$1" "$2" && boot_limit=$2 ;;
	--env) environment+=("$2") ;;
	--show) show+=("$2") ;;
	--output) output+=("$2") ;;
	--console) console=$(readlink -f -- "$2") || fail "no directory for --console $2" ;;
	*) fail "unknown option $1; see --help" ;;
	esac
	shift 2
done
[ $# -gt 0 ] || fail "no command; for example: tests/testbed/run.sh -- 'ls -l /dev/kvm'"

# ---- programs and kernel ---------------------------------------------------------------------

virtiofsd=/usr/lib/qemu/virtiofsd
need qemu-system-x86_64 qemu-system-x86
[ -x "$virtiofsd" ] || need virtiofsd qemu-system-common
[ -x "$virtiofsd" ] || virtiofsd=$(command -v virtiofsd)
need busybox busybox-static
PATH=$PATH:/usr/sbin:/sbin need mkfs.ext4 e2fsprogs

# Several runs may begin at once, and all build the same two files.
programs=$repository/build/testbed
relay=$programs/tests/testbed/relay
mkdir -p "$programs"
(
	flock 9
	env -u MAKEFLAGS make -s -C "$repository" BUILD=build/testbed testbed-programs >&2
) 9>"$programs/.lock" || fail "its programs do not build"
# The first is for the guests in it, which have no network to fetch theirs with.
"$repository/scripts/guest-kernel.sh" || fail "there is no kernel for guests"
kernel=$("$repository/scripts/guest-kernel.sh" --modules "$modules" --print) ||
	fail "there is no kernel for it"
initrd=$("$repository/scripts/guest-kernel.sh" --modules "$modules" \
	--initrd "$programs/initramfs-testbed.cpio") || fail "there is no initrd for it"

# ---- this run's directory ----------------------------------------------------------------------

# What a killed run left behind goes after a day.
find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'matchlock-testbed-*' -user "$(id -u)" -mmin +1440 \
	-exec rm -rf {} + 2>/dev/null || true
run=$(mktemp -d "${TMPDIR:-/tmp}/matchlock-testbed-XXXXXX")
children=()
# Called by the trap.
# shellcheck disable=SC2317
clean() {
	local status=$?
	trap - EXIT
	[ ${#children[@]} -eq 0 ] || kill -KILL "${children[@]}" 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$run"
	exit "$status"
}
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
[ -n "$console" ] || console=$run/console
: >"$console"

write_command() {
	local name entry
	# What the person has set for the tests goes along, and where things are.
	for name in PATH HOME USER LOGNAME LANG LC_ALL TERM TZ XDG_CACHE_HOME MATCHLOCK_BUILD \
		MATCHLOCK_KERNEL MATCHLOCK_LONG MATCHLOCK_TEST_TIMEOUT; do
		[ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
	done
	echo 'export XDG_RUNTIME_DIR=/run/user/0 MATCHLOCK_TESTBED=1'
	for entry in "${environment[@]}"; do
		[[ $entry =~ ^[A-Za-z_][A-Za-z_0-9]*= ]] || fail "--env wants NAME=VALUE, not '$entry'"
		printf 'export %s=%q\n' "${entry%%=*}" "${entry#*=}"
	done
	printf 'cd %q || exit 125\n' "$repository"
	if [ $# -eq 1 ]; then
		printf 'exec bash -c %q\n' "$1"
	else
		printf 'exec'
		printf ' %q' "$@"
		echo
	fi
}
write_command "$@" >"$run/command"

# Paths below the host's /tmp and /var/tmp that the VM's fresh ones would hide.
for path in "$repository" "${MATCHLOCK_BUILD:-/}" "${XDG_CACHE_HOME:-$HOME/.cache}/matchlock" \
	"${show[@]}"; do
	path=$(readlink -f -- "$path") || continue
	case $path/ in
	/tmp/?* | /var/tmp/?*) [ ! -d "$path" ] || echo "$path" ;;
	esac
done | sort -u >"$run/show"
for path in "${output[@]}"; do
	[ -d "$path" ] || fail "--output $path is no directory"
	readlink -f -- "$path"
done >"$run/output"

truncate -s 16G "$run/disk"
PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F -m 0 -O ^has_journal "$run/disk" ||
	fail "cannot make the scratch disk"

# ---- virtiofsd and QEMU ------------------------------------------------------------------------

# As in vmm/qemu_engine.c: a clock and a timer of known speed, because calibrating either on a busy
# host fails now and then, one processor at first, and no instruction that is emulated byte by byte.
khz=$(awk '/^cpu MHz/ { printf "%d", $4 * 1000; exit }' /proc/cpuinfo)
clock=
[ "${khz:-0}" -eq 0 ] || clock="tsc_early_khz=$khz tsc=reliable lpj=$((khz * 4))"
# QEMU's emulation of SVM, it seems, changes the flags of pending interrupts (cpu->interrupt_request, in
# vmrun and vmexit) without the lock under which devices set them, so now and then an interrupt is
# forgotten, until the next one of that processor. With a timer set for one shot that can be never:
# a run in ten stood still for half a minute or for good. A periodic tick bounds it to 4 ms.
command_line="$clock maxcpus=1 noreplace-smp no_timer_check nohz=off highres=off mitigations=off cryptomgr.notests"
command_line+=" quiet loglevel=4 panic=-1 reboot=t random.trust_cpu=on console=ttyS0"
command_line+=" 8250.nr_uarts=1 acpi_rsdp=0xb0000 io_delay=none testbed_dir=$run testbed_relay=$relay"

# An ordinary user exports the host as seen from a user namespace of its own, in which virtiofsd
# may change its root; other users' files show as nobody's there.
namespace=()
if [ "$(id -u)" -ne 0 ]; then
	namespace=(unshare --map-root-user)
	command_line+=" testbed_user=1"
fi
"${namespace[@]}" setpriv --pdeathsig KILL "$relay" listen "$run/fs.socket" \
	"$virtiofsd" --fd=3 \
	-o source=/ -o cache=always -o sandbox=chroot -o log_level=err \
	>"$run/virtiofsd.log" 2>&1 </dev/null &
children+=($!)
for ((i = 0; i < 200; i++)); do
	[ ! -S "$run/fs.socket" ] || break
	sleep 0.02
done

mkfifo "$run/frames"
mebibytes=$(($(numfmt --from=iec "$memory") >> 20))
setpriv --pdeathsig KILL "$programs/tests/testbed/machine" "$cpus" 3 "$mebibytes" \
	qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
	-M microvm,acpi=off,auto-kernel-cmdline=off,pit=on,pic=on,rtc=on,usb=off,memory-backend=memory \
	-accel tcg,thread=multi,tb-size=512 -cpu max,+svm,erms=off -smp "$cpus" -m "${mebibytes}M" \
	-object "memory-backend-file,id=memory,size=${mebibytes}M,share=on,mem-path=/proc/self/fd/9" \
	-global virtio-mmio.force-legacy=false \
	-kernel "$kernel/vmlinux" -initrd "$initrd" \
	-append "$command_line" \
	-chardev "file,id=console,path=$console" -serial chardev:console \
	-drive "if=none,id=scratch,format=raw,file=$run/disk,cache=unsafe,discard=unmap" \
	-device virtio-blk-device,drive=scratch \
	-chardev "socket,id=fs,path=$run/fs.socket" \
	-device vhost-user-fs-device,chardev=fs,tag=host,queue-size=1024 \
	-chardev "file,id=frames,path=$run/frames" \
	-device virtio-serial-device -device virtserialport,chardev=frames,nr=1,name=frames \
	>"$run/qemu.log" 2>&1 </dev/null &
children+=($!)

status=0
"$relay" host "$boot_limit" "$limit" <"$run/frames" &
relay_process=$!
children+=("$relay_process")
wait "$relay_process" || status=$?

if [ "$status" -eq 125 ] || [ "$status" -eq 124 ]; then
	cat "$run/qemu.log" "$run/virtiofsd.log" >&2
	tail -n 60 "$console" | sed 's/^/testbed: console: /' >&2
fi
exit "$status"
