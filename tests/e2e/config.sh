#!/usr/bin/env bash
# config.yaml, .matchlock.yaml with `matchlock trust`, and volumes of single files: first the
# command line alone, then through a real VM. Prints TAP.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
matchlock=$build/matchlock
scratch=$(mktemp -d /tmp/config-e2e-XXXXXX) || exit 1
trap 'rm -rf "$scratch"' EXIT
# The guest's kernel is the tester's; all else is our own.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}
export HOME=$scratch/home XDG_STATE_HOME=$scratch/state XDG_RUNTIME_DIR=$scratch/run
unset XDG_CONFIG_HOME
config=$HOME/.config/matchlock/config.yaml
mkdir -p "${config%/*}" "$scratch/project/docs" "$scratch/run" "$scratch/beside"
chmod 700 "$scratch/run"

count=0
failed=0
ok() { # DESCRIPTION STATUS
	count=$((count + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf '%s\n' "status ${status:-}" "${out:-}" "${err:-}" | tail -n 25 | sed 's/^/# /'
		failed=1
	fi
}
run() { # COMMAND...: $out, $err, $status
	out=$(timeout -k 5 150 "$@" 2>"$scratch/err" </dev/null)
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

# ---- config.yaml
printf 'version: 1\nmemory: 512m\ntimeout: 5m\nvolumes: ["%s:~/beside:ro"]\nenv: [GREETING=hello]\n' \
	"$scratch/beside" >"$config"
chmod 644 "$config"
run "$matchlock" run --dry-run -- true
[ "$status" -eq 0 ] && [[ $out == *"512 MiB"* && $out == *"5 min"* && $out == *"$scratch/beside at"* ]]
ok "config.yaml sets what is not said" $?
run "$matchlock" run --dry-run --memory 1g --no-timeout -- true
[ "$status" -eq 0 ] && [[ $out == *"1.0 GiB"* && $out != *"5 min"* ]]
ok "flags win" $?
run "$matchlock" run --dry-run --no-config -- true
[ "$status" -eq 0 ] && [[ $out != *"512 MiB"* && $out != *"$scratch/beside"* ]]
ok "--no-config" $?
run "$matchlock" config
[ "$status" -eq 0 ] && [[ $out == *"512m"*"($config:2)"* && $out == *"(default)"* ]]
ok "config tells where settings come from" $?
run "$matchlock" config --json
printf '%s' "$out" | python3 -c '
import json, sys
settings = json.load(sys.stdin)
assert settings["memory"]["value"] == "512m" and settings["memory"]["from"].endswith("config.yaml:2")
assert settings["env"]["value"] == ["GREETING=hello"] and settings["engine"]["from"] == "default"'
ok "config --json" $?
usage "a file that is not there" "missing.yaml: No such file" run --config missing.yaml --dry-run -- true
chmod 666 "$config"
usage "a file that others can write" "chmod go-w $config" run --dry-run -- true
chmod 644 "$config"
printf 'version: 1\nmemroy: 1g\n' >"$scratch/bad.yaml"
usage "an unknown key" "bad.yaml:2: memroy: unknown key; did you mean memory?" \
	run --config "$scratch/bad.yaml" --dry-run -- true
usage "its directory is never mounted writable" "configuration directory" \
	run -v "${config%/*}:/mnt" --dry-run -- true

mkdir -p "$XDG_CACHE_HOME/matchlock/snapshots"
usage "nor is the cache with kernels and stored guests" "from whose kernels and stored guests" \
	run -v "$XDG_CACHE_HOME/matchlock/snapshots:/mnt" --dry-run -- true

# ---- .matchlock.yaml
printf 'version: 1\ndeny: ["*.pem"]\nreadonly: [/docs]\nmemory: 384m\nrollback_on_exit: true\n' >.matchlock.yaml
run "$matchlock" run --workspace . --dry-run -- true
[ "$status" -eq 0 ] && [[ $out == *"512 MiB"* && $out == *"is ignored"*"matchlock trust $scratch/project"* ]]
ok "a project's file is ignored, and says so" $?
run "$matchlock" trust --show
[ "$status" -eq 0 ] && [[ $out == *"'*.pem'"*"at most 384 MiB"*ignored* ]] && [ ! -e "$scratch/state/matchlock/trust" ]
ok "trust --show only shows" $?
run "$matchlock" trust .
[ "$status" -eq 0 ] && [[ $out == *"It is trusted"* ]] &&
	[ "$(stat -c %a "$scratch"/state/matchlock/trust/*.json)" = 600 ]
ok "trust" $?
run "$matchlock" trust --list --json
[[ $(printf '%s' "$out" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["state"])') == trusted ]]
ok "trust --list --json" $?
run "$matchlock" run --workspace . --memory 2g --keep-on-success --dry-run -- true
[ "$status" -eq 0 ] && [[ $out == *"384 MiB"* && $out == *"when the command ends"* && $out == *"2 rules of"* ]]
ok "a trusted file tightens" $?
echo '# another byte' >>.matchlock.yaml
run "$matchlock" run --workspace . --dry-run -- true
[ "$status" -eq 0 ] && [[ $out == *"512 MiB"* && $out == *"CHANGED"*"matchlock trust"* ]]
ok "a changed file is ignored again" $?
run "$matchlock" trust --list
[[ $out == changed* ]]
ok "trust --list tells that it changed" $?
mkdir "$scratch/other"
printf 'version: 1\nallow: ["/.git/hooks/**"]\n' >"$scratch/other/.matchlock.yaml"
usage "a file that opens something cannot be trusted" ".matchlock.yaml:2: allow: a project's file may only take away" \
	trust "$scratch/other"
usage "a project without a file" "has no .matchlock.yaml" trust "$scratch/beside"

# ---- in a VM
"$matchlock" trust . >/dev/null || exit 1
echo key >secret.pem
echo text >docs/page
echo seen >"$scratch/beside/given"
echo hidden >"$scratch/beside/sibling"
echo before >"$scratch/beside/changed"
tree=$(find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
run "$matchlock" run --no-policy --workspace . --allow-write .matchlock.yaml -v "$scratch/beside/given:~/one/given:ro" \
	-v "$scratch/beside/changed:/opt/two/changed" -- sh -c '
	echo "greeting $GREETING"
	cat ~/one/given
	ls -A ~/one /opt/two | tr "\n" " "; echo
	(echo x >>~/one/given) 2>/dev/null && echo BAD written
	echo after >>/opt/two/changed && cat /opt/two/changed
	echo new >/opt/two/new
	mv /opt/two/new /opt/two/changed 2>/dev/null && echo BAD replaced
	rm -f /opt/two/changed 2>/dev/null && echo BAD removed
	cat secret.pem 2>/dev/null && echo BAD read
	(echo x >docs/new) 2>/dev/null && echo BAD docs
	cat docs/page
	# A write that is refused late shows when the file is closed.
	echo "version: 1" | dd of=.matchlock.yaml conv=notrunc,fsync 2>/dev/null && echo BAD project
	mv .matchlock.yaml gone 2>/dev/null && echo BAD project moved
	echo change >ordinary && echo done'
[ "$status" -eq 0 ] && [[ $out == *"greeting hello"*"seen"* && $out == *"done" ]]
ok "a session with all of it" $?
[[ $out != *BAD* ]]
ok "nothing that is refused was granted" $?
[[ $out == *"/one: given "* && $out == *"/opt/two: changed "* && $out != *sibling* && $out != *hidden* ]]
ok "a single file comes without its siblings" $?
[[ $out == *before*after*text* ]]
ok "a writable single file is written in place" $?
[ "$(cat "$scratch/beside/changed")" = before ] && [ "$(ls "$scratch/beside")" = $'changed\ngiven\nsibling' ] &&
	[ "$(find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)" = "$tree" ]
ok "the roll-back that the project asks for, of the single file too" $?
run "$matchlock" audit show last --kind policy
[[ $out == *"built-in + .matchlock.yaml"* ]]
ok "the log names both policies" $?
run "$matchlock" audit show last --denied
[[ $out == *".matchlock.yaml:3 readonly /docs"* && $out == *"readonly /.matchlock.yaml"* && $out == *"no flag does"* &&
	$out != *"hint=--allow-write"* ]]
ok "denials name the project's rule, and promise no flag" $?

echo '# one more' >>.matchlock.yaml
run "$matchlock" run -q --workspace . -- true
[ "$status" -eq 0 ] && [[ $err == *CHANGED* ]]
ok "that trust is lost is told even with -q" $?

# ---- a home directory as workspace: the next session's configuration cannot be planted
rm -rf "$HOME"
mkdir "$HOME"
run "$matchlock" run -q --workspace "$HOME" -- sh -c '
	mkdir -p evil/matchlock && echo "version: 1" >evil/matchlock/config.yaml
	ln -s evil .config && echo BAD
	mv evil .config && echo BAD
	mkdir .config
	ln -s ../evil/matchlock .config/matchlock && echo BAD
	mkdir .config/matchlock && echo BAD
	mv evil/matchlock .config/matchlock && echo BAD
	echo done'
[ "$status" -eq 0 ] && [ "$out" = "done" ] && [ ! -e "$HOME/.config/matchlock" ]
ok "config.yaml cannot be planted from inside" $?

echo "1..$count"
exit $failed
