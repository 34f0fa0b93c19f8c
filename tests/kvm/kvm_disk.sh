#!/usr/bin/env bash
# Nothing that a disk has acknowledged is lost when the VMM is killed in the middle of writing, and what
# else was under way is written whole or not at all. fio writes and verifies, in the guests; it comes to
# them on a disk of its own.
#
# The first guest writes in two regions at once. Into one it writes block by block, and passes on
# what it has written; the second guest verifies as many blocks. Into the other, filled before, it
# writes with 16 requests in flight; every block must have been filled or written, with its checksum.
set -u
# shellcheck source=tests/kvm/lib/guest.sh
. tests/kvm/lib/guest.sh
PATH=$PATH:/usr/sbin:/sbin

blocks=400 mib=8
[ -z "${MATCHLOCK_LONG:-}" ] || blocks=6000 mib=128
region=$((32 * 1024 * 1024))

# fio with its libraries, started through their loader: the guest has none.
mkdir "$work/tree"
cp "$(command -v fio)" /lib64/ld-linux-x86-64.so.2 "$work/tree/" || exit 1
ldd "$work/tree/fio" | awk '$3 ~ /^\// { print $3 }' | xargs cp -L -t "$work/tree"
truncate -s 192M "$work/programs"
mkfs.ext4 -q -F -m 0 -O ^has_journal -d "$work/tree" "$work/programs" || exit 1
truncate -s $((region + (mib << 20))) "$work/disk"
exec 6<"$work/programs" 7<>"$work/disk"
disks=(--memory 512 --cpus 2 --disk 6:ro --disk 7)

prepare='b=/busybox
$b mkdir /fio && $b mount -t ext4 -o ro /dev/vda /fio || exit 99
fio() { /fio/ld-linux-x86-64.so.2 --library-path /fio /fio/fio --filename=/dev/vdb --direct=1 \
	--verify=crc32c --verify_fatal=1 --output=/out "$@" || { $b cat /out >&2; return 1; }; }
one_by_one="--name=acknowledged --size=32m --bs=4k --rw=randwrite --ioengine=psync --randseed=7 --fsync=8"
many="--name=many --offset=32m --size='$mib'm --bs=4k --ioengine=libaio --iodepth=16"'

# ---- written and killed in the middle -------------------------------------------------------------

# One write at a time, each logged before it begins: when the next one is logged, it is done.
: >"$work/said"
boot "${disks[@]}" -- /busybox sh -c "$prepare"'
	fio --name=mixed --size=16m --ioengine=libaio --iodepth=16 --rw=randrw --bsrange=4k-64k \
		--verify_backlog=64
	echo mixed $?
	fio $many --rw=write --do_verify=0 && fio $many --rw=read
	echo filled $?
	$b mkfifo /log
	fio $many --rw=randwrite --do_verify=0 --randseed=99 --time_based --runtime=1000 &
	$b cat /log &
	fio $one_by_one --do_verify=0 --write_iolog=/log
	$b sleep 1000' >"$work/said" 2>"$work/fio-errors" &
runner=$!
written() {
	grep -c ' write ' "$work/said"
}
for ((i = 0; i < 10 * limit; i++)); do
	[ "$(written)" -lt "$blocks" ] || break
	kill -0 "$runner" 2>/dev/null || break
	sleep 0.1
done
kill -9 "$(pgrep -P "$(cat "$work/starter")" matchlock-vmm)"
wait "$runner" 2>/dev/null
same "fio verifies what it writes, requests of many sizes, many in flight" \
	"mixed 0 filled 0" "$(head -n 2 "$work/said" | tr '\n' ' ' | sed 's/ $//')"
acknowledged=$(($(written) - 1))
[ "$(cat "$work/vmm-status")" -gt 128 ] && [ "$acknowledged" -ge $((blocks - 1)) ]
ok "the VMM is killed while the guest writes" $?
[ "$failed" = 0 ] || sed 's/^/# /' "$work/fio-errors" "$work/errors"
echo "# $acknowledged blocks are acknowledged"

# ---- looked at again ------------------------------------------------------------------------------

out=$(boot "${disks[@]}" -- /busybox sh -c "$prepare"'
	fio $one_by_one --verify_only --number_ios='"$acknowledged"'
	echo acknowledged $?
	fio $many --rw=read
	echo whole $?
	$b dd if=/dev/zero of=/dev/vdb bs=1 count=1 conv=notrunc,fsync \
		seek='"$(awk '/ write / { print $(NF - 1) + 2000; exit }' "$work/said")"' 2>/dev/null
	fio $one_by_one --verify_only --number_ios='"$acknowledged"' 2>/dev/null
	echo damaged $?' 2>"$work/fio-errors")
same "all that was acknowledged is there, and no block is torn; fio sees one changed byte" \
	"acknowledged 0 whole 0 damaged 1" "$(tr '\n' ' ' <<<"$out" | sed 's/ $//')"
[ "$failed" = 0 ] || sed 's/^/# /' "$work/fio-errors" "$work/errors"
same "the guest powers off" "0 powered-off" "$(ending)"
finish
