#!/bin/bash
# build-guest-kernel.sh: builds the trimmed guest kernel out of Debian's linux-source and
# guest-kernel.config, and puts it into the cache, where it is preferred to Debian's
# (guest-kernel.sh has the cache's layout).
#
#   build-guest-kernel.sh           build it, unless the cache has it; six minutes on two idle
#                                   processors, 2 GiB of disk meanwhile
#   build-guest-kernel.sh --work D  work in the directory D and leave it: after a change of
#                                   guest-kernel.config only what changed is compiled again
#   build-guest-kernel.sh --remove  remove it from the cache: Debian's is used again
#
# Its version is that of Debian's kernel in the cache; where apt has that no more, the newest.
# MATCHLOCK_KERNEL_SOURCE_DEB names a downloaded package to use instead of asking apt. The cache gets
#
#   VERSION-matchlock/
#       vmlinux        without symbols
#       config         the kernel's whole configuration
#       fragment       guest-kernel.config as it was
#       modules.cpio   an archive of nothing, for those who append it
#       version        VERSION-matchlock
set -euo pipefail

here=$(dirname -- "$(readlink -f -- "$0")")
fragment=$here/guest-kernel.config
cache=${XDG_CACHE_HOME:-$HOME/.cache}/matchlock/kernel
space_kib=$((2 << 20))
temporary=

die() {
	echo "build-guest-kernel: $*" >&2
	exit 1
}

say() {
	echo "build-guest-kernel: $*"
}

usage() {
	sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/d;p}' "$0"
}

cleanup() {
	[ -z "$temporary" ] || rm -rf "$temporary"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# What the first build needs beyond what Matchlock itself does.
check_tools() {
	local missing=() tool
	for tool in make gcc flex bison bc xz dpkg-deb; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ -e /usr/include/gelf.h ] || missing+=("libelf-dev")
	[ ${#missing[@]} -eq 0 ] ||
		die "missing: ${missing[*]}. Run: scripts/install-deps.sh --kernel"
}

# The Debian package's version that is wanted, in $version, and its series (6.1) in $series.
choose_version() {
	version=$(cat "$cache/current/version" 2>/dev/null || true)
	if [ -n "${MATCHLOCK_KERNEL_SOURCE_DEB:-}" ]; then
		version=$(dpkg-deb -f "$MATCHLOCK_KERNEL_SOURCE_DEB" Version) ||
			die "cannot read MATCHLOCK_KERNEL_SOURCE_DEB=$MATCHLOCK_KERNEL_SOURCE_DEB"
	fi
	[ -n "$version" ] || die "there is no kernel in $cache yet; run scripts/guest-kernel.sh first"
	series=$(sed -n 's/^\([0-9]*\.[0-9]*\).*/\1/p' <<<"$version")
	source_package=linux-source-$series
	if [ -z "${MATCHLOCK_KERNEL_SOURCE_DEB:-}" ] &&
		! apt-cache show "$source_package=$version" >/dev/null 2>&1; then
		newest=$(apt-cache policy "$source_package" 2>/dev/null |
			sed -n 's/^ *Candidate: \([0-9].*\)/\1/p')
		[ -n "$newest" ] || die "apt knows no $source_package. Run: sudo apt-get update" \
			"(on Debian 12; elsewhere set MATCHLOCK_KERNEL_SOURCE_DEB to a downloaded package)"
		say "apt has $source_package $version no more; taking $newest"
		version=$newest
	fi
	target=$cache/${version//[^A-Za-z0-9.+~-]/_}-matchlock
}

already_there() {
	[ "$(readlink -f "$cache/trimmed")" = "$target" ] && [ -s "$target/vmlinux" ] &&
		cmp -s "$target/fragment" "$fragment"
}

# The sources, in $work/linux-source-SERIES. What no x86 guest is built from stays packed.
unpack_source() {
	local package=${MATCHLOCK_KERNEL_SOURCE_DEB:-} free
	source=$work/$source_package
	[ "$(cat "$work/source-version" 2>/dev/null)" != "$version" ] || return 0
	free=$(df -Pk "$work" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$space_kib" ] ||
		die "$work has $((free >> 10)) MiB free, and $((space_kib >> 10)) are needed" \
			"(--work names another directory)"
	rm -rf "$source" "$work/objects"
	if [ -z "$package" ]; then
		say "downloading $source_package $version (139 MB)"
		(cd "$work" && apt-get -q download "$source_package=$version") >"$work/log" 2>&1 || {
			cat "$work/log" >&2
			die "apt-get could not download $source_package. Try: sudo apt-get update"
		}
		package=$(find "$work" -maxdepth 1 -name "${source_package}_*.deb" -print -quit)
	fi
	say "unpacking"
	dpkg-deb --fsys-tarfile "$package" | tar -xO "./usr/src/$source_package.tar.xz" |
		xz -T0 -dc | tar -x -C "$work" --wildcards --exclude='*/Documentation/translations' \
		--exclude='*/drivers/gpu/drm/*.[ch]' --exclude='*/sound/*.[ch]' ||
		die "cannot unpack $package"
	[ -n "${MATCHLOCK_KERNEL_SOURCE_DEB:-}" ] || rm -f "$package"
	echo "$version" >"$work/source-version"
}

# Same sources, configuration and compiler, same kernel: nobody's name or clock is in it. What a make
# that called this one has on its command line is not the kernel's.
kernel_make() {
	nice -n 19 env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -C "$source" O="$work/objects" ARCH=x86 KBUILD_BUILD_USER=matchlock \
		KBUILD_BUILD_HOST=matchlock KBUILD_BUILD_TIMESTAMP='Thu Jan 1 00:00:00 UTC 1970' "$@"
}

# Kconfig drops without a word what it does not know or what has a dependency missing.
configure() {
	local line name ineffective=()
	mkdir -p "$work/objects"
	kernel_make KCONFIG_ALLCONFIG="$fragment" allnoconfig >"$work/log" 2>&1 || {
		tail -n 20 "$work/log" >&2
		die "cannot configure the kernel"
	}
	while IFS= read -r line; do
		case $line in
		CONFIG_*) grep -qxF -- "$line" "$work/objects/.config" || ineffective+=("$line") ;;
		"# CONFIG_"*" is not set")
			name=${line#\# }
			name=${name% is not set}
			! grep -q "^$name=" "$work/objects/.config" || ineffective+=("$line")
			;;
		esac
	done <"$fragment"
	[ ${#ineffective[@]} -eq 0 ] || {
		printf '    %s\n' "${ineffective[@]}" >&2
		die "these lines of $fragment did not take effect: an option of that name is gone," \
			"or something that it depends on is off"
	}
}

# One line for make's many, on a terminal as it grows, otherwise now and then.
show_progress() {
	local count=0 line every=200 end='\n'
	if [ -t 1 ]; then
		every=5 end='\r'
	fi
	while IFS= read -r line; do
		case $line in "  CC "* | "  AS "*) ;; *) continue ;; esac
		count=$((count + 1))
		[ $((count % every)) -ne 0 ] || printf "  %d of about 1,550 files compiled$end" "$count"
	done
	[ ! -t 1 ] || echo
}

compile() {
	say "compiling (the log is $work/log)"
	kernel_make -j"$(nproc)" vmlinux 2>&1 | tee "$work/log" | show_progress || {
		tail -n 20 "$work/log" >&2
		die "the kernel does not compile"
	}
}

install_kernel() {
	local result=$temporary/result
	mkdir "$result"
	objcopy --strip-all "$work/objects/vmlinux" "$result/vmlinux"
	fallocate --dig-holes "$result/vmlinux" 2>/dev/null || true
	cp "$work/objects/.config" "$result/config"
	cp "$fragment" "$result/fragment"
	basename "$target" >"$result/version"
	# shellcheck source=scripts/newc.sh
	. "$here/newc.sh"
	newc_end >"$result/modules.cpio"
	chmod -R a+rX "$result"
	exec 9>"$cache/.lock"
	flock 9
	# A guest that runs on it keeps the file that it has mapped.
	rm -rf "$target"
	mv -T "$result" "$target"
	ln -s "$(basename "$target")" "$temporary/link"
	mv -T "$temporary/link" "$cache/trimmed"
}

remove() {
	local directory
	directory=$(readlink -f "$cache/trimmed" || true)
	rm -f "$cache/trimmed"
	case $directory in "$(readlink -f "$cache")"/*-matchlock) rm -rf "$directory" ;; esac
}

work=
while [ $# -gt 0 ]; do
	case $1 in
	--work)
		[ -n "${2:-}" ] || die "--work wants a directory"
		mkdir -p "$2"
		work=$(readlink -f "$2")
		shift
		;;
	--remove)
		remove
		exit 0
		;;
	-h | --help)
		usage
		exit 0
		;;
	*) die "unknown argument $1; see --help" ;;
	esac
	shift
done

check_tools
mkdir -p "$cache"
cache=$(readlink -f "$cache")
choose_version
if already_there; then
	say "the cache has it: $target"
	exit 0
fi
# What a build that was killed has left, a gigabyte.
find "$cache" -maxdepth 1 -name '.build-*' -mmin +720 -exec rm -rf {} +
temporary=$(mktemp -d "$cache/.build-XXXXXX")
[ -n "$work" ] || work=$temporary
unpack_source
configure
compile
install_kernel
say "kernel $(cat "$target/version") is ready in $target, and preferred to Debian's"
