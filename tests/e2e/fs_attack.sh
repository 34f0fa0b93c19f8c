#!/usr/bin/env bash
# A hostile guest against the real file server, in the classes of the design's list of attacks.
set -uo pipefail

build=${MATCHLOCK_BUILD:-build/release}
attack=("$build/tests/e2e/fs_attack" "$build/matchlock-fsserver")
status=0

if [ "$(id -u)" = 0 ]; then
	exec "${attack[@]}"
fi
# Who may not mount does so in namespaces of its own; what needs no mount is played as the user.
"${attack[@]}" --except mounts "full disk" || status=1
unshare --user --map-current-user --keep-caps --mount "${attack[@]}" mounts "full disk" || status=1
exit $status
