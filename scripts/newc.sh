# shellcheck shell=bash
# Writes cpio archives in the "newc" format, the kernel's initramfs format, to standard output.
# Sourced by make-initramfs.sh and guest-kernel.sh. Source of the format: the kernel's
# Documentation/driver-api/early-userspace/buffer-format.rst.
#
# Written here rather than by cpio(1), because an ordinary user cannot mknod the device nodes
# that cpio would have to find on disk, and because the same input must give the same bytes.

newc_inode=0

# newc_entry NAME MODE(octal) SIZE [MAJOR MINOR]: header and name, padded to four bytes.
newc_entry() {
	local name=$1 mode=$2 size=$3 major=${4:-0} minor=${5:-0} length
	length=$((${#name} + 1))
	newc_inode=$((newc_inode + 1))
	printf '070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\0' \
		"$newc_inode" "$((8#$mode))" 0 0 1 0 "$size" 0 0 "$major" "$minor" "$length" 0 "$name"
	newc_pad $((110 + length))
}

# newc_pad LENGTH: zeros up to the next multiple of four.
newc_pad() {
	local count=$(((4 - $1 % 4) % 4))
	[ "$count" = 0 ] || printf '%*s' "$count" '' | tr ' ' '\0'
}

newc_directory() { # NAME PERMISSIONS
	newc_entry "$1" "04${2}" 0
}

newc_device() { # NAME PERMISSIONS MAJOR MINOR (character device)
	newc_entry "$1" "02${2}" 0 "$3" "$4"
}

newc_file() { # NAME PERMISSIONS FILE
	local size
	size=$(stat -L -c %s -- "$3")
	newc_entry "$1" "10${2}" "$size"
	cat -- "$3"
	newc_pad "$size"
}

newc_end() {
	newc_inode=-1
	newc_entry 'TRAILER!!!' 0 0
}
