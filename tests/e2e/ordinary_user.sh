#!/usr/bin/env bash
# Every release test once more as an ordinary user whom this test makes (and removes), with less to
# move through each. Run by root alone: an ordinary user's own `make check` is that run already.
#
# MATCHLOCK_USER_TESTS names the tests instead, as tests/run.sh takes them.
set -u
cd "$(dirname "$0")/../.." || exit 1
if [ "$(id -u)" -ne 0 ]; then
	echo "1..1"
	echo "ok 1 - this whole run is an ordinary user's"
	exit 0
fi
# A place for mounts of our own, which end with this test.
if [ "${1:-}" != inside ]; then
	exec unshare --mount --propagation private -- bash tests/e2e/ordinary_user.sh inside
fi

name=matchlock-test-$$
home=$(mktemp -d)
bound=()
cleanup()
{
	pkill -KILL -u "$name" 2>/dev/null
	userdel "$name" 2>/dev/null
	umount -q -l "${bound[@]}" "$home/dev" 2>/dev/null
	rm -rf "$home"
}
trap cleanup EXIT
useradd --no-create-home --home-dir "$home" --shell /bin/bash "$name" || exit 1
chmod 755 "$home"
build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
# The user's own copy of the tree and the kernel: what stands under another's home may be closed.
# With what is not committed yet, for the programs are built from that.
git clone -q . "$home/tree"
git ls-files -z --cached --others --exclude-standard |
	tar --create --null --ignore-failed-read --files-from - 2>/dev/null | tar --extract -C "$home/tree"
mkdir -p "$home/tree/build" "$home/.cache/matchlock"
cp -a "$build" "$home/tree/build/release"
cp -a "$(dirname "$(scripts/guest-kernel.sh --print)")" "$home/.cache/matchlock/"
chown -R "$name": "$home"
# Everybody may open these where udev runs, or the group that the person was put into; where it does
# not, only root may.
mkdir "$home/dev"
mount -t tmpfs -o mode=755 tmpfs "$home/dev" || exit 1
for device in "fuse 229" "kvm 232"; do
	path=/dev/${device% *}
	if [ -e "$path" ] && [ "$(stat -c %a "$path")" != 666 ]; then
		mknod -m 666 "$home$path" c 10 "${device#* }" && mount --bind "$home$path" "$path" || exit 1
		bound+=("$path")
	fi
done

run_as_user() # ARGUMENT... of tests/run.sh
{
	runuser -u "$name" -- env -i HOME="$home" USER="$name" LOGNAME="$name" PATH=/usr/local/bin:/usr/bin:/bin \
		LANG=C.UTF-8 MATCHLOCK_BRIEF=1 PIPE_MIB=64 GUEST_BOOT_MIB=16 EXEC_MIB=32 WORKLOAD_FILES=3000 \
		bash -c 'cd "$HOME/tree" && tests/run.sh "$@"' user "$@"
}

# Two run at once, the long ones first, and before them, alone, those that keep two processors busy.
alone=(workloads build_inside)
tests=("${alone[@]}" main_job egress files guest_boot vsock pipes pty)
for test in tests/e2e/*.sh; do
	test=$(basename "$test" .sh)
	case " ${tests[*]} ordinary_user trimmed_kernel " in *" $test "*) ;; *) tests+=("$test") ;; esac
done
tests+=("--unit release")
[ -z "${MATCHLOCK_USER_TESTS:-}" ] || mapfile -t tests < <(tr ' ' '\n' <<<"$MATCHLOCK_USER_TESTS")

# play NUMBER TEST: says how it went in one piece, for another runs beside it.
play()
{
	local log=$home/log.$1 text
	# shellcheck disable=SC2086 # an option and its value
	if run_as_user $2 >"$log" 2>&1; then
		text="ok $1 - $2 as an ordinary user: $(tail -n 1 "$log")
$(grep -i '# skip' "$log" | sed 's/^ */#     /; s/# SKIP/skipped:/I')"
	else
		text="not ok $1 - $2 as an ordinary user
$(sed 's/^/# /' "$log")"
		touch "$home/failed"
	fi
	printf '%s\n' "${text%$'\n'}"
}

for ((i = 0; i < ${#tests[@]}; i++)); do
	while [ "$(jobs -rp | wc -l)" -ge 2 ]; do
		wait -n
	done
	play $((i + 1)) "${tests[i]}" &
	case " ${alone[*]} " in *" ${tests[i]} "*) wait ;; esac
done
wait
echo "1..${#tests[@]}"
[ ! -e "$home/failed" ]
