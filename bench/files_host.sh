#!/usr/bin/env bash
# Files on the host: guest-fused and the file server (policy, undo log and audit on) through a real
# FUSE mount, against libfuse's passthrough_ll (no transport, no policy) and the native file system;
# and round trips counted. Prints name, ours, peer, ratio, target, ok|short|reported.
#
# FILES (default 1000) is the size of the tree; ROUNDS (default 5) how often each is timed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=bench/lib.sh
. bench/lib.sh

build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
files=${FILES:-1000}
example=/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c
scratch=$(mktemp -d "${TMPDIR:-/tmp}/matchlock-bench.XXXXXX")
bench_log=$scratch/log
pids=()

finish()
{
	local pid
	cd /
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	umount -l "$scratch/ours" 2>/dev/null
	umount -l "$scratch/peer" 2>/dev/null
	rm -rf "$scratch"
}
trap finish EXIT

if [ "$(id -u)" -ne 0 ] || [ ! -e /dev/fuse ]; then
	echo "bench files: needs root and /dev/fuse, for mounts and to empty the page cache" >&2
	exit 0
fi

# ---- three trees alike: below ours, peer and native ----
mkdir -p "$scratch"/{ours,peer,native,store,ours-tree,peer-tree,seed}
for ((i = 0; i < files; i++)); do
	[ $((i % 50)) -ne 0 ] || mkdir -p "$scratch/seed/tree/d$((i / 50))"
	seq "$i" $((i + 200 + i % 1000)) >"$scratch/seed/tree/d$((i / 50))/f$i"
done
tar cf "$scratch/seed/tree.tar" -C "$scratch/seed" tree
dd if=/dev/urandom of="$scratch/seed/big" bs=1M count=128 status=none
(cd "$scratch/seed/tree" && git init -q && git add -A &&
	git -c user.name=b -c user.email=b@b commit -qm tree) >>"$bench_log" 2>&1
for tree in ours-tree peer-tree native; do
	cp -r "$scratch/seed/." "$scratch/$tree/"
done

cat >"$scratch/config.json" <<-END
	{"session":"bench","uid":0,"gid":0,"groups":[0],"homes":["/root"],
	"exports":[{"id":1,"name":"workspace","path":"$scratch/ours-tree","profile":"workspace",
	"read_only":false,"immutable":false,"cross_mounts":false,"undo_store":"$scratch/store",
	"allow":[".git/config"],"hide":[]}]}
END
"$build/tests/e2e/files_server" "$build/matchlock-fsserver" "$scratch/config.json" "$scratch/socket" \
	>>"$bench_log" 2>&1 &
pids+=($!)
for ((i = 0; i < 100; i++)); do
	[ -S "$scratch/socket" ] && break
	sleep 0.05
done
sleep 0.5
"$build/guest/guest-fused" --unix-socket "$scratch/socket" --export "1:$scratch/ours:rw" \
	2>"$scratch/fused.log" &
fused=$!
pids+=("$fused")
have_peer=0
read -ra fuse3 < <(pkg-config --cflags --libs fuse3)
if gcc -O2 -o "$scratch/passthrough_ll" "$example" "${fuse3[@]}" 2>>"$bench_log"; then
	"$scratch/passthrough_ll" -f -o "cache=always,clone_fd,source=$scratch/peer-tree" \
		"$scratch/peer" >>"$bench_log" 2>&1 &
	pids+=($!)
	have_peer=1
fi
for ((i = 0; i < 100; i++)); do
	mountpoint -q "$scratch/ours" && { [ "$have_peer" = 0 ] || mountpoint -q "$scratch/peer"; } && break
	sleep 0.05
done
mountpoint -q "$scratch/ours" || { cat "$scratch/fused.log" "$bench_log" >&2; exit 0; }

cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
walk() { find "$1/tree" -printf ''; }
stat_all() { ls -lR "$1/tree"; }
cat_all() { find "$1/tree" -path '*/.git' -prune -o -type f -print0 | xargs -0 cat; }
untar() { mkdir "$1/out" && tar xf "$1/tree.tar" -C "$1/out"; }
remove() { rm -rf "$1/out"; }
untar_remove() { untar "$1" && remove "$1"; }
status() { git -C "$1/tree" status --porcelain; }
clone() { git clone -q --no-hardlinks "$1/tree" "$1/clone"; rm -rf "$1/clone"; }
read_big() { dd if="$1/big" of=/dev/null bs=1M; }
write_big() { dd if=/dev/zero of="$1/new" bs=1M count=128; rm "$1/new"; }

# timed COMMAND PLACE COLD: seconds of one run.
timed()
{
	[ "$3" = warm ] || cold
	seconds "$1" "$scratch/$2"
}

# compare NAME COMMAND cold|warm: a row against passthrough_ll, and one against native.
compare()
{
	local name=$1 command=$2 cache=$3 i place
	local -A times=([ours]='' [peer]='' [native]='')
	for ((i = 0; i <= rounds; i++)); do
		for place in ours peer native; do
			[ "$place" != peer ] || [ "$have_peer" = 1 ] || continue
			# The first round warms up and is not counted.
			if [ "$i" -eq 0 ]; then
				timed "$command" "$place" "$cache" >/dev/null
			else
				times[$place]+="$(timed "$command" "$place" "$cache")"$'\n'
			fi
		done
	done
	[ "$have_peer" = 0 ] || row "$name, passthrough_ll" "$(printf %s "${times[ours]}" | median)" \
		"$(printf %s "${times[peer]}" | median)" 1.1
	row "$name, native" "$(printf %s "${times[ours]}" | median)" \
		"$(printf %s "${times[native]}" | median)" -
}

compare "find cold" walk cold
compare "find warm" walk warm
compare "stat all" stat_all warm
compare "cat cold" cat_all cold
compare "cat warm" cat_all warm
compare "untar and rm -rf" untar_remove warm
compare "git status" status warm
compare "git clone" clone warm
compare "read 128 MiB cold" read_big cold
compare "read 128 MiB warm" read_big warm
compare "write 128 MiB" write_big warm

# ---- round trips ----
trips()
{
	local before
	before=$(grep -c stats "$scratch/fused.log")
	kill -USR1 "$fused"
	until [ "$(grep -c stats "$scratch/fused.log")" -gt "$before" ]; do sleep 0.02; done
	sed -n 's/.*round_trips=\([0-9]*\).*/\1/p' "$scratch/fused.log" | tail -n 1
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
