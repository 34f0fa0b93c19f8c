#!/usr/bin/env bash
# Linux and the devices of the KVM engine beside vsock: entropy, balloon and two disks, with the
# drivers that guest-init loads for them, or that are built in.
set -u
# shellcheck source=tests/kvm/lib/guest.sh
. tests/kvm/lib/guest.sh

head -c 8M /dev/urandom >"$work/fixed"
truncate -s 8M "$work/disk"
sum=$(sha256sum <"$work/fixed")
sum=${sum%% *}
exec 6<"$work/fixed" 7<>"$work/disk"
disks=(--memory 512 --disk 6:ro:serial=fixed-1 --disk 7:serial=kept.2)

# Answers are lines of NAME VALUE. At the end the guest fills memory, says so, frees it and waits.
# shellcheck disable=SC2016 # for the guest's shell
examine='b=/busybox; v=/sys/bus/virtio/drivers
for driver in virtio_rng virtio_balloon virtio_blk; do
	echo $driver $($b ls $v/$driver | $b grep -c ^virtio)
done
echo modules $($b ls /modules | $b grep -c -e "[0-9]")
echo rng $($b cat /sys/class/misc/hw_random/rng_current)
echo random $($b dd if=/dev/hwrng bs=64 count=4 2>/dev/null | $b od -An -tx1 | $b sort -u | $b wc -l)
echo serials $($b cat /sys/block/vda/serial) $($b cat /sys/block/vdb/serial)
echo sizes $($b cat /sys/block/vda/size /sys/block/vdb/size)
echo readonly $($b cat /sys/block/vda/ro /sys/block/vdb/ro)
echo fixed $($b sha256sum </dev/vda)
$b dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>/dev/null
echo write $?
$b dd if=/dev/urandom of=/written bs=1024k count=2 2>/dev/null
$b dd if=/written of=/dev/vdb bs=1024k seek=3 conv=fsync 2>/dev/null
echo kept $? $($b sha256sum </written)
$b dd if=/dev/zero of=/fill bs=1024k count=192 2>/dev/null
echo filled $?
$b sleep 3
$b rm /fill
echo freed $?
$b sleep 1000'

boot "${disks[@]}" -- /busybox sh -c "$examine" >"$work/answers" &
runner=$!
await() { # NAME: until the guest has answered it, or is gone
	for ((i = 0; i < 600; i++)); do
		grep -q "^$1 " "$work/answers" && return
		kill -0 "$runner" 2>/dev/null || return
		sleep 0.1
	done
}
answer() { # NAME
	sed -n "s/^$1 //p" "$work/answers"
}
resident() { # MiB of memory of its own and shared memory that the VMM has
	awk '/^Rss(Anon|Shmem)/ { kib += $2 } END { print int(kib / 1024) }' "/proc/$pid/status"
}
await filled
pid=$(pgrep -P "$(cat "$work/starter")" matchlock-vmm)
full=$(resident)
await freed
for ((i = 0; i < 300; i++)); do
	now=$(resident)
	[ "${now:-0}" -gt $((full - 150)) ] || break
	sleep 0.1
done
kill -9 "$pid"
wait "$runner"

same "the guest has a driver for the entropy device" 1 "$(answer virtio_rng)"
same "one for the balloon" 1 "$(answer virtio_balloon)"
same "and one for both disks" 2 "$(answer virtio_blk)"
same "no module's file is left in its memory" 0 "$(answer modules)"
same "its source of entropy is the device" virtio_rng.0 "$(answer rng)"
same "which gives what is random" 16 "$(answer random)"
same "the disks have their serials" "fixed-1 kept.2" "$(answer serials)"
same "their sizes" "16384 16384" "$(answer sizes)"
same "and one is read-only" "1 0" "$(answer readonly)"
same "which holds what its file has" "$sum" "$(answer fixed | cut -d " " -f 1)"
[ -n "$(answer write)" ] && [ "$(answer write)" != 0 ]
ok "which cannot be written" $?
same "and was not" "$sum  -" "$(sha256sum <"$work/fixed")"
same "the guest fills its memory and frees it" "0 0" "$(answer filled) $(answer freed)"
[ "${now:-$full}" -le $((full - 150)) ]
ok "which goes back to the host" $?
echo "# resident: $full MiB full, ${now:-?} MiB after 192 MiB were freed"
kept=$(answer kept)
written=$(dd if="$work/disk" bs=1M skip=3 count=2 2>/dev/null | sha256sum)
same "the other disk takes what is written" "$kept" "0 ${written%% *} -"

# shellcheck disable=SC2016 # for the guest's shell
out=$(boot "${disks[@]}" -- /busybox sh -c \
	'echo 0 $(/busybox dd if=/dev/vdb bs=1024k skip=3 count=2 2>/dev/null | /busybox sha256sum)')
same "and the next guest reads it" "$kept" "$out"
same "which powers off" "0 powered-off" "$(ending)"
if [ -s "$kernel/modules/devices" ]; then
	out=$(boot --memory 128 -- /busybox sh -c \
		'/busybox ls /sys/module | /busybox grep -c virtio_blk')
	same "without disks there is no driver for them" 0 "$out"
fi
finish
