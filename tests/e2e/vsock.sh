#!/usr/bin/env bash
# The vsock device against the real driver: boots a guest whose init plays tests/guest/vsock_guest.c
# in matchlock-vmm, with tests/e2e/vsock_host.c at the other end of its ports. Four boots: all plays,
# a guest that panics, a VMM that is told to stop, and, where the engine is a child of its own, one
# that is killed.
#
# MATCHLOCK_TEST_ENGINE names the engine; VSOCK_ECHO_MIB (default 64) is how much is echoed.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

kernel=$(scripts/guest-kernel.sh --print) || exit 1
mkdir "$scratch/root"
# Alone in its VM it must be static, which no build with sanitizers is.
guest=$build/tests/guest/vsock_guest
[ "$(basename "$build")" != asan ] || guest=build/release/tests/guest/vsock_guest
cp "$guest" "$scratch/root/init"
(cd "$scratch/root" && printf 'init\0' | cpio --null -o -H newc --quiet -R 0:0) >"$scratch/initrd" || exit 1
cat "$kernel/modules.cpio" >>"$scratch/initrd" || exit 1

modes=(all panic hang-stop)
[ "${MATCHLOCK_TEST_ENGINE:-}" = kvm ] || modes+=(hang)
limit=$((120 + ${VSOCK_ECHO_MIB:-64} / 2))
count=0
for mode in "${modes[@]}"; do
	# Each run numbers its own results; here they become one list.
	while IFS= read -r line; do
		case $line in
		"ok "* | "not ok "*)
			count=$((count + 1))
			echo "${line%%ok *}ok $count - $mode: ${line#* - }"
			;;
		"#"*) echo "$line" ;;
		esac
	done < <(timeout "$limit" "$build/tests/e2e/vsock_host" "$build/matchlock-vmm" \
		"$kernel/vmlinux" "$scratch/initrd" "$mode" 2>>"$scratch/log" || echo "not ok 0 - all of it")
done
sed 's/^/# /' "$scratch/log"
echo "1..$count"
