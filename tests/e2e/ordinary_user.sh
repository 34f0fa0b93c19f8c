#!/usr/bin/env bash
# The end-to-end tests once more as an ordinary user whom this test makes (and removes). Run by
# root alone: an ordinary user's own `make check` is that run already.
set -u
cd "$(dirname "$0")/../.." || exit 1
if [ "$(id -u)" -ne 0 ]; then
	echo "1..1"
	echo "ok 1 - this whole run is an ordinary user's"
	exit 0
fi

name=matchlock-test-$$
home=$(mktemp -d)
cleanup()
{
	pkill -KILL -u "$name" 2>/dev/null
	userdel "$name" 2>/dev/null
	rm -rf "$home"
}
trap cleanup EXIT
useradd --no-create-home --home-dir "$home" --shell /bin/bash "$name" || exit 1
chmod 755 "$home"
build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
# The user's own copy of the tree and the kernel: what stands under another's home may be closed.
git clone -q . "$home/tree"
mkdir -p "$home/tree/build" "$home/.cache/matchlock"
cp -a "$build" "$home/tree/build/release"
cp -a "$(dirname "$(scripts/guest-kernel.sh --print)")" "$home/.cache/matchlock/"
chown -R "$name": "$home"

run_as_user()
{
	runuser -u "$name" -- env -i HOME="$home" USER="$name" LOGNAME="$name" PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 \
		bash -c 'cd "$HOME/tree" && tests/run.sh "$@"' user "$@"
}

count=0 status=0
for test in "--unit release" cli main_job exec audit; do
	count=$((count + 1))
	# shellcheck disable=SC2086 # an option and its value
	if run_as_user $test >"$home/log" 2>&1; then
		echo "ok $count - $test as an ordinary user: $(tail -n 1 "$home/log")"
	else
		echo "not ok $count - $test as an ordinary user"
		sed 's/^/# /' "$home/log"
		status=1
	fi
done
echo "1..$count"
exit $status
