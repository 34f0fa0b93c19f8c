#!/usr/bin/env bash
# The real guest-fused on the real file server, through a real FUSE mount on this host: every file
# operation against the same on the native file system, programs that are hard on a file system,
# changes made by the host, round trips, and the end of the server.
#
# MATCHLOCK_FULL=1 does the long forms (100,000 entries, 10,000 files).
set -uo pipefail

build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
driver=$build/tests/e2e/files_driver
full=${MATCHLOCK_FULL:-0}
count=0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/matchlock-files.XXXXXX")
mount=$scratch/mount tree=$scratch/tree native=$scratch/native
server_pid='' fused_pid=''
limited=() # what the server is started by
over=channel # or socket: what the requests go over

report()
{
	local status=$1
	shift
	count=$((count + 1))
	if [ "$status" -eq 0 ]; then
		echo "ok $count - $*"
	else
		echo "not ok $count - $*"
	fi
}

skip()
{
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}

# check TEXT COMMAND...: its output is shown when it fails.
check()
{
	local text=$1 status
	shift
	"$@" >"$scratch/log" 2>&1
	status=$?
	[ "$status" -eq 0 ] || tail -n 25 "$scratch/log" | sed 's/^/# /'
	report "$status" "$text"
}

stop()
{
	[ -z "$fused_pid" ] || { kill "$fused_pid" && wait "$fused_pid"; } 2>/dev/null
	[ -z "$server_pid" ] || { kill "$server_pid" && wait "$server_pid"; } 2>/dev/null
	fused_pid='' server_pid=''
	mountpoint -q "$mount" && unmount -z
}

# unmount [-z]: as root by umount, else by the program that mounted; -z even when it is in use.
unmount()
{
	if [ "$(id -u)" = 0 ]; then
		umount ${1:+-l} "$mount"
	else
		fusermount3 -u -q "$@" "$mount"
	fi
}

cleanup()
{
	cd /
	stop
	chmod -R u+rwX "$scratch" 2>/dev/null
	rm -rf "$scratch"
}
trap cleanup EXIT

# start MODE [EXPORT MEMBERS]: server and mount; MODE is rw or ro.
start()
{
	local mode=$1 members=${2:-} read_only=false i
	local -a window=()
	[ "$mode" = rw ] || read_only=true
	[ "$mode" = ro ] || members+=",\"undo_store\":\"$scratch/store$count\""
	mkdir -p "$tree" "$mount" "$native"
	[ "$mode" = ro ] || mkdir -p "$scratch/store$count"
	cat >"$scratch/config.json" <<-END
		{"session":"files","uid":$(id -u),"gid":$(id -g),"groups":[$(id -g)],"homes":["/root"],
		"exports":[{"id":1,"name":"workspace","path":"$tree","profile":"workspace",
		"read_only":$read_only,"immutable":false,"cross_mounts":false,"allow":[],"hide":[]$members}]}
	END
	rm -f "$scratch/socket"
	"${limited[@]}" "$build/tests/e2e/files_server" "$build/matchlock-fsserver" "$scratch/config.json" \
		"$scratch/socket" "$scratch/window" >>"$scratch/server.log" 2>&1 &
	server_pid=$!
	for ((i = 0; i < 100; i++)); do
		[ -S "$scratch/socket" ] && break
		sleep 0.05
	done
	mkfifo "$scratch/ready.$count"
	[ "$over" = socket ] || window=(--window "$scratch/window:0:8388608")
	"$build/guest/guest-fused" --unix-socket "$scratch/socket" --export "1:$mount:$mode" \
		"${window[@]}" --ready-fd 3 3>"$scratch/ready.$count" 2>>"$scratch/fused.log" &
	fused_pid=$!
	if ! read -r -t 20 line <"$scratch/ready.$count" || [ "$line" != "ready 1" ]; then
		sed 's/^/# /' "$scratch/fused.log" "$scratch/server.log"
		echo "Bail out! the mount did not come up"
		exit 1
	fi
}

# Round trips so far.
trips()
{
	local before after
	before=$(grep -c stats "$scratch/fused.log")
	kill -USR1 "$fused_pid"
	for ((i = 0; i < 100; i++)); do
		after=$(grep -c stats "$scratch/fused.log")
		[ "$after" -gt "$before" ] && break
		sleep 0.02
	done
	sed -n 's/.*round_trips=\([0-9]*\).*/\1/p' "$scratch/fused.log" | tail -n 1
}

# at_most LIMIT COMMAND...: the command takes no more round trips than that.
at_most()
{
	local limit=$1 began ended
	shift
	began=$(trips)
	"$@" || return 1
	ended=$(trips)
	echo "$((ended - began)) round trips, at most $limit"
	[ $((ended - began)) -le "$limit" ]
}

# soon TEXT COMMAND...: true within two seconds.
soon()
{
	local text=$1 i
	shift
	for ((i = 0; i < 40; i++)); do
		if "$@" 2>/dev/null; then
			report 0 "$text"
			return
		fi
		sleep 0.05
	done
	report 1 "$text"
}

same_operations()
{
	# In a directory of its own: what an earlier run left would fail both sides alike.
	mkdir "$native/$over" "$mount/$over" || return
	"$driver" ops "$native/$over" >"$scratch/native.out" 2>&1
	"$driver" ops "$mount/$over" >"$scratch/mount.out" 2>&1
	diff "$scratch/native.out" "$scratch/mount.out"
}

use_sqlite()
{
	local writers=() pid
	sqlite3 "$mount/db" "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);" || return
	for _ in 1 2 3 4; do
		timeout 60 sqlite3 -cmd '.timeout 20000' "$mount/db" "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL
			SELECT x+1 FROM n WHERE x<500) INSERT INTO t(b) SELECT hex(randomblob(100)) FROM n;" &
		writers+=($!)
	done
	for pid in "${writers[@]}"; do
		wait "$pid" || return
	done
	[ "$(sqlite3 "$mount/db" 'SELECT count(*) FROM t; PRAGMA integrity_check;' | tr '\n' ' ')" = "2000 ok " ] &&
		[ "$(sqlite3 "$tree/db" 'PRAGMA integrity_check; SELECT count(*) FROM t;' | tr '\n' ' ')" = "ok 2000 " ]
}

use_git()
{
	local source=$scratch/source i
	export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
		GIT_COMMITTER_EMAIL=a@b
	git init -q "$source" && cd "$source" || return
	for ((i = 0; i < 200; i++)); do
		mkdir -p "d$((i % 20))"
		seq "$i" $((i + 300)) >"d$((i % 20))/f$i"
	done
	git add -A && git commit -q -m one || return
	git clone -q --no-hardlinks "$source" "$mount/clone" && cd "$mount/clone" || return
	[ -z "$(git status --porcelain)" ] || return
	echo more >>d3/f3 && rm d4/f4 && echo new >new || return
	[ "$(git status --porcelain | wc -l)" -eq 3 ] || return
	git add -A && git commit -q -m two && git gc -q && git fsck --full || return
	git checkout -q HEAD~1 && git checkout -q - || return
	cd "$tree/clone" && git status --porcelain && git fsck --full
}

use_tar()
{
	local files=2000 i
	[ "$full" = 0 ] || files=10000
	mkdir "$scratch/many" && cd "$scratch/many" || return
	for ((i = 0; i < files; i++)); do
		[ $((i % 100)) -ne 0 ] || mkdir "d$((i / 100))"
		echo "file $i" >"d$((i / 100))/$i"
	done
	tar cf "$scratch/many.tar" . && mkdir "$mount/many" || return
	tar xf "$scratch/many.tar" -C "$mount/many" && tar df "$scratch/many.tar" -C "$mount/many" || return
	diff -r "$scratch/many" "$tree/many" && rm -rf "$mount/many" && [ ! -e "$tree/many" ]
}

create_write_close()
{
	"$driver" small "$mount/trips"
}

[ -e /dev/fuse ] || { skip "mounts" "no /dev/fuse"; echo "1..$count"; exit 0; }

# Over a socket, as in a guest without shared memory; the rest over a channel.
over=socket
start rw
check "every operation over a socket does what it does natively" same_operations
cd "$scratch" || exit 1
stop
over=channel
start rw
check "every operation does what it does natively" same_operations
check "flock and POSIX locks keep processes apart" "$driver" locks "$mount"
check "twelve threads at once" "$driver" threads "$mount"
for seed in 1 2 3; do
	check "random reads, writes, truncations and maps, seed $seed" "$driver" random "$mount" "$seed" 2000
done
if [ "$full" = 0 ]; then
	check "a directory of 20,000 entries" "$driver" large "$mount" 20000
else
	check "a directory of 100,000 entries" "$driver" large "$mount" 100000
fi
if command -v sqlite3 >/dev/null; then
	check "SQLite in WAL mode, four writers" use_sqlite
else
	skip "SQLite in WAL mode, four writers" "no sqlite3"
fi
check "git clone, status, commit, gc, fsck" use_git
cd "$scratch" || exit 1
check "tar in, compare, remove" use_tar
cd "$scratch" || exit 1

# What may not be written says so, and stays.
mkdir -p "$tree/repo/.git/hooks" && echo x >"$tree/.bashrc"
soon "what the host makes appears" test -f "$mount/.bashrc"
# shellcheck disable=SC2016 # expanded by the inner shell
check "a protected file cannot be written" sh -c '! echo y >"$1"' sh "$mount/.bashrc"
check "and was not" grep -qx x "$tree/.bashrc"

# Changes by the host.
mkdir "$tree/host" && echo one >"$tree/host/a" && echo keep >"$tree/host/b"
soon "a new directory of the host's is seen" test -d "$mount/host"
ls -l "$mount/host" "$mount/host/missing" >/dev/null 2>&1
cat "$mount/host/a" >/dev/null
echo two-longer >"$tree/host/a"
soon "new content of the host's is read" grep -qx two-longer "$mount/host/a"
echo TWO-LONGER >"$tree/host/a"
soon "and of the same size" grep -qx TWO-LONGER "$mount/host/a"
touch "$tree/host/missing"
soon "a name that was missing is there" test -e "$mount/host/missing"
mv "$tree/host/b" "$tree/host/c"
soon "a renamed file is gone" test ! -e "$mount/host/b"
soon "and is there under its new name" grep -qx keep "$mount/host/c"
rm "$tree/host/c"
# shellcheck disable=SC2016
soon "a removed file is no longer listed" sh -c '! ls "$1" | grep -qx c' sh "$mount/host"
chmod 600 "$tree/host/a"
# shellcheck disable=SC2016
soon "a changed mode is seen" sh -c '[ "$(stat -c %a "$1")" = 600 ]' sh "$mount/host/a"

# More changes than the host's kernel keeps for a server that does not read them: it loses track,
# and the guest must distrust all. What came last was not reported by name.
mkdir "$tree/flood" "$tree/late" && echo old >"$tree/late/file"
soon "directories to look at" test -d "$mount/late"
ls -l "$mount/flood" "$mount/late" "$mount/late/none" >/dev/null 2>&1
cat "$mount/late/file" >/dev/null
kill -STOP "$(pgrep -P "$server_pid")"
(cd "$tree/flood" && seq "$(($(cat /proc/sys/fs/inotify/max_queued_events) + 1000))" | xargs touch)
echo new >"$tree/late/file" && touch "$tree/late/none"
kill -CONT "$(pgrep -P "$server_pid")"
soon "after a flood of changes: new content" grep -qx new "$mount/late/file"
# Names that are not there are known to the kernel alone, which only root, as in the guest, can tell.
[ "$(id -u)" != 0 ] || soon "a name that was missing" test -e "$mount/late/none"
check "and what the flood was of" diff <(ls "$tree/flood") <(ls "$mount/flood")
rm -r "$tree/flood"

# Round trips, on a fresh mount: what was done above has the host's kernel still reporting.
cd "$scratch" || exit 1
stop
start rw
mkdir "$mount/trips" "$tree/listed" && for i in 1 2 3 4 5 6 7 8; do echo "$i" >"$tree/listed/$i"; done
soon "a directory to count in" test -d "$mount/listed"
ls -l "$mount/listed" >/dev/null
sleep 0.3
check "open, read, close of a small file in a listed directory: 1 round trip" \
	at_most 1 sh -c 'exec 3<"$0"; read -r x <&3; exec 3<&-' "$mount/listed/1"
check "reading the other seven takes at most three more" \
	at_most 3 cat "$mount/listed/2" "$mount/listed/3" "$mount/listed/4" "$mount/listed/5" \
	"$mount/listed/6" "$mount/listed/7" "$mount/listed/8"
check "reading them all again takes none" at_most 0 cat "$mount/listed/"[1-8]
check "a missing name in a listed directory: none" at_most 0 test ! -e "$mount/listed/none"
ls -l "$mount/trips" >/dev/null
check "create, write 4 KiB, close: 2 round trips" at_most 2 create_write_close

# Many more objects than descriptors. Root would raise the limit, so that it loses the right to.
many_files()
{
	local i
	mkdir "$tree/20000" && cd "$tree/20000" || return
	for ((i = 0; i < 200; i++)); do
		mkdir "d$i" && (cd "d$i" && seq 100 | split -l 1 -a 3 - f) || return
	done
}
few_descriptors()
{
	local server open
	server=$(pgrep -P "$server_pid") || return
	# It is not dumpable: only root may look into it. Others see how large its table is.
	open=$(find "/proc/$server/fd" -mindepth 1 2>/dev/null | wc -l)
	[ "$(id -u)" = 0 ] || open=$(($(sed -n 's/^FDSize:[^0-9]*//p' "/proc/$server/status") - 1))
	grep -q "^Max open files *4096 *4096 " "/proc/$server/limits" || return
	echo "$open descriptors"
	[ "$open" -gt 1000 ] && [ "$open" -lt 4096 ]
}
if [ "$(id -u)" != 0 ] || setpriv --bounding-set -sys_resource true 2>/dev/null; then
	stop
	limited=(prlimit --nofile=4096:4096)
	[ "$(id -u)" != 0 ] || limited+=(setpriv --bounding-set -sys_resource --inh-caps -sys_resource)
	many_files
	cd "$scratch" || exit 1
	start rw
	limited=()
	check "20,000 files with 4,096 descriptors are listed" \
		diff <(cd "$tree/20000" && find . | sort) <(cd "$mount/20000" && find . | sort)
	# shellcheck disable=SC2016
	check "their attributes are read" sh -c '[ "$(ls -lR "$1/20000" | grep -c "^-")" = 20000 ]' sh "$mount"
	check "the server has no more open than it may" few_descriptors
	check "their content is the same" diff -r "$tree/20000" "$mount/20000"
	# shellcheck disable=SC2016
	check "their directories are renamed" sh -c 'cd "$1" && for i in 1 2 3 4; do mv "d$i" "e$i" || exit; done &&
		cat e[1-4]/* | wc -l | grep -qx 400' sh "$mount/20000"
	# shellcheck disable=SC2016
	check "they are removed" sh -c 'rm -r "$1/20000" && [ ! -e "$2/20000" ]' sh "$mount" "$tree"
else
	skip "20,000 files with 4,096 descriptors" "no setpriv"
fi

# Read-only.
stop
start ro
check "a read-only export is read" grep -qx 1 "$mount/listed/1"
# shellcheck disable=SC2016
check "and not written" sh -c '! touch "$1/no" 2>/dev/null' sh "$mount"
check "names are listed as the host has them" diff <(cd "$tree" && find . | sort) <(cd "$mount" && find . | sort)

# The end.
kill -TERM "$server_pid"
wait "$server_pid"
report $? "the server ends in good order"
server_pid=''
wait "$fused_pid"
fused_status=$?
fused_pid=''
[ "$fused_status" -le 1 ]
report $? "guest-fused ends when the server does"
# shellcheck disable=SC2016
check "and files fail then rather than hang" timeout 10 sh -c '! cat "$1" 2>/dev/null' sh "$mount/listed/5"
unmount -z 2>/dev/null
start rw
unmount
wait "$fused_pid"
report $? "guest-fused ends with success when unmounted"
fused_pid=''
# stop() does not look at how the daemons end.
# shellcheck disable=SC2016
check "no sanitizer complained" sh -c '! grep -E "Sanitizer|runtime error" "$@"' sh \
	"$scratch/server.log" "$scratch/fused.log"
echo "1..$count"
