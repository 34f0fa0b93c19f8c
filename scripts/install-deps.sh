#!/usr/bin/env bash
# Installs what building, running and testing need, from Debian's packages; with --bench also the
# peers of the benchmarks, with --kernel what the trimmed guest kernel is built with. Asks before it
# uses sudo; does nothing, quickly, when everything is there.
set -euo pipefail

packages=(
	build-essential pkg-config
	liburing-dev libseccomp-dev libfuse3-dev libcyaml-dev libyaml-dev libjansson-dev
	libnghttp2-dev libc-ares-dev libldns-dev libsqlite3-dev
	libssl-dev openssl zlib1g-dev uthash-dev check
	qemu-system-x86 liblz4-dev acpica-tools lz4 cpio fuse3 busybox-static
	clang clang-format clang-tidy cppcheck libclang-rt-14-dev shellcheck
	git openssh-client curl wget python3 python3-venv sqlite3 attr procps iproute2 iputils-ping less vim-tiny expect socat strace tzdata
	xfsprogs btrfs-progs e2fsprogs fio zsh man-db groff
	node-llhttp nginx-light curl python3-websockets python3-grpcio python3-asyncssh golang-go cargo chromium firefox-esr libnss3-tools
)
# A distribution's node or Java, or one that the person installed otherwise; both do.
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
command -v javac >/dev/null || packages+=(default-jdk-headless)
case "${1:-}" in
--bench) packages+=(sshfs openssh-sftp-server squid-openssl mitmproxy) ;;
--kernel) packages+=(flex bison libelf-dev bc xz-utils) ;;
"") ;;
*)
	echo "usage: scripts/install-deps.sh [--bench | --kernel]" >&2
	exit 2
	;;
esac

missing=()
for package in "${packages[@]}"; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	as_root=(sudo)
	if ! command -v sudo >/dev/null; then
		echo "missing packages: ${missing[*]}" >&2
		echo "run as root: apt-get install -y ${missing[*]}" >&2
		exit 1
	fi
	if [ -t 0 ] && [ -z "${MATCHLOCK_YES:-}" ]; then
		read -r -p "Install with sudo apt-get: ${missing[*]}? [Y/n] " answer
		case "$answer" in [nN]*)
			echo "nothing installed" >&2
			exit 1
			;;
		esac
	fi
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
