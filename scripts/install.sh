#!/usr/bin/env bash
# install.sh BUILD DESTDIR PREFIX: what `make install` does.
#
#   PREFIX/bin/matchlock
#   PREFIX/libexec/matchlock/   the daemons, the guest's initramfs, the script that fetches its kernel
#   PREFIX/share/               manual page and completions
set -euo pipefail

if [ $# -ne 3 ] || [ -z "$3" ]; then
	echo "usage: install.sh BUILD DESTDIR PREFIX" >&2
	exit 2
fi
build=$1
root=$2$3
source=$(dirname -- "$(readlink -f -- "$0")")/..

daemons=(matchlock-audit matchlock-fsserver matchlock-proxy matchlock-vmm)
for file in matchlock "${daemons[@]}" initramfs.cpio; do
	if [ ! -e "$build/$file" ]; then
		echo "install: $build/$file is missing; run \`make\` first" >&2
		exit 1
	fi
done

libexec=$root/libexec/matchlock
install -d "$root/bin" "$libexec" "$root/share/man/man1" \
	"$root/share/bash-completion/completions" "$root/share/zsh/site-functions"
install -m 755 "$build/matchlock" "$root/bin/matchlock"
for daemon in "${daemons[@]}"; do
	install -m 755 "$build/$daemon" "$libexec/$daemon"
done
install -m 644 "$build/initramfs.cpio" "$libexec/initramfs.cpio"
install -m 755 "$source/scripts/guest-kernel.sh" "$libexec/guest-kernel.sh"
install -m 644 "$source/scripts/newc.sh" "$libexec/newc.sh"
install -m 644 "$source/docs/matchlock.1" "$root/share/man/man1/matchlock.1"
install -m 644 "$source/completion/matchlock.bash" \
	"$root/share/bash-completion/completions/matchlock"
install -m 644 "$source/completion/_matchlock" "$root/share/zsh/site-functions/_matchlock"
echo "installed below $root; try: $3/bin/matchlock doctor"
