#!/usr/bin/env bash
# initramfs.sh OUT: the initramfs of the testbed, init.sh and the busybox that it runs in. The
# kernel's modules are appended by scripts/guest-kernel.sh --initrd.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "$0")")
# shellcheck source=scripts/newc.sh
. "$here/../../scripts/newc.sh"

{
	newc_directory bin 0755
	newc_directory dev 0755
	newc_device dev/console 0600 5 1
	newc_file bin/busybox 0755 "$(command -v busybox)"
	newc_file init 0755 "$here/init.sh"
	newc_end
} >"$1.new"
mv -f "$1.new" "$1"
