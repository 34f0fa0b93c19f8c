#!/bin/bash
# Exec without a VM: guest-init's exec server as an ordinary process over Unix sockets, and the
# host's side of it. EXEC_MIB sets how much is sent each way (default 128).
#
# The single-quoted commands are meant for the shell that exec_host starts.
# shellcheck disable=SC2016
set -u
build=${MATCHLOCK_BUILD:-build/release}
mib=${EXEC_MIB:-128}
host=$build/tests/e2e/exec_host

# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
wait_gone() { # PID
	local i
	for ((i = 0; i < 100; i++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.1
	done
	return 1
}
wait_for() { # FILE: until it has something in it
	local i
	for ((i = 0; i < 100; i++)); do
		[ ! -s "$1" ] || return 0
		sleep 0.1
	done
	return 1
}
run() {
	timeout 120 "$host" "$@"
}

[ -x "$host" ] || skip_all "$host is not built"
work=$(mktemp -d /tmp/matchlock-exec-XXXXXX)
# One that is killed leaves its sockets.
export TMPDIR=$work
trap 'rm -rf "$work"' EXIT

# Exit status.
run -- true
same "status 0" 0 $?
run -- sh -c 'exit 42'
same "status 42" 42 $?
run -- sh -c 'kill -9 $$'
same "SIGKILL is 137" 137 $?
run -- sh -c 'kill -TERM $$'
same "SIGTERM is 143" 143 $?
run -- no-such-command 2>/dev/null
same "a command that is not there is 127" 127 $?
run -- /etc/passwd 2>/dev/null
same "a command that cannot be run is 126" 126 $?
run -C /no/such/directory -- true 2>"$work/text"
same "a working directory that is not there is 126" 126 $?
grep -q 'working directory' "$work/text"
ok "and the message names it" $?
printf 'echo script ran\n' >"$work/script"
chmod +x "$work/script"
same "a script without #! runs in the shell" "script ran" "$(run -- "$work/script")"

# Streams.
run -- sh -c 'echo out; echo err >&2' >"$work/out" 2>"$work/err"
same "standard output is its own" out "$(cat "$work/out")"
same "standard error is its own" err "$(cat "$work/err")"
same "without -i standard input is empty" "" "$(echo words | run -- cat)"
same "with -i it is relayed, and its end too" words "$(echo words | run -i -- cat)"
same "input from a file" words "$(echo words >"$work/in"; run -i -- cat <"$work/in")"
run -- sh -c 'echo a; echo b' >>"$work/out"
same "output is appended to a file" "out a b" "$(tr '\n' ' ' <"$work/out" | sed 's/ $//')"
head -c 1M /dev/urandom >"$work/random"
run -i -- cat <"$work/random" >"$work/back"
cmp -s "$work/random" "$work/back"
ok "binary data is unharmed" $?
same "the output's end is seen after half-close" 3 "$(printf 'c\na\nb\n' | run -i -- sort | wc -l)"
run -- sh -c 'exec >&-; sleep 0.1; exit 3' >/dev/null
same "a command may close its output and go on" 3 $?
same "a command that reads no input" 0 "$(yes | run -i -- true; echo "${PIPESTATUS[1]}")"
same "a reader that goes away gives SIGPIPE" "y 141" \
	"$({ run -- yes | head -n 1; echo "${PIPESTATUS[0]}"; } | tr '\n' ' ' | sed 's/ $//')"
same "/dev/stdout can be opened again" reopened "$(run -- sh -c 'echo reopened >/dev/stdout')"

sum=$(head -c "${mib}M" /dev/zero | tr '\0' 'x' | sha256sum)
same "$mib MiB in" "$sum" "$(head -c "${mib}M" /dev/zero | tr '\0' 'x' | run -i -- sha256sum)"
same "$mib MiB out" "$sum" "$(run -- sh -c "head -c ${mib}M /dev/zero | tr '\\0' x" | sha256sum)"
same "$mib MiB through" "$sum" \
	"$(head -c "${mib}M" /dev/zero | tr '\0' 'x' | run -i -- cat | sha256sum)"
run -- sh -c "head -c ${mib}M /dev/zero & head -c ${mib}M /dev/zero >&2; wait" \
	2> >(wc -c >"$work/err") | wc -c >"$work/out"
wait_for "$work/err"
same "$mib MiB on both outputs" "$((mib << 20)) $((mib << 20))" \
	"$(cat "$work/out") $(cat "$work/err")"
same "a slow reader loses nothing" "$((8 << 20))" \
	"$(run -- head -c 8M /dev/zero | { sleep 1; cat; } | wc -c)"
same "output at the moment of the exit is kept" 200 \
	"$(for _ in $(seq 1 20); do run -- sh -c 'seq 1 10; exit 1'; done | wc -l)"

# What surrounds the command.
same "environment is the request's alone" "A=b" "$(run -e A=b -- env | grep -v ^PATH= | sort | tr '\n' ' ' |
	sed 's/ $//')"
same "umask" 0077 "$(run -m 077 -- sh -c umask)"
same "working directory" /usr/lib "$(run -C /usr/lib -- pwd)"
same "no descriptors but the three" "0 1 2" "$(run -- sh -c 'cd /proc/self/fd; echo [0-2] ; ls | wc -l >&2' 2>/dev/null)"
same "signals are handled as by default" 0000000000000000 \
	"$(run -- sh -c 'sed -n "s/^SigIgn:\t//p" /proc/self/status')"
if [ "$(id -u)" = 0 ]; then
	same "another user" "65534 65534" "$(run -u 65534 -g 65534 -- sh -c 'echo $(id -u) $(id -g)')"
else
	out=$(run -u 65534 -g 65534 -- id 2>/dev/null)
	same "a user that one may not become" "125 " "$? $out"
fi

# Processes.
run -- sh -c 'sleep 1000 & echo $! >"$0"; echo started' "$work/pid" >/dev/null
wait_gone "$(cat "$work/pid")"
ok "what is left in the background is killed when the command ends" $?
run --timeout 300 -- sh -c 'echo $$ >"$0"; sleep 1000 & sleep 1000' "$work/pid" 2>/dev/null
same "a command whose time is up is 124" 124 $?
wait_gone "$(cat "$work/pid")"
ok "and is gone" $?
rm -f "$work/pid"
"$host" -- sh -c 'sleep 1000 & echo $! >"$0"; sleep 1000' "$work/pid" &
pid=$!
wait_for "$work/pid"
kill -9 "$pid"
wait "$pid" 2>/dev/null
wait_gone "$(cat "$work/pid")"
ok "the tree is killed when the client is" $?
rm -f "$work/pid"
"$host" -- sh -c 'trap "exit 9" TERM; echo $$ >"$0"; while :; do sleep 0.1; done' "$work/pid" &
pid=$!
wait_for "$work/pid"
kill -TERM "$pid"
wait "$pid"
same "SIGTERM reaches the command" 9 $?
rm -f "$work/pid"
# A shell's background job ignores SIGINT; env puts it back.
env --default-signal=INT "$host" -- sh -c 'echo $$ >"$0"; sleep 1000' "$work/pid" &
pid=$!
wait_for "$work/pid"
kill -INT "$pid"
wait "$pid"
same "SIGINT reaches the command" 130 $?
rm -f "$work/pid"
"$host" -- sh -c 'trap "" TERM INT; echo $$ >"$0"; while :; do sleep 0.1; done' "$work/pid" &
pid=$!
wait_for "$work/pid"
for _ in 1 2 3; do
	kill -TERM "$pid"
	sleep 0.2
done
wait "$pid"
same "the third SIGTERM kills what ignores it" 137 $?

# A pty.
pty() { # SCRIPT for expect
	expect -c "
		set timeout 20
		log_user 0
		proc want {pattern} {
			expect {
				-re \$pattern {}
				timeout { puts \"no \$pattern\"; exit 1 }
				eof { puts \"end before \$pattern\"; exit 1 }
			}
		}
		proc finish {} {
			expect {
				eof {}
				timeout { puts \"no end\"; exit 1 }
			}
			exit [lindex [wait] 3]
		}
		$1
	"
}
if command -v expect >/dev/null; then
	pty "spawn $host -i -t -- sh; want {[#$] \$}; send \"tty\r\"; want /dev/pts/
		send \"stty size\r\"; want {[0-9]+ [0-9]+}
		stty rows 33 columns 99 < \$spawn_out(slave,name)
		sleep 0.5; send \"stty size\r\"; want {33 99}
		send \"sleep 1000\r\"; sleep 0.5; send \"\003\"; want {[#$] \$}
		send \"exit 5\r\"; finish"
	same "pty: size, resize, Ctrl-C, status" 5 $?
	pty "spawn $host -i -t -- cat; send \"words\r\"; want {words.*words}
		send \"\004\"; finish"
	same "pty: echo and Ctrl-D" 0 $?
	pty "spawn $host -i -t -- bash --norc; want {[#$] \$}; send \"sleep 1000\r\"; sleep 0.5
		send \"\032\"; want Stopped; send \"jobs\r\"; want {sleep 1000}
		send \"fg\r\"; want {sleep 1000}; sleep 0.5; send \"\003\"; want {[#$] \$}
		send \"exit 0\r\"; finish"
	same "pty: job control" 0 $?
	pty "spawn sh; want {[#$] \$}; send \"stty -a >$work/before; $host -i -t -- true; stty -a >$work/after; echo do''ne\r\"
		want done; send \"exit\r\"; finish"
	cmp -s "$work/before" "$work/after"
	ok "the terminal is as it was" $?
	pty "spawn sh; want {[#$] \$}; send \"$host -i -t --timeout 300 -- sleep 1000; stty -a >$work/after; echo do''ne\r\"
		want done; send \"exit\r\"; finish"
	cmp -s "$work/before" "$work/after"
	ok "also when the command was killed" $?
else
	skip pty "expect is not installed"
fi
same "pty: the end of a pipe is the end of input" words "$(echo words | run -i -t -- cat | head -n 1 | tr -d '\r')"
same "pty: no output is lost at the exit" 20000 "$(run -t -- seq 1 20000 | wc -l)"

finish
