#!/bin/busybox sh
# shellcheck shell=dash
# PID 1 of the testbed's VM, in its initramfs: makes the root of the host's system, under an overlay
# on the scratch disk, and hands over to relay, which runs the command. run.sh says where things
# are, through the kernel's command line, which arrives as environment:
#
#   testbed_dir      the directory of this run on the host: `command`, and `show`, the paths to
#                    be seen even where /tmp is fresh, and `output`, those to be written through
#   testbed_relay    the relay program, on the host
#   testbed_user     set when virtiofsd runs as an ordinary user
#
# What it prints goes to the console; its death is the kernel's panic, thus the end of the VM.
set -eu
: "${testbed_dir:?}" "${testbed_relay:?}"
export PATH=/bin

/bin/busybox mkdir -p /bin /proc /sys /dev /host /disk /root
/bin/busybox --install -s /bin
mount -t devtmpfs -o mode=0755 devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
while read -r module; do
	insmod "/modules/$module"
done </modules/order
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
chmod 666 /dev/kvm /dev/fuse

mount -t virtiofs host /host
mount -t ext4 -o noatime /dev/vda /disk
mkdir -p /disk/upper /disk/work /disk/tmp
chmod 1777 /disk/tmp
# The overlay opens files without touching their time of access, as whoever mounted it, if that is
# the owner or has CAP_FOWNER. virtiofsd of an ordinary user may do so with that user's files alone.
as_owner=
[ -z "${testbed_user:-}" ] || as_owner="/host$testbed_relay no-fowner"
# shellcheck disable=SC2086
$as_owner /bin/mount -t overlay -o lowerdir=/host,upperdir=/disk/upper,workdir=/disk/work overlay /root
for directory in dev proc sys; do
	mount --move "/$directory" "/root/$directory"
done
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir -p /root/run/lock /root/run/testbed /root/run/user/0
chmod 700 /root/run/user/0
cp "/host$testbed_dir/command" /root/run/testbed/command
# A file system without layers for what tests write.
mkdir /root/run/testbed/root
mount --bind /root /root/run/testbed/root
mount --bind /disk/tmp /root/tmp
mount --bind /disk/tmp /root/var/tmp
while read -r path; do
	mkdir -p "/root$path"
	mount --bind "/root/run/testbed/root$path" "/root$path"
done <"/host$testbed_dir/show"
umount /root/run/testbed/root
while read -r path; do
	mkdir -p "/root$path"
	mount --bind "/host$path" "/root$path"
done <"/host$testbed_dir/output"

ifconfig lo 127.0.0.1 up
hostname testbed
ulimit -n 65536
# The only serial port there is; its number is that of its device, and QEMU announces it in its
# own time. What waits in vain ends with the limit of the boot.
until port=$(ls /root/dev/vport*p1 2>/dev/null); do
	sleep 0.02
done
# Last, as guest-init does it, and for the same reason.
for processor in /root/sys/devices/system/cpu/cpu[1-9]*/online; do
	[ ! -e "$processor" ] || echo 1 >"$processor"
done
exec switch_root /root "$testbed_relay" guest "${port#/root}" /bin/bash /run/testbed/command \
	>/dev/console 2>&1
