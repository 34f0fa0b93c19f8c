#!/bin/bash
# make-initramfs.sh OUT PROGRAM...: the guest's initramfs, an uncompressed newc cpio archive.
#
# A program named guest-init becomes /init; every other is /NAME. The kernel modules are a
# second archive, appended by guest-kernel.sh --initrd, because they belong to a kernel version.
# Same programs, same bytes.
set -euo pipefail

if [ $# -lt 2 ]; then
	echo "usage: make-initramfs.sh OUT PROGRAM..." >&2
	exit 2
fi
here=$(dirname -- "$(readlink -f -- "$0")")
# shellcheck source=scripts/newc.sh
. "$here/newc.sh"

out=$1
shift
temporary=$(mktemp "$out.XXXXXX")
trap 'rm -f "$temporary"' EXIT

# The program, without the debugging information that the build leaves in: the whole archive is
# memory of each guest, and is copied at each boot.
stripped=$(mktemp)
trap 'rm -f "$temporary" "$stripped"' EXIT
add_program() { # NAME FILE
	if ! strip -o "$stripped" -- "$2" 2>/dev/null; then
		cp -- "$2" "$stripped"
	fi
	newc_file "$1" 0755 "$stripped"
}

{
	for directory in dev proc sys; do
		newc_directory "$directory" 0755
	done
	newc_device dev/console 0600 5 1
	for program in "$@"; do
		name=$(basename -- "$program")
		[ "$name" != guest-init ] || name=init
		add_program "$name" "$program"
	done
	newc_end
} >"$temporary"
chmod 644 "$temporary"
mv -f "$temporary" "$out"
