#!/bin/bash
# guest-kernel.sh: makes sure that a guest kernel is in the cache.
#
#   guest-kernel.sh                     fetch it if it is missing
#   guest-kernel.sh --print             the same, and print its directory
#   guest-kernel.sh --initrd FILE.cpio  the same, and print the path of an initrd: FILE.cpio with
#                                       the kernel's modules appended
#   guest-kernel.sh --update            fetch the newest, even if some version is cached
#   guest-kernel.sh --modules 'A B' ... any of these, with those modules instead of the guest's,
#                                       in a cache of their own, .../matchlock/kernel-HASH
#
# The kernel is Debian's linux-image-cloud-amd64, downloaded and checked by apt-get, unpacked and
# never installed: no root is needed. The cache is
#
#   ${XDG_CACHE_HOME:-~/.cache}/matchlock/kernel/VERSION.SET/ (SET: which modules; --modules: none)
#       vmlinux         the ELF image out of the package's bzImage
#       modules/NN-x.ko modules in the order in which they load, and `order`, their list
#                       and `devices`, which are loaded for a device that is there
#       modules.cpio    the same as an archive that holds /modules
#       initrd-HASH.cpio
#       version
#   .../kernel/current  symbolic link to the version in use
#
#   .../kernel/trimmed  symbolic link to the trimmed kernel, VERSION-matchlock, which
#                       build-guest-kernel.sh makes and lays out in the same way, with no modules
#
# The trimmed kernel is preferred where there is one. MATCHLOCK_KERNEL=debian or =trimmed asks for
# one of them; --update and --modules are about Debian's. MATCHLOCK_KERNEL_DEB names a downloaded
# package to use instead of asking apt.
set -euo pipefail

metapackage=linux-image-cloud-amd64
# What the guest needs, in the order it is needed; what these depend on is found in them. The
# first three bring the connection to the host, on which guest-init says that it is up.
wanted=(virtio_mmio vsock vmw_vsock_virtio_transport fuse overlay)
# What it needs where it has such a virtio device: its id as sysfs has it, and the driver.
wanted_for_devices=("0x0002 virtio_blk" "0x0004 virtio_rng" "0x0005 virtio_balloon")

here=$(dirname -- "$(readlink -f -- "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/matchlock/kernel
work=

die() {
	echo "guest-kernel: $*" >&2
	exit 1
}

progress() {
	[ ! -t 2 ] || echo "guest-kernel: $*" >&2
}

usage() {
	sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/d;p}' "$0"
}

complete() { # DIRECTORY
	[ -s "$1/vmlinux" ] && [ -s "$1/modules.cpio" ] && [ -s "$1/version" ]
}

# Complete, and Debian's with the modules that are wanted now.
up_to_date() { # LINK
	complete "$cache/$1" || return
	[ "$1" != current ] || [[ $(readlink "$cache/current") == *"$set" ]]
}

need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null ||
		die "$1 is missing, and the guest kernel cannot be unpacked without it." \
			"Install it with: sudo apt-get install $2"
}

# The package's file, in $package_file.
download() {
	local package
	if [ -n "${MATCHLOCK_KERNEL_DEB:-}" ]; then
		[ -r "$MATCHLOCK_KERNEL_DEB" ] ||
			die "cannot read MATCHLOCK_KERNEL_DEB=$MATCHLOCK_KERNEL_DEB"
		package_file=$MATCHLOCK_KERNEL_DEB
		return
	fi
	need apt-get apt
	need apt-cache apt
	package=$(apt-cache depends --no-recommends --no-suggests "$metapackage" 2>/dev/null |
		sed -n '0,/^ *Depends: linux-image-[0-9]/s/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p')
	[ -n "$package" ] ||
		die "apt knows no $metapackage. Run: sudo apt-get update" \
			"(on Debian 12; elsewhere set MATCHLOCK_KERNEL_DEB to a downloaded package)"
	progress "downloading $package (about 27 MB, once)"
	if ! (cd "$work" && apt-get -q download "$package") >"$work/log" 2>&1; then
		cat "$work/log" >&2
		die "apt-get could not download $package. Try: sudo apt-get update"
	fi
	package_file=$(find "$work" -maxdepth 1 -name '*.deb' -print -quit)
	[ -n "$package_file" ] || die "apt-get downloaded no package file for $package"
}

# Which link is asked for, in $link. cli/guest_kernel.c decides by the same rule.
choose() {
	link=current
	[ -z "$other_modules" ] || return 0
	case ${MATCHLOCK_KERNEL:-} in
	debian) ;;
	trimmed)
		complete "$cache/trimmed" ||
			die "there is no trimmed kernel in $cache; make guest-kernel builds it"
		link=trimmed
		;;
	'') ! complete "$cache/trimmed" || link=trimmed ;;
	*) die "MATCHLOCK_KERNEL is \"$MATCHLOCK_KERNEL\"; it can be \"debian\" or \"trimmed\"" ;;
	esac
}

number_at() { # FILE OFFSET SIZE
	od -An -v -j "$2" -N "$3" -t "u$3" --endian=little "$1" | tr -d ' '
}

# bzImage to vmlinux. Offsets: the kernel's Documentation/x86/boot.rst.
extract_vmlinux() { # BZIMAGE OUT
	local sectors offset length start
	[ "$(number_at "$1" 514 4)" = 1400005704 ] || die "$1 is no bzImage (no HdrS magic)"
	sectors=$(number_at "$1" 497 1)
	offset=$(number_at "$1" 584 4)
	length=$(number_at "$1" 588 4)
	start=$(((sectors + 1) * 512 + offset))
	[ "$(number_at "$1" "$start" 4)" = 407642370 ] ||
		die "$1 is not compressed with LZ4; only that is understood"
	# The last four bytes are the unpacked size, which is no part of the LZ4 stream.
	head -c $((start + length - 4)) "$1" | tail -c +$((start + 1)) | lz4 -d -q -c >"$2" ||
		die "cannot unpack the kernel of $1"
	[ "$(number_at "$2" 0 4)" = 1179403647 ] || die "what $1 holds is not an ELF image"
	# A third of it is zeros, which nobody needs to copy; where there are no holes, somebody does.
	fallocate --dig-holes "$2" 2>/dev/null || true
}

module_file() { # NAME: its path below $modules, or nothing
	find "$modules" \( -name "$1.ko" -o -name "${1//_/-}.ko" \) -print -quit
}

builtin_module() { # NAME
	grep -q "/\(${1}\|${1//_/-}\)\.ko\$" "$modules/modules.builtin"
}

order=()
add_module() { # NAME: what it depends on, then itself
	local name=$1 file depends dependency
	[[ " ${order[*]} " != *" $name "* ]] || return 0
	file=$(module_file "$name")
	if [ -z "$file" ]; then
		builtin_module "$name" || die "this kernel has no module $name"
		return 0
	fi
	depends=$(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p')
	for dependency in ${depends//,/ }; do
		add_module "$dependency"
	done
	order+=("$name")
}

number=0
place_module() { # TARGET DIRECTORY, NAME: its file's name, in $file
	number=$((number + 1))
	file=$(printf '%02d-%s.ko' "$number" "$2")
	cp -- "$(module_file "$2")" "$1/modules/$file"
}

collect_modules() { # TARGET DIRECTORY
	local name file entry always
	for name in "${wanted[@]}"; do
		add_module "$name"
	done
	mkdir "$1/modules"
	for name in "${order[@]}"; do
		place_module "$1" "$name"
		echo "$file" >>"$1/modules/order"
	done
	# What two devices need comes twice: each may be there alone.
	always=${#order[@]}
	: >"$1/modules/devices"
	for entry in "${wanted_for_devices[@]}"; do
		order=("${order[@]:0:always}")
		add_module "${entry#* }"
		for name in "${order[@]:always}"; do
			place_module "$1" "$name"
			echo "${entry%% *} $file" >>"$1/modules/devices"
		done
	done
	# shellcheck source=scripts/newc.sh
	. "$here/newc.sh"
	{
		newc_directory modules 0755
		newc_file modules/order 0644 "$1/modules/order"
		newc_file modules/devices 0644 "$1/modules/devices"
		while read -r file; do
			newc_file "modules/$file" 0644 "$1/modules/$file"
		done < <(cat "$1/modules/order" && sed 's/^[^ ]* //' "$1/modules/devices")
		newc_end
	} >"$1/modules.cpio"
}

fetch() {
	local package_file modules bzimage version directory result
	need dpkg-deb dpkg
	need lz4 lz4
	need flock util-linux
	mkdir -p "$cache"
	exec 9>"$cache/.lock"
	flock 9
	# Another run may have fetched it while this one waited.
	if [ -z "$update" ] && up_to_date current; then
		return
	fi
	work=$(mktemp -d "$cache/.fetch-XXXXXX")
	trap 'rm -rf "$work"' EXIT
	download
	version=$(dpkg-deb -f "$package_file" Version)
	version=${version//[^A-Za-z0-9.+~-]/_}
	directory=$version$set
	if ! complete "$cache/$directory"; then
		progress "unpacking"
		mkdir "$work/tree" "$work/result"
		dpkg-deb -x "$package_file" "$work/tree" || die "cannot unpack $package_file"
		modules=$(find "$work/tree" -maxdepth 5 -path '*/lib/modules/*/kernel' -type d \
			-print -quit)
		modules=${modules%/kernel}
		bzimage=$(find "$work/tree/boot" -name 'vmlinuz-*' -print -quit)
		if [ -z "$modules" ] || [ -z "$bzimage" ]; then
			die "$package_file holds no kernel"
		fi
		result=$work/result
		extract_vmlinux "$bzimage" "$result/vmlinux"
		collect_modules "$result"
		echo "$version" >"$result/version"
		chmod -R a+rX "$result"
		rm -rf "${cache:?}/$directory"
		mv -T "$result" "$cache/$directory"
	fi
	ln -s "$directory" "$work/current"
	mv -T "$work/current" "$cache/current"
	progress "kernel $version is ready in $cache/$directory"
}

# initramfs and modules in one file, named by the initramfs' content.
join_initrd() { # INITRAMFS
	local hash target temporary directory
	directory=$(readlink -f "$cache/$link")
	hash=$(sha256sum -- "$1") || die "cannot read $1"
	target=$directory/initrd-${hash:0:32}.cpio
	if [ ! -s "$target" ]; then
		find "$directory" -maxdepth 1 -name 'initrd-*' -mtime +7 -delete
		temporary=$(mktemp "$directory/.initrd-XXXXXX")
		{
			cat -- "$1"
			# Archives begin at multiples of four; the kernel skips zeros between them.
			head -c $(((512 - $(stat -L -c %s -- "$1") % 512) % 512)) /dev/zero
			cat "$directory/modules.cpio"
		} >"$temporary"
		chmod 644 "$temporary"
		mv -f "$temporary" "$target"
	fi
	echo "$target"
}

update=
print=
initramfs=
other_modules=
while [ $# -gt 0 ]; do
	case $1 in
	--print) print=1 ;;
	--update) update=1 ;;
	--initrd)
		[ $# -ge 2 ] || die "--initrd wants a file"
		initramfs=$2
		[ -r "$initramfs" ] || die "cannot read the initramfs $initramfs"
		shift
		;;
	--modules)
		[ -n "${2:-}" ] || die "--modules wants names"
		read -r -a wanted <<<"$2"
		wanted_for_devices=()
		other_modules=1
		hash=$(printf '%s\n' "${wanted[@]}" | sha256sum)
		cache=$(dirname -- "$cache")/kernel-${hash:0:12}
		shift
		;;
	-h | --help)
		usage
		exit 0
		;;
	*) die "unknown argument $1; see --help" ;;
	esac
	shift
done

# The default set may change with this script; those of --modules have a cache of their own each.
set=
if [ -z "$other_modules" ]; then
	set=$(printf '%s\n' "${wanted[@]}" "${wanted_for_devices[@]}" | sha256sum)
	set=.${set:0:8}
fi
# What this version's guest needs of a kernel may not be in one that another has built.
tell_if_other_configuration() {
	local fragment=$here/guest-kernel.config
	[ "$link" = trimmed ] && [ -e "$fragment" ] || return 0
	cmp -s "$fragment" "$cache/trimmed/fragment" ||
		echo "guest-kernel: warning: the trimmed kernel in $cache/trimmed is of another" \
			"configuration than this version's; make guest-kernel builds it anew," \
			"MATCHLOCK_KERNEL=debian does without" >&2
}

choose
tell_if_other_configuration
if [ -n "$update" ] || ! up_to_date "$link"; then
	fetch
	[ -z "$update" ] || [ "$link" = current ] ||
		progress "the trimmed kernel is still preferred; make guest-kernel builds it anew"
fi
[ -z "$print" ] || readlink -f "$cache/$link"
[ -z "$initramfs" ] || join_initrd "$initramfs"
