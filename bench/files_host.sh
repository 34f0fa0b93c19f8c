#!/usr/bin/env bash
# Files on the host: guest-fused and the file server (policy, undo log and audit on; requests over a
# channel, as in the product) through a real FUSE mount, against libfuse's passthrough_ll (no
# transport, no policy), sshfs (its server reached over a socket pair: no encryption, no network) and
# the native file system; against ourselves without undo log and audit; and round trips counted.
# Prints name, ours, peer, ratio, target, ok|short|reported.
#
# FILES (default 1000) is the size of the tree; ROUNDS (default 5) how often each is timed; MIB
# (default 128) the size of the large file. STEPS, an extended regular expression, chooses among the
# steps. All of it is in memory, unless DISK=1 leaves it to the file system of TMPDIR.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=bench/lib.sh
. bench/lib.sh

build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
files=${FILES:-1000}
mib=${MIB:-128}
example=/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c
sftp_server=/usr/lib/openssh/sftp-server
scratch=$(mktemp -d "${TMPDIR:-/tmp}/matchlock-bench.XXXXXX")
# In memory, if it may be mounted: on disk what one side deletes slows down what the others create
# for a minute (ext4 looks past the inodes that were just freed), by more than what is measured.
[ -n "${DISK:-}" ] || mount -t tmpfs -o size=4g,mode=0700 bench "$scratch" 2>/dev/null
bench_log=$scratch/log
pids=()
places=(ours off peer sshfs native)

finish()
{
	local pid place
	cd /
	for place in "${places[@]}"; do
		umount -l "$scratch/$place" 2>/dev/null
	done
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	umount -l "$scratch" 2>/dev/null
	rm -rf "$scratch"
}
trap finish EXIT

if [ "$(id -u)" -ne 0 ] || [ ! -e /dev/fuse ]; then
	echo "bench files: needs root and /dev/fuse, for mounts and to empty the page cache" >&2
	exit 0
fi
have_fio=1
command -v fio >/dev/null || have_fio=0
need fio fio
need sshfs sshfs
need "$sftp_server" openssh-sftp-server

# ---- trees alike: below each mount, and native ----
mkdir -p "$scratch"/{seed,native} "$scratch"/{ours,off,peer,sshfs}{,-tree} "$scratch"/{ours,off}-store
mkdir -m 700 "$scratch/audit"
for ((i = 0; i < files; i++)); do
	[ $((i % 50)) -ne 0 ] || mkdir -p "$scratch/seed/tree/d$((i / 50))"
	seq "$i" $((i + 200 + i % 1000)) >"$scratch/seed/tree/d$((i / 50))/f$i"
done
tar cf "$scratch/seed/tree.tar" -C "$scratch/seed" tree
dd if=/dev/urandom of="$scratch/seed/big" bs=1M count="$mib" status=none
dd if=/dev/urandom of="$scratch/seed/random" bs=1M count=32 status=none
(cd "$scratch/seed/tree" && git init -q && git add -A &&
	git -c user.name=b -c user.email=b@b commit -qm tree) >>"$bench_log" 2>&1
for tree in {ours,off,peer,sshfs}-tree native; do
	cp -r "$scratch/seed/." "$scratch/$tree/"
done
gcc -O2 -o "$scratch/steps" bench/guest_steps.c || exit 0

# wait_until COMMAND...: five seconds at most.
wait_until()
{
	local i
	for ((i = 0; i < 100; i++)); do
		"$@" && return 0
		sleep 0.05
	done
	return 1
}

# serve NAME UNDO-STORE-MEMBER AUDIT...: a file server and its mount. `fused` is guest-fused's id.
serve()
{
	local name=$1 undo=$2
	shift 2
	cat >"$scratch/$name.json" <<-END
		{"session":"bench","uid":0,"gid":0,"groups":[0],"homes":["/root"],
		"exports":[{"id":1,"name":"workspace","path":"$scratch/$name-tree","profile":"workspace",
		"read_only":false,"immutable":false,"cross_mounts":false,$undo
		"allow":[".git/config"],"hide":[]}]}
	END
	"$build/tests/e2e/files_server" "$build/matchlock-fsserver" "$scratch/$name.json" \
		"$scratch/$name.socket" "$scratch/$name.window" "$@" >>"$bench_log" 2>&1 &
	pids+=($!)
	wait_until test -S "$scratch/$name.socket"
	wait_until test -e "$scratch/$name.window"
	"$build/guest/guest-fused" --unix-socket "$scratch/$name.socket" --export "1:$scratch/$name:rw" \
		--window "$scratch/$name.window:0:8388608" 2>"$scratch/$name.log" &
	fused=$!
	pids+=("$fused")
	wait_until mountpoint -q "$scratch/$name" || {
		cat "$scratch/$name.log" "$bench_log" >&2
		exit 0
	}
}

# A policy is always on: an export that may be written has its protected paths whatever is asked.
serve off "" none
serve ours "\"undo_store\":\"$scratch/ours-store\"," "$build/matchlock-audit" "$scratch/audit"
declare -A have=([ours]=1 [off]=1 [native]=1)
read -ra fuse3 < <(pkg-config --cflags --libs fuse3)
if gcc -O2 -o "$scratch/passthrough_ll" "$example" "${fuse3[@]}" 2>>"$bench_log"; then
	"$scratch/passthrough_ll" -f -o "cache=always,clone_fd,source=$scratch/peer-tree" \
		"$scratch/peer" >>"$bench_log" 2>&1 &
	pids+=($!)
	wait_until mountpoint -q "$scratch/peer" && have[peer]=1
fi
if command -v sshfs >/dev/null && [ -x "$sftp_server" ]; then
	# In place of ssh: sshfs hands it a socket pair as its standard streams.
	printf '#!/bin/sh\nexec %s\n' "$sftp_server" >"$scratch/no-ssh"
	chmod +x "$scratch/no-ssh"
	sshfs -f -o "ssh_command=$scratch/no-ssh" "bench:$scratch/sshfs-tree" "$scratch/sshfs" \
		>>"$bench_log" 2>&1 &
	pids+=($!)
	wait_until mountpoint -q "$scratch/sshfs" && have[sshfs]=1
fi
[ -n "${have[peer]:-}" ] || echo "bench files: no passthrough_ll: $(tail -n 1 "$bench_log")" >&2
[ -n "${have[sshfs]:-}" ] || echo "bench files: no sshfs: $(tail -n 1 "$bench_log")" >&2

cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
walk() { find "$1/tree" -printf ''; }
stat_all() { ls -lR "$1/tree"; }
cat_all() { find "$1/tree" -path '*/.git' -prune -o -type f -print0 | xargs -0 cat; }
untar() { mkdir "$1/out" && tar xf "$1/tree.tar" -C "$1/out"; }
remove() { rm -rf "$1/out"; }
status() { git -C "$1/tree" status --porcelain; }
clone() { git clone -q --no-hardlinks "$1/tree" "$1/clone"; }
unclone() { rm -rf "$1/clone"; }
read_big() { dd if="$1/big" of=/dev/null bs=1M; }
write_big() { dd if=/dev/zero of="$1/new" bs=1M count="$mib"; }
unwrite() { rm "$1/new"; }
random_read() { "$scratch/steps" random-read "$1/random" 2000; }
random_write() { "$scratch/steps" random-write "$1/random" 2000; }

# fio says itself how long its job ran; how long fio took to start is of no interest. Synchronous
# calls through the page cache: io_uring and O_DIRECT are not what programs in a sandbox do.
fio_job()
{
	fio --name=job --output-format=json --ioengine=psync --allow_file_create=1 "$@" 2>>"$bench_log" |
		awk -F '[:,]' '/"job_runtime"/ { printf "%.3f\n", $2 / 1000; done = 1; exit }
			END { if (!done) exit 1 }'
}
fio_random() { fio_job --filename="$1/random" --rw=randrw --rwmixread=70 --bs=4k --size=32m --io_size=64m; }
fio_sequential() { fio_job --filename="$1/fio" --rw=rw --bs=128k --size=64m --io_size=256m --fsync_on_close=1; }
unfio() { rm -f "$1/fio"; }

# timed COMMAND PLACE COLD: seconds of one run.
timed()
{
	[ "$3" = warm ] || cold
	case $1 in
	fio_*) "$1" "$scratch/$2" || echo "status $? from: $1 $2" >>"$bench_log" ;;
	*) seconds "$1" "$scratch/$2" ;;
	esac
}

# compare NAME COMMAND cold|warm [BEFORE|- [AFTER]]: a row against each peer, in turn. BEFORE and
# AFTER are not timed. Against `off` only where it is wanted: untar and git clone.
compare()
{
	local name=$1 command=$2 cache=$3 before=${4:--} after=${5:--} i place result
	local -A times=()
	[[ "$name" =~ ${STEPS:-.} ]] || return 0
	for ((i = 0; i <= rounds; i++)); do
		for place in "${places[@]}"; do
			[ -n "${have[$place]:-}" ] || continue
			[ "$place" != off ] || [[ "$name" =~ ^(untar|git clone)$ ]] || continue
			[ "$before" = - ] || "$before" "$scratch/$place" >>"$bench_log" 2>&1
			result=$(timed "$command" "$place" "$cache")
			[ "$after" = - ] || "$after" "$scratch/$place" >>"$bench_log" 2>&1
			# The first round warms up and is not counted.
			[ "$i" -eq 0 ] || times[$place]+="$result"$'\n'
		done
	done
	against "$name, passthrough_ll" peer 1.1
	against "$name, sshfs" sshfs 0.25
	against "$name, native" native -
	against "$name, undo log and audit on, against off" off 1.05
}

# against NAME PLACE TARGET: one row of compare's times.
against()
{
	[ -z "${times[$2]:-}" ] || row "$1" "$(printf %s "${times[ours]}" | median)" \
		"$(printf %s "${times[$2]}" | median)" "$3"
}

echo "# load: $(cut -d' ' -f1-3 /proc/loadavg); $rounds rounds; seconds" >&2
compare "find cold" walk cold
compare "find warm" walk warm
compare "stat all" stat_all warm
compare "cat cold" cat_all cold
compare "cat warm" cat_all warm
compare "untar" untar warm - remove
compare "rm -rf" remove warm untar
compare "git status" status warm
compare "git clone" clone warm - unclone
compare "read $mib MiB cold" read_big cold
compare "read $mib MiB warm" read_big warm
compare "write $mib MiB" write_big warm - unwrite
compare "random read, 2000 x 4 KiB" random_read cold
compare "random write, 2000 x 4 KiB" random_write warm
if [ "$have_fio" = 1 ]; then
	compare "fio random read and write" fio_random warm
	compare "fio sequential read and write" fio_sequential warm - unfio
fi
if grep -q '^status' "$bench_log"; then
	echo "some runs failed:" >&2
	grep '^status' "$bench_log" | sort | uniq -c | sort -rn | head -n 5 >&2
fi
[[ "round trips" =~ ${STEPS:-.} ]] || exit 0

# ---- round trips ----
trips()
{
	local before
	before=$(grep -c stats "$scratch/ours.log")
	kill -USR1 "$fused"
	until [ "$(grep -c stats "$scratch/ours.log")" -gt "$before" ]; do sleep 0.02; done
	sed -n 's/.*round_trips=\([0-9]*\).*/\1/p' "$scratch/ours.log" | tail -n 1
}

# counted NAME LIMIT COMMAND...: round trips of a command.
counted()
{
	local name=$1 limit=$2 began ended
	shift 2
	began=$(trips)
	"$@" >>"$bench_log" 2>&1
	ended=$(trips)
	awk -v name="round trips, $name" -v ours=$((ended - began)) -v limit="$limit" 'BEGIN {
		printf "%s\t%d\t%d\t%.3f\t%d\t%s\n", name, ours, limit, limit ? ours / limit : ours, limit,
			ours <= limit ? "ok" : "short" }'
}

mkdir "$scratch/ours/small" "$scratch/ours-tree/fresh"
echo x >"$scratch/ours-tree/fresh/a"
sleep 1.2
stat_all "$scratch/ours" >/dev/null
ls -l "$scratch/ours/fresh" "$scratch/ours/small" >/dev/null
counted "open+read+close of a small file in a listed directory" 1 cat "$scratch/ours/fresh/a"
counted "stat of a missing name in a listed directory" 0 test ! -e "$scratch/ours/fresh/none"
counted "create+write+close of 4 KiB" 2 "$build/tests/e2e/files_driver" small "$scratch/ours/small"
exit 0
