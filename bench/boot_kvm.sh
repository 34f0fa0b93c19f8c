#!/usr/bin/env bash
# The rows of bench/boot that need KVM; it runs this in the testbed. Our VMM and QEMU's microvm machine,
# in turn, with the same kernel, initramfs, memory, processor, entropy device, balloon, vsock device
# (QEMU's by vhost) and kernel command line but for how a reboot is done: the time from the start of
# the process until the guest's init runs, and the memory that the process then has beyond the
# guest's. Then the vsock device, ours in both: in our VMM and over vhost-user in QEMU. Then block
# devices: the guest reads a file of the host.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh
[ -c /dev/kvm ] || {
	echo "no /dev/kvm: rows are left out" >&2
	exit 0
}

vmm=${MATCHLOCK_BUILD:-build/release}/matchlock-vmm
disk_mib=${DISK_MIB:-256}
memory=512
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
common="quiet loglevel=1 panic=-1 cryptomgr.notests pci=off swiotlb=noforce random.trust_cpu=on"
common+=" tsc=reliable no_timer_check noreplace-smp rcupdate.rcu_expedited=1 console=ttyS0 8250.nr_uarts=1"
# The testbed's processor sets XCR0 without telling KVM, whose CPUID is then wrong; the guest's kernel
# finds out, warns with a trace and 40 lines, and does without XSAVE. Here it does without from the start.
artifact=noxsave

gcc -O2 -static -I. -o "$scratch/init_runs" bench/init_runs.c
mkdir "$scratch/boot" "$scratch/disk"
mv "$scratch/init_runs" "$scratch/boot/guest-init"
scripts/make-initramfs.sh "$scratch/boot.cpio" "$scratch/boot/guest-init"

# Both print the guest's console on standard output; further arguments are the VMM's.
ours() # KERNEL INITRD ARGUMENT...
{
	exec "$vmm" --engine kvm --kernel "$1" --initrd "$2" --cid 3 --memory "$memory" \
		--socket-base "$scratch/socket" --console-fd 3 --append "$artifact" "${@:3}" 3>&1 >&2 </dev/null
}
# The same from a snapshot, which store_guest made with the same arguments.
ours_stored() # KERNEL INITRD ARGUMENT...
{
	exec 4<"$1.snapshot"
	ours "$@" --snapshot 4
}
qemu() # KERNEL INITRD ARGUMENT...
{
	exec qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
		-M microvm,pit=on,pic=on,rtc=on,usb=off -accel kvm -cpu host -smp 1 -m "$memory" \
		-global virtio-mmio.force-legacy=false -device virtio-rng-device \
		-device virtio-balloon-device,free-page-reporting=on -device vhost-vsock-device,guest-cid=3 \
		-kernel "$1" -initrd "$2" -append "$common $artifact reboot=t" -serial stdio "${@:3}" </dev/null
}

# The testbed's emulator keeps translations of the guests' kernels; whoever is given such a page next
# pays for dropping them as it writes there (some 60 ms for a huge page). Nobody who is measured shall.
drop_translations()
{
	head -c 256M /dev/zero >/dev/shm/matchlock-bench
	rm /dev/shm/matchlock-bench
}

# until_line WORD COMMAND...: starts a guest, awaits a line that begins with WORD, and stops it.
# Sets $took (seconds), $answer (the rest of the line, or else the next one) and $beyond (MiB).
until_line()
{
	local word=$1 began line console pid
	answer="" beyond=0
	rm -f "$scratch/socket"*
	drop_translations
	began=${EPOCHREALTIME/./}
	exec {console}< <("${@:2}" 2>>"$scratch/log")
	pid=$!
	while read -r -t 60 -u "$console" line; do
		line=${line%$'\r'}
		[[ $line != "$word"* ]] || break
	done
	took=$((${EPOCHREALTIME/./} - began))
	took=$(awk -v us="$took" 'BEGIN { print us / 1e6 }')
	[[ ${line:-} == "$word"* ]] || echo "no $word from: ${*:2:2}" >>"$scratch/failed"
	answer=${line#"$word"}
	if [ -z "$answer" ]; then
		read -r -t 60 -u "$console" answer || true
		answer=${answer%$'\r'}
	fi
	# All but the largest mapping, which is the guest's memory.
	beyond=$(awk '/^[0-9a-f]+-/ { n++ } /^Size:/ { size[n] = $2 } /^Rss:/ { rss[n] = $2; all += $2 }
		END {
			for (i in size) { if (size[i] > size[most]) most = i }
			printf "%.2f", (all - rss[most]) / 1024
		}' "/proc/$pid/smaps")
	kill -KILL "$pid" 2>/dev/null || true
	exec {console}<&-
	wait "$pid" 2>/dev/null || true
}

difference()
{
	awk -v from="$1" -v what="$2" 'BEGIN { print from - what }'
}

# boots NAME TARGET KERNEL-A VMM-A KERNEL-B VMM-B: rows of time, and where the VMMs differ of the part of
# it that the guest's kernel does not count as its own, and of memory.
boots()
{
	local name=$1 target=$2 i times_a="" times_b="" before_a="" before_b="" memory_a="" memory_b=""
	for ((i = 0; i <= rounds; i++)); do
		until_line i "$4" "$3" "$scratch/boot.cpio"
		[ "$i" -eq 0 ] || times_a+=$took$'\n' before_a+=$(difference "$took" "$answer")$'\n'
		memory_a+=$beyond$'\n'
		until_line i "$6" "$5" "$scratch/boot.cpio"
		[ "$i" -eq 0 ] || times_b+=$took$'\n' before_b+=$(difference "$took" "$answer")$'\n'
		memory_b+=$beyond$'\n'
	done
	row "$name" "$(printf %s "$times_a" | median)" "$(printf %s "$times_b" | median)" "$target"
	[ "$4" != "$6" ] || return 0
	# The clock of a guest that was stored counts another one's start.
	[ "$4" = ours_stored ] || row "$name: without the guest's clock" "$(printf %s "$before_a" | median)" \
		"$(printf %s "$before_b" | median)" -
	memory_a=$(printf %s "$memory_a" | median)
	row "$name: MiB beyond the guest's" "$memory_a" "$(printf %s "$memory_b" | median)" 0.1
	row "$name: MiB beyond the guest's, against 6" "$memory_a" 6 1.0
}

storing() # KERNEL INITRD ARGUMENT...
{
	exec 4<>"$1.snapshot"
	ours "$@" --new-snapshot 4
}

# What the first start of a kernel costs: a guest that is stored as well.
store_guest() # NAME KERNEL
{
	local i times_a="" times_b=""
	for ((i = 0; i <= rounds; i++)); do
		rm -f "$2.snapshot"
		until_line i storing "$2" "$scratch/boot.cpio"
		[ "$i" -eq 0 ] || times_a+=$took$'\n'
		until_line i ours "$2" "$scratch/boot.cpio"
		[ "$i" -eq 0 ] || times_b+=$took$'\n'
	done
	row "$1" "$(printf %s "$times_a" | median)" "$(printf %s "$times_b" | median)" -
	echo "# the snapshot has $(($(stat -c %s "$2.snapshot") >> 20)) MiB" >&2
}

# The testbed has the host's files through virtiofs, which nobody else would boot from.
local_kernel() # NAME: its directory on the testbed's own disk
{
	local directory
	directory=$(MATCHLOCK_KERNEL=$1 scripts/guest-kernel.sh --print) || return 1
	mkdir "$scratch/$1"
	cp --sparse=always "$directory/vmlinux" "$directory/modules.cpio" "$scratch/$1"
	echo "$scratch/$1"
}

# Until it has filled its buffer for translations once, the emulator runs guests slower: a boot of the
# trimmed kernel took 590 ms of its guest's time then, and 515 ever after (512 MiB, some ten boots).
warm_up()
{
	local i
	for ((i = 0; i < 14; i++)); do
		until_line i ours "$1" "$scratch/boot.cpio"
	done
}

debian=$(local_kernel debian)
warm_up "$debian/vmlinux"
boots "boot: VMM start to init, KVM, Debian's kernel" 0.5 "$debian/vmlinux" ours "$debian/vmlinux" qemu
store_guest "boot: a guest that is stored against one that is not, Debian's kernel" "$debian/vmlinux"
boots "boot: VMM start to init, KVM, Debian's kernel, from a snapshot" 0.5 \
	"$debian/vmlinux" ours_stored "$debian/vmlinux" qemu
if trimmed=$(local_kernel trimmed 2>/dev/null); then
	boots "boot: VMM start to init, KVM, trimmed kernel" 0.5 \
		"$trimmed/vmlinux" ours "$trimmed/vmlinux" qemu
	store_guest "boot: a guest that is stored against one that is not, trimmed kernel" "$trimmed/vmlinux"
	boots "boot: VMM start to init, KVM, trimmed kernel, from a snapshot" 0.5 \
		"$trimmed/vmlinux" ours_stored "$trimmed/vmlinux" qemu
	boots "boot: trimmed kernel against Debian's, KVM" 0.5 \
		"$trimmed/vmlinux" ours "$debian/vmlinux" ours
fi

# ---- vsock: the guest's clock, in ns and ms ------------------------------------------------------

build=${MATCHLOCK_BUILD:-build/release}
mkdir "$scratch/vsock"
cp "$build/tests/guest/vsock_guest" "$scratch/vsock/guest-init"
scripts/make-initramfs.sh "$scratch/vsock.cpio" "$scratch/vsock/guest-init"
truncate -s %512 "$scratch/vsock.cpio"
cat "$debian/modules.cpio" >>"$scratch/vsock.cpio"
for ((i = 0; i < rounds; i++)); do
	for engine in kvm qemu-kvm; do
		MATCHLOCK_TEST_ENGINE=$engine timeout 300 "$build/tests/e2e/vsock_host" "$vmm" \
			"$debian/vmlinux" "$scratch/vsock.cpio" bench >>"$scratch/vsock-$engine" 2>>"$scratch/log" ||
			echo "no vsock figures from: $engine" >>"$scratch/failed"
	done
done
for what in "round trip of 64 bytes" "round trip of 16 KiB" "upload of 64 MiB" "download of 64 MiB"; do
	figure() { sed -n "s/^# $what: \([0-9]*\) .*/\1/p" "$scratch/vsock-$1" | median; }
	row "vsock: $what, against QEMU with vhost-user" "$(figure kvm)" "$(figure qemu-kvm)" 1.0
done

# ---- block -------------------------------------------------------------------------------------

# The guest's clock times the reading, one block of 4 KiB after another past its cache, and then all of
# it in one go, which readahead makes of many requests: the middle one of three times, since one VM's
# can differ by a half.
cat >"$scratch/disk/guest-init" <<'INIT'
#!/busybox sh
b=/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for module in $($b cat /modules/order) $($b sed 's/^[^ ]* //' /modules/devices); do
	case $module in *virtio_ring* | *virtio.ko | *virtio_mmio* | *virtio_blk*) $b insmod /modules/$module ;; esac
done
until [ -b /dev/vda ]; do $b sleep 0.05; done
now() { read -r up rest </proc/uptime; echo $((${up%.*} * 100 + 1${up#*.} - 100)); } # 0.08 is no octal number
measure() { # BLOCK COUNT [FLAG]
	echo 3 >/proc/sys/vm/drop_caches
	a=$(now)
	$b dd if=/dev/vda of=/dev/null bs=$1 count=$2 $3 2>/dev/null || exit
	echo $(($(now) - a))
}
middle() { # COMMAND...
	{ "$@" && "$@" && "$@"; } | $b sort -n | $b sed -n 2p
}
set -- $($b cat /sys/block/vda/size)
small=$(middle measure 4096 2000 iflag=direct)
large=$(middle measure 1048576 $(($1 / 2048)))
[ -z "$small" ] || [ -z "$large" ] || echo "block $large $small"
$b sleep 1000
INIT
busybox=$(command -v busybox)
scripts/make-initramfs.sh "$scratch/disk.cpio" "$scratch/disk/guest-init" "$busybox"
truncate -s %512 "$scratch/disk.cpio"
cat "$debian/modules.cpio" >>"$scratch/disk.cpio"
head -c "${disk_mib}M" /dev/urandom >"$scratch/image"
exec 7<"$scratch/image"
large_ours="" large_qemu="" small_ours="" small_qemu=""
for ((i = 0; i < rounds; i++)); do
	until_line "block " ours "$debian/vmlinux" "$scratch/disk.cpio" --disk 7:ro
	[ -z "$answer" ] || large_ours+=${answer% *}$'\n' small_ours+=${answer#* }$'\n'
	until_line "block " qemu "$debian/vmlinux" "$scratch/disk.cpio" \
		-drive "if=none,id=d,format=raw,file=$scratch/image,readonly=on,aio=io_uring" \
		-device virtio-blk-device,drive=d
	[ -z "$answer" ] || large_qemu+=${answer% *}$'\n' small_qemu+=${answer#* }$'\n'
done
row "block: read $disk_mib MiB, 1/100 s, against virtio-blk" "$(printf %s "$large_ours" | median)" \
	"$(printf %s "$large_qemu" | median)" -
row "block: 2,000 reads of 4 KiB, 1/100 s, against virtio-blk" "$(printf %s "$small_ours" | median)" \
	"$(printf %s "$small_qemu" | median)" -
if [ -s "$scratch/failed" ]; then
	echo "some runs failed:" >&2
	sort "$scratch/failed" | uniq -c | cat - "$scratch/log" | head -n 20 >&2 || true
	exit 1
fi
