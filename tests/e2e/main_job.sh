#!/usr/bin/env bash
# The main job through a real VM: an untrusted command on a real repository, what it may and may
# not do, roll-back to the very same tree, exit statuses, and kill -9 of everything. Prints TAP.
#
# MAIN_JOB_PARTS names the parts to play, out of those listed at the end of this script. "rollback"
# undoes what "changes" made.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/engine.sh
. tests/e2e/lib/engine.sh
tree=$PWD
build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
matchlock=$build/matchlock
scratch=$(mktemp -d /tmp/main-job-XXXXXX) || exit 1
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}
export XDG_STATE_HOME=$scratch/state
use_engine "$scratch"
workspace=$scratch/project

count=0
failed=0
background=()
cleanup() {
	local pid
	for pid in "${background[@]}"; do
		kill -KILL "$pid" 2>/dev/null
	done
	rm -rf "$scratch"
}
trap cleanup EXIT
ok() { # DESCRIPTION STATUS
	count=$((count + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf 'status %s\n%s\n%s\n' "${status:-}" "${out:-}" "${err:-}" | tail -n 25 | sed 's/^/# /'
		failed=1
	fi
}
run() { # COMMAND...: $out, $err, $status
	out=$(timeout -k 5 150 "$@" 2>"$scratch/err" </dev/null)
	status=$?
	err=$(cat "$scratch/err")
}
in_guest() { # SHELL SCRIPT [FLAG...]: in the workspace
	local script=$1
	shift
	run "$matchlock" run --workspace "$workspace" "$@" -- /bin/sh -c "$script"
}
# Names, types, modes, owners, times to the nanosecond, link targets, xattrs and contents.
digest() {
	(cd "$workspace" && find . -printf '%P\t%y\t%m\t%U\t%G\t%n\t%T@\t%l\n' | LC_ALL=C sort &&
		find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum &&
		getfattr -R -d -m user -h . 2>/dev/null) | sha256sum
}

git clone --quiet --no-hardlinks "$tree" "$workspace" || exit 1
git -C "$workspace" config user.name tester
git -C "$workspace" config user.email tester@localhost
ln -s ../outside "$workspace/link"
mkdir "$workspace/kept"
head -c 300000 /dev/urandom >"$workspace/kept/data"
chmod 640 "$workspace/kept/data"
touch -d '2020-02-02 02:02:02.123456789' "$workspace/kept/data" "$workspace/kept"
setfattr -n user.note -v before "$workspace/kept/data" 2>/dev/null
git -C "$workspace" status --short >/dev/null
before=$(digest)

# The simplest thing, and the summary.
part_simplest() {
	run "$matchlock" run --json -- true
	printf '%s\n' "$err" | tail -n 1 | python3 -c '
import json, os, sys
summary = json.load(sys.stdin)
wanted = os.environ.get("MATCHLOCK_TEST_ENGINE")
assert summary["exit_status"] == 0 and summary["changes"] == "none", summary
assert summary["engine"] in ([wanted] if wanted else ["qemu", "kvm"]), summary'
	result=$?
	[ "$status" -eq 0 ] && [ "$result" -eq 0 ] && [ -z "$out" ]
	ok "true runs, and --json sums up" $?
	[ -z "$(find "${XDG_RUNTIME_DIR:-/nonexistent}/matchlock" "/tmp/matchlock-$(id -u)" -mindepth 1 \
		-path "*$("$matchlock" ls -q | head -n 1)*" 2>/dev/null)" ]
	ok "the sockets are gone afterwards" $?
}

# Changes reach the host; a planted hook does not.
part_changes() {
	# shellcheck disable=SC2016 # the guest's shell expands these
	in_guest 'echo hello >new.txt; rm Makefile; echo more >>.clang-format; mkdir -p a/b; mv base a/b/moved
		chmod 600 kept/data; printf X | dd of=kept/data bs=1 seek=100000 conv=notrunc status=none
		ln new.txt hard; ln -s new.txt soft; setfattr -n user.note -v after kept/data 2>/dev/null
		git add -A >/dev/null; git commit -qm work; echo evil >.git/hooks/pre-commit; exit 7' --name first
	[ "$status" -eq 7 ]
	ok "the command's exit status" $?
	[ "$(cat "$workspace/new.txt")" = hello ] && [ ! -e "$workspace/Makefile" ] &&
		[ -d "$workspace/a/b/moved" ] && [ "$(git -C "$workspace" log -1 --format=%s)" = work ]
	ok "allowed changes are on the host" $?
	[ ! -e "$workspace/.git/hooks/pre-commit" ] && [[ $err == *"Permission denied"* ]]
	ok "a git hook cannot be planted" $?
	[[ $err == *"denied"*".git/hooks/pre-commit"*"--allow-write"* ]]
	ok "the denial is explained, with the flag that would allow it" $?
	run "$matchlock" ls
	[[ $out == *first*exited*7* ]]
	ok "ls shows the session" $?
	run "$matchlock" diff --name-only first
	[ "$status" -eq 0 ] && [[ $out == *"Makefile"* && $out == *"new.txt"* && $out == *"a/b/moved"* ]]
	ok "diff lists the changes" $?
	run "$matchlock" diff first new.txt
	[[ $out == *"+hello"* && $out != *Makefile* ]]
	ok "diff of one path" $?
	run "$matchlock" audit show first --denied
	[ "$status" -eq 0 ] && [[ $out == *".git/hooks/pre-commit"* ]]
	ok "audit show has the denial" $?
	run "$matchlock" audit verify first
	[ "$status" -eq 0 ]
	ok "audit verify" $?

	run "$matchlock" audit show first --kind session_start --json
	[ "$status" -eq 0 ] && [[ $out =~ \"engine\":\"(${MATCHLOCK_TEST_ENGINE:-qemu|kvm})\" ]]
	ok "the log names the engine that was taken" $?
}

# Roll-back by hand.
part_rollback() {
	run "$matchlock" rollback first
	[ "$status" -eq 0 ] && [ "$(digest)" = "$before" ]
	ok "roll-back restores the very same tree" $?
	run "$matchlock" rollback first
	[ "$status" -eq 0 ] && [[ $out == *"already"* ]] && [ "$(digest)" = "$before" ]
	ok "a second roll-back does nothing and says so" $?
	run "$matchlock" diff first
	[ "$status" -eq 0 ] && [[ $out == *new.txt* && $err == *"rolled back"* ]]
	ok "diff still answers afterwards" $?
	run "$matchlock" audit verify first
	[ "$status" -eq 0 ]
	result=$?
	run "$matchlock" audit show first --kind rollback
	[ "$result" -eq 0 ] && [[ $out == *restored* ]]
	ok "the roll-back is in the log, which verifies" $?
}

# Roll-back by flags.
part_flags() {
	in_guest 'rm -rf base wire; echo x >y; git config foo.bar 1; touch kept; exit 0' --rollback-on-exit
	[ "$status" -eq 0 ] && [ "$(digest)" = "$before" ]
	ok "--rollback-on-exit" $?
	run "$matchlock" ls
	[[ $out == *rolled-back* ]]
	ok "ls shows it as rolled back" $?
	in_guest 'echo x >y; exit 1' --keep-on-success
	[ "$status" -eq 1 ] && [ "$(digest)" = "$before" ]
	ok "--keep-on-success undoes a failure" $?
	in_guest 'echo x >y' --keep-on-success --name kept
	[ "$status" -eq 0 ] && [ "$(cat "$workspace/y")" = x ]
	result=$?
	run "$matchlock" ls
	[ "$result" -eq 0 ] && [[ $out == *kept* ]]
	ok "--keep-on-success keeps a success" $?
	run "$matchlock" rollback kept
	[ "$status" -eq 0 ] && [ "$(digest)" = "$before" ]
	ok "which can be undone all the same" $?
	in_guest 'echo hook >.git/hooks/post-commit' --allow-write '.git/hooks/post-commit' --rollback-on-exit
	[ "$status" -eq 0 ] && [ "$(digest)" = "$before" ]
	ok "--allow-write allows, and is undone too" $?
}

# Statuses, environment, directory, user.
part_surroundings() {
	in_guest 'kill -TERM $$'
	[ "$status" -eq 143 ]
	ok "128 + signal" $?
	run "$matchlock" run -- /no/such/command
	[ "$status" -eq 127 ]
	ok "127 for a command that is not there" $?
	run "$matchlock" run -- /etc/passwd
	[ "$status" -eq 126 ]
	ok "126 for a file that cannot be executed" $?
	run "$matchlock" run --timeout 1s -- sleep 60
	[ "$status" -eq 124 ] && [[ $err == *"--timeout"* ]]
	ok "124 on --timeout" $?
	SECRET=hunter2 in_guest 'pwd; echo "$A $B ${SECRET-none} $MATCHLOCK"; id -u; ls -A "$HOME" | wc -l; cat' \
		-e A=1 -e B -w kept
	[ "$out" = "$workspace/kept
1  none 1
$(id -u)
0" ]
	ok "clean environment, -e, -w, an empty home, no standard input" $?
	run "$matchlock" run -u 4321:8765 -- id
	[[ $out == uid=4321*gid=8765* ]]
	ok "-u" $?
	TZ=Asia/Tokyo in_guest 'date +%Z; readlink /etc/localtime'
	[ "$out" = "JST
$(readlink /etc/localtime)" ]
	ok "the caller's time zone, and the machine's" $?
	# A root of its own, with nothing in it but a shell and the machine's time zone.
	image=$scratch/image
	zone=$(readlink /etc/localtime)
	case $zone in */zoneinfo/*) zone=/usr/share/zoneinfo/${zone##*/zoneinfo/} ;; *) zone= ;; esac
	mkdir -p "$image/bin" "$image$(dirname "${zone:-/usr/none}")"
	cp "$(command -v busybox)" "$image/bin/sh"
	[ -z "$zone" ] || cp "$zone" "$image$zone"
	run "$matchlock" run --image "$image" -- /bin/sh -c 'readlink /etc/localtime; echo there'
	[ "$out" = "${zone:+$zone
}there" ]
	ok "another root is given the machine's time zone" $?
	out=$(printf 'in\nput' | timeout 60 "$matchlock" run -i -- sh -c 'tr a-z A-Z; echo err >&2' 2>"$scratch/err")
	[ "$out" = $'IN\nPUT' ] && [ "$(cat "$scratch/err")" = err ]
	ok "-i passes standard input on; output and errors stay apart" $?
	# Each is a packet, and more than may be in flight: the guest must say that it has read them.
	out=$(for ((i = 0; i < 600; i++)); do
		printf x
		sleep 0.005
	done | timeout 120 "$matchlock" run -i -- sh -c 'wc -c' 2>"$scratch/err")
	[ "$out" = 600 ]
	ok "600 keystrokes arrive, while nothing comes back" $?
	mkdir "$scratch/data" && echo data >"$scratch/data/file"
	in_guest 'cat /zz/file; echo no >/zz/file || echo refused' -v "$scratch/data:/zz:ro"
	[[ $out == data*refused ]] && [ "$(cat "$scratch/data/file")" = data ]
	ok "-v :ro" $?
	in_guest 'echo more >>/zz/file' -v "$scratch/data:/zz" --rollback-on-exit
	[ "$status" -eq 0 ] && [ "$(cat "$scratch/data/file")" = data ]
	ok "a writable -v is undone too" $?
	in_guest 'ls .matchlock; cat '"$XDG_STATE_HOME"'/matchlock/sessions/*/session.json' --rollback-on-exit
	[ "$status" -ne 0 ] && [[ $out != *'"version"'* ]]
	ok "Matchlock's own files are not there" $?
	printf 'no_such_key: 1\n' >"$scratch/bad.yaml"
	in_guest 'echo ran' --policy "$scratch/bad.yaml"
	[ "$status" -eq 125 ] && [[ $err == *bad.yaml* && $out != *ran* ]]
	ok "a malformed policy stops the run with 125, naming the file" $?
}

# An engine that breaks the protocol of its device.
part_hostile_engine() {
	mkdir "$scratch/hostile"
	ln -s "$build/tests/e2e/vmm_violation" "$scratch/hostile/qemu-system-x86_64"
	PATH=$scratch/hostile:$PATH run "$matchlock" run --engine qemu --name hostile -- true
	[ "$status" -eq 125 ] && [[ $err == *"virtual machine"*violation:* ]]
	ok "a hostile engine ends the session with 125, and the message says why" $?
	run "$matchlock" audit show hostile --kind violation
	[ "$status" -eq 0 ] && [[ $out == *"bad version or size"* ]]
	ok "its violation is in the log" $?
}

storms=0
start_storm() { # begins a session that keeps changing things; $cli is its process, $session its id
	storms=$((storms + 1))
	timeout 200 "$matchlock" run -q --name "storm-$storms" --workspace "$workspace" -- /bin/sh -c '
		i=0; echo started >storm-started
		while :; do
			i=$((i + 1)); mkdir -p "storm/$i"; echo $i >"storm/$i/file"
			echo $i >>kept/data; mv "storm/$i" "storm/moved-$i"; rm -f "wire/audit.h"
			chmod 755 kept; cp base/io.c base/copy-$i.c; rm -f "base/copy-$((i - 1)).c"
		done' >/dev/null 2>"$scratch/storm-err" &
	timeout_pid=$!
	background+=("$timeout_pid")
	for _ in $(seq 300); do
		[ -e "$workspace/storm-started" ] && [ -e "$workspace/storm/moved-2" ] && break
		sleep 0.1
	done
	# By name: two sessions may have begun in the same second.
	read -r session processes < <("$matchlock" ls --json | python3 -c '
import json, sys
for session in json.load(sys.stdin):
    if session["name"] == sys.argv[1]:
        print(session["id"], *[p["role"] + "=" + str(p["pid"]) for p in session["processes"]])' "storm-$storms")
	processes=$(tr ' =' '\n ' <<<"$processes")
}
pid_of() { # ROLE
	printf '%s\n' "$processes" | sed -n "s/^$1 //p"
}
end_storm() { # waits for the session's end; $ended is its status
	wait "$timeout_pid" 2>/dev/null
	ended=$?
}

# Kill -9 of one daemon each.
part_kill_daemons() {
	for role in vmm fsserver audit; do
		start_storm
		kill -KILL "$(pid_of "$role")"
		end_storm
		err=$(cat "$scratch/storm-err")
		[ "$ended" -eq 125 ] && [[ $err == *"matchlock-$role"*"matchlock rollback $session"* ]]
		ok "kill -9 of $role: 125, and what to do" $?
		run "$matchlock" rollback "$session"
		[ "$status" -eq 0 ] && [ "$(digest)" = "$before" ]
		ok "kill -9 of $role: roll-back restores the very same tree" $?
	done
}

# Kill -9 of the client: the session is crashed, and nothing outlives it.
part_kill_client() {
	start_storm
	run "$matchlock" rm --force "$session"
	result=$status
	run "$matchlock" rollback "$session"
	[ "$result" -eq 1 ] && [ "$status" -eq 1 ] && [[ $err == *runs* ]]
	ok "a running session is neither removed nor rolled back" $?
	kill -KILL "$(pid_of cli)"
	end_storm
	run "$matchlock" ls
	[[ $out == *"$session"*crashed* ]]
	ok "kill -9 of matchlock itself: ls shows the session as crashed" $?
	run "$matchlock" diff --name-only "$session"
	[ "$status" -eq 0 ] && [[ $out == *storm* ]]
	ok "a crashed session's diff" $?
	run "$matchlock" rollback "$session"
	[ "$status" -eq 0 ] && [ "$(digest)" = "$before" ]
	ok "kill -9 of matchlock itself: roll-back restores the very same tree" $?
	alive=
	for pid in $(printf '%s\n' "$processes" | cut -d' ' -f2); do
		# One whose new parent does not look at its end is no process any more.
		grep -qs '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" && alive+=" $pid"
	done
	[ -z "$alive" ]
	ok "no process outlives it" $?
}

# Kill -9 of all at once.
part_kill_all() {
	start_storm
	# shellcheck disable=SC2046 # a list of process ids
	kill -KILL $(printf '%s\n' "$processes" | cut -d' ' -f2)
	end_storm
	run "$matchlock" ls
	[[ $out == *"$session"*crashed* ]]
	result=$?
	run "$matchlock" rollback "$session"
	[ "$result" -eq 0 ] && [ "$status" -eq 0 ] && [ "$(digest)" = "$before" ]
	ok "kill -9 of all: crashed, and roll-back restores the very same tree" $?
	run "$matchlock" rollback "$session"
	[ "$status" -eq 0 ] && [[ $out == *already* ]]
	ok "a second roll-back does nothing" $?
}

all="simplest changes rollback flags surroundings hostile_engine kill_daemons kill_client kill_all"
for part in ${MAIN_JOB_PARTS:-$all}; do
	"part_$part"
done

echo "1..$count"
exit $failed
