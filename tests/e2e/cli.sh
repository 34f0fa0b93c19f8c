#!/usr/bin/env bash
# The command line without a VM: mistakes, plans, sessions, doctor, installation, manual page,
# completions. Prints TAP.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
matchlock=$build/matchlock
scratch=$(mktemp -d /tmp/cli-e2e-XXXXXX) || exit 1
trap 'rm -rf "$scratch"' EXIT
export HOME=$scratch/home XDG_STATE_HOME=$scratch/state XDG_RUNTIME_DIR=$scratch/run
unset XDG_CACHE_HOME XDG_CONFIG_HOME
mkdir -p "$HOME" "$scratch/project" "$scratch/run"
chmod 700 "$scratch/run"

count=0
failed=0
ok() { # DESCRIPTION STATUS
	count=$((count + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf '%s\n' "${out:-}" "${err:-}" | head -n 20 | sed 's/^/# /'
		failed=1
	fi
}
skip() { # DESCRIPTION WHY
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}
run() { # COMMAND...: $out, $err, $status
	out=$("$@" 2>"$scratch/err" </dev/null)
	status=$?
	err=$(cat "$scratch/err")
}
usage() { # DESCRIPTION PART ARGUMENT...: status 2 and PART in the message
	local description=$1 part=$2
	shift 2
	run "$matchlock" "$@"
	[ "$status" -eq 2 ] && [[ $err == *"$part"* ]] && [ -z "$out" ]
	ok "$description" $?
}
cd "$scratch/project" || exit 1

# ---- mistakes
usage "no command at all" "matchlock run"
usage "an unknown command" "did you mean run?" rnu
usage "flags before the command" "flags come after" --workspace . run -- true
usage "run without a command" "no command" run --workspace .
usage "an unknown flag" "did you mean --workspace?" run --workspce . -- true
usage "-v without a colon" "--verbose" run -v . -- true
usage "a workspace that is not there" "No such file" run --workspace missing -- true
usage "the root as workspace" "no workspace" run --workspace / -- true
usage "roll-back of nothing" "--workspace" run --rollback-on-exit -- true
usage "a policy that is not there" "missing.yaml" run --policy missing.yaml -- true
usage "an unknown session" "no session" rollback nothing-here
usage "rollback without a session" "one session" rollback
usage "an unknown audit verb" "show" audit frob last
mkdir -p "$scratch/state/matchlock"
usage "the state directory as workspace" "state directory" run --workspace "$scratch/state" -- true
usage "a workspace inside the state directory" "state directory" \
	run --workspace "$scratch/state/matchlock" -- true

# ---- help
run "$matchlock" help
[ "$status" -eq 0 ] && [[ $out == *rollback* ]]
ok "help" $?
for command in run rollback diff ls rm prune audit allow port-forward doctor trust config version; do
	run "$matchlock" "$command" --help
	[ "$command" = version ] || { [ "$status" -eq 0 ] && [[ $out == *"Usage: matchlock $command"* ]]; }
	result=$?
	run "$matchlock" help "$command"
	[ "$result" -eq 0 ] && [ "$status" -eq 0 ] && [[ $out == *"Usage: matchlock $command"* ]]
	ok "help of $command" $?
done
run "$matchlock" version
[ "$status" -eq 0 ] && [[ $out =~ ^matchlock\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
ok "version" $?

# ---- plans
run "$matchlock" run --workspace . --dry-run --timeout 5m -e A=1 -- npm 'a b'
[ "$status" -eq 0 ] && [[ $out == *"npm 'a b'"* && $out == *"$scratch/project, read-write"* &&
	$out == *"5 min"* && $out == *"built-in"* && $out == *"no network card"* ]]
ok "a plan for people" $?
[ ! -e "$scratch/state/matchlock/sessions" ] && [ ! -e "$scratch/project/.matchlock" ]
ok "a plan makes nothing" $?
run "$matchlock" run --huge-pages --dry-run -- true
[ "$status" -eq 0 ] && grep -q '^engine  *kvm$' <<<"$out" && [[ $out == *"of memory in huge pages"* ]]
ok "huge pages are KVM's" $?
run "$matchlock" run --huge-pages --engine qemu --dry-run -- true
[ "$status" -eq 2 ] && [[ $err == *"--huge-pages: the engine qemu has none"* ]]
ok "and not QEMU's" $?
run "$matchlock" run --huge-pages --memory 129m --dry-run -- true
[ "$status" -eq 2 ] && [[ $err == *"--huge-pages: a page has 2 MiB"* ]]
ok "and whole" $?
run "$matchlock" run --workspace=. --dry-run --json --memory=512m --cpus 1 -v /usr/share:/data:ro -- true
printf '%s' "$out" | python3 -c '
import json, sys
plan = json.load(sys.stdin)
assert plan["command"] == ["true"] and plan["memory_mib"] == 512 and plan["cpus"] == 1
assert plan["huge_pages"] is False
kinds = {mount["kind"]: mount for mount in plan["mounts"]}
assert kinds["workspace"]["undo_store"] and not kinds["workspace"]["read_only"]
assert kinds["mount"]["guest"] == "/data" and kinds["mount"]["read_only"]
assert "/.matchlock" in kinds["workspace"]["hidden"]
assert plan["network"] == "none"'
ok "a plan as JSON" $?
SECRET=hunter2 run "$matchlock" run --dry-run --json -- true
[[ $out != *hunter2* ]]
ok "the host's environment stays out" $?
run "$matchlock" run --workspace "$HOME" --dry-run -- true
[ "$status" -eq 0 ] && [[ $out == *"whole home directory"* ]]
ok "a home directory as workspace is warned about" $?
mkdir "$HOME/.ssh"
run "$matchlock" run -v "$HOME/.ssh:/keys:ro" --dry-run -- true
[ "$status" -eq 0 ] && [[ $out == *credentials* ]]
ok "mounted credentials are warned about" $?

# ---- the undo store of another file system is inside the workspace
if mount_point=$(findmnt -rno TARGET -t tmpfs 2>/dev/null | grep -m 1 -x /dev/shm) && [ -w /dev/shm ]; then
	other=$(mktemp -d /dev/shm/cli-e2e-XXXXXX)
	state=$XDG_STATE_HOME
	XDG_STATE_HOME=$other/state run "$matchlock" run --workspace . --dry-run -- true
	export XDG_STATE_HOME=$state
	[[ $out == *"undo store $scratch/project/.matchlock/undo/"* ]]
	ok "the store is on the workspace's file system (state on $mount_point)" $?
	rm -rf "$other"
else
	skip "the store is on the workspace's file system" "no second file system to write to"
fi

# ---- sessions
make_session() { # ID NAME PHASE CHANGES STARTED
	mkdir -p "$scratch/state/matchlock/sessions/$1" "$scratch/store/$1"
	chmod 700 "$scratch/state/matchlock/sessions/$1"
	cat >"$scratch/state/matchlock/sessions/$1/session.json" <<-RECORD
		{"version":1,"id":"$1","name":$2,"command":["x"],"workspace":"/ws","image":"/","user":"u",
		 "engine":"qemu","boot_id":null,"started":$5,"finished":$5,"rolled_back":0,"duration_ms":5,
		 "phase":"$3","changes":"$4","exit_status":0,"reason":null,"rollback_on_exit":false,
		 "stores":["$scratch/store/$1"],"processes":[{"role":"cli","pid":$$,"start":1}]}
	RECORD
}
run "$matchlock" ls
[ "$status" -eq 0 ] && [ "$(printf '%s\n' "$out" | wc -l)" -eq 1 ]
ok "no sessions yet" $?
now=$(date +%s)
make_session aaaaaaaaaaa1 '"one"' finished open "$((now - 30))"
make_session aaaaaaaaaaa2 null finished rolled-back "$((now - 20))"
make_session bbbbbbbbbbb3 null running open "$((now - 10))"
make_session ccccccccccc4 null finished kept "$((now - 900000))"
run "$matchlock" ls
[[ $out == *"bbbbbbbbbbb3"*"crashed"*"aaaaaaaaaaa2"*"rolled-back"*"one"*"exited"*"ccccccccccc4"*"kept"* ]]
ok "ls: newest first, each with its status" $?
run "$matchlock" ls --json
printf '%s' "$out" | python3 -c '
import json, sys
sessions = json.load(sys.stdin)
assert [s["status"] for s in sessions] == ["crashed", "rolled-back", "exited", "kept"]
assert sessions[2]["name"] == "one" and sessions[2]["can_roll_back"] is True'
ok "ls --json" $?
usage "an ambiguous prefix" "beginning of 2" rm aaaa
run "$matchlock" rm one
[ "$status" -eq 1 ] && [[ $err == *"rm --force"* ]]
ok "rm keeps what can still be undone" $?
run "$matchlock" rm aaaaaaaaaaa2
[ "$status" -eq 0 ] && [ ! -e "$scratch/store/aaaaaaaaaaa2" ] &&
	[ ! -e "$scratch/state/matchlock/sessions/aaaaaaaaaaa2" ]
ok "rm removes a session and its store" $?
run "$matchlock" rm --force one
[ "$status" -eq 0 ]
ok "rm --force" $?
run "$matchlock" prune
[ "$status" -eq 1 ] && [[ $err == *ccccccccccc4* ]] && [ -e "$scratch/store/ccccccccccc4" ]
ok "prune without a terminal asks for --force" $?
run "$matchlock" prune --older-than 30d --force
[[ $err == *"nothing to remove"* ]]
ok "prune leaves what is young" $?
make_session ddddddddddd5 null running open "$((now - 900000))"
echo y | script -qec "$matchlock prune" /dev/null >/dev/null 2>&1
[ ! -e "$scratch/store/ccccccccccc4" ] && [ -e "$scratch/store/ddddddddddd5" ]
ok "prune asks on a terminal, and leaves crashed sessions" $?
run "$matchlock" prune --force
[ ! -e "$scratch/store/ddddddddddd5" ] && [ -e "$scratch/store/bbbbbbbbbbb3" ]
ok "prune --force removes old crashed sessions" $?
mkdir -p "$scratch/state/matchlock/sessions/eeeeeeeeeee6"
run "$matchlock" ls
[ "$status" -eq 0 ] && [[ $err == *"cannot be read"* ]]
ok "a damaged record is counted, not fatal" $?

# ---- output that cannot be written
"$matchlock" help >/dev/full 2>/dev/null
[ $? -eq 1 ]
ok "a full disk is no success" $?

# ---- runtime directory
if [ "$(id -u)" -eq 0 ] || [ ! -e "/tmp/matchlock-$(id -u)" ]; then
	link=$scratch/run/matchlock
	rm -rf "$link"
	ln -s "$scratch/project" "$link"
	run "$matchlock" doctor --json
	[[ $out == *"symbolic link"* ]]
	ok "a symlink for the runtime directory is refused" $?
	rm "$link"
fi

# ---- doctor
run "$matchlock" doctor
[[ $out == *kvm* && $out == *landlock* && $out == *"disk space"* && $out == *"user namespaces"* ]]
ok "doctor looks at everything" $?
run "$matchlock" doctor --json
printf '%s' "$out" | python3 -c '
import json, sys
report = json.load(sys.stdin)
names = {check["name"] for check in report["checks"]}
assert {"programs", "kvm", "qemu", "guest kernel", "user namespaces", "landlock", "io_uring",
        "reflink here", "disk space", "directories"} <= names, names
assert all(check["fix"] for check in report["checks"] if check["verdict"] == "broken")'
ok "doctor --json: a fix for each problem" $?

# ---- installation
tree=$OLDPWD
run "$tree/scripts/install.sh" "$build" "$scratch/root" /usr
[ "$status" -eq 0 ] && [ -x "$scratch/root/usr/bin/matchlock" ]
ok "installation into DESTDIR" $?
run "$scratch/root/usr/bin/matchlock" doctor --json
printf '%s' "$out" | python3 -c '
import json, sys
checks = {check["name"]: check for check in json.load(sys.stdin)["checks"]}
assert checks["programs"]["verdict"] == "ok", checks["programs"]'
ok "the installed program finds its parts" $?
run bash -c "source '$scratch/root/usr/share/bash-completion/completions/matchlock'
	COMP_WORDS=(matchlock ru) COMP_CWORD=1; _matchlock; printf '%s\n' \"\${COMPREPLY[@]}\"
	COMP_WORDS=(matchlock run --roll) COMP_CWORD=2; _matchlock; printf '%s\n' \"\${COMPREPLY[@]}\"
	COMP_WORDS=('$matchlock' rollback bbb) COMP_CWORD=2; _matchlock; printf '%s\n' \"\${COMPREPLY[@]}\""
[ "$out" = $'run\n--rollback-on-exit\nbbbbbbbbbbb3' ]
ok "bash completes commands, flags and sessions" $?
if command -v zsh >/dev/null; then
	run zsh -fc "fpath=('$scratch/root/usr/share/zsh/site-functions' \$fpath); autoload -Uz compinit;
		compinit -D -u; autoload +X _matchlock && print \$_comps[matchlock]"
	[ "$status" -eq 0 ] && [ "$out" = _matchlock ]
	ok "zsh loads its completion" $?
else
	skip "zsh loads its completion" "zsh is not installed"
fi
if command -v man >/dev/null && command -v groff >/dev/null; then
	run env MANWIDTH=80 LC_ALL=C.UTF-8 man --warnings -l "$scratch/root/usr/share/man/man1/matchlock.1"
	[ "$status" -eq 0 ] && [ -z "$err" ] && [[ $out == *"EXIT STATUS"* ]]
	ok "the manual page renders without warnings" $?
else
	skip "the manual page renders without warnings" "man or groff is not installed"
fi
missing=
for flag in $("$matchlock" run --help | grep -oE -- '--[a-z][a-z-]+' | sort -u); do
	grep -q -- "${flag//-/\\\\-}" "$tree/docs/matchlock.1" || missing+=" $flag"
	grep -q -- "$flag" "$tree/completion/matchlock.bash" || missing+=" $flag(bash)"
	grep -q -- "$flag" "$tree/completion/_matchlock" || missing+=" $flag(zsh)"
done
out=$missing err=
[ -z "$missing" ]
ok "every flag is in the manual page and both completions" $?

echo "1..$count"
exit $failed
