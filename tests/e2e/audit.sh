#!/usr/bin/env bash
# The audit process as it runs: real producers, a real log, and the attacks on it. Prints TAP.
set -u
build=${MATCHLOCK_BUILD:-build/release}
audit=$build/matchlock-audit
producer=$build/tests/e2e/audit_producer
scratch=$(mktemp -d /tmp/audit-e2e-XXXXXX) || exit 1
trap 'rm -rf "$scratch"' EXIT

if ! [ -x "$audit" ] || ! [ -x "$producer" ]; then
	echo "not ok 1 - $audit and $producer are built"
	echo "1..1"
	exit 1
fi
count=0
failed=0
# check TEXT COMMAND...: one test
check() {
	local text=$1
	shift
	count=$((count + 1))
	if "$@"; then
		echo "ok $count - $text"
	else
		echo "not ok $count - $text"
		failed=1
	fi
}

# session NAME SCENARIO PRODUCERS EVENTS [MAX_BYTES]: runs one; $log, $status and $said are its own
session() {
	local directory=$scratch/$1
	shift
	mkdir -m 700 "$directory"
	log=$directory/audit.jsonl
	said=$("$producer" "$audit" "$directory" "$@" 2>"$directory/stderr")
	status=$?
}

wait_for_log() { # at most ten seconds
	local i
	for ((i = 0; i < 500; i++)); do
		[ -s "$1" ] && return 0
		sleep 0.02
	done
	return 1
}

# verify LOG: $verdict and $verified
verify() {
	verdict=$("$audit" verify --log "$1" 2>&1)
	verified=$?
}

# tamper NAME SED-SCRIPT: a copy of the session "base" with a changed log, verified
tamper() {
	rm -rf "${scratch:?}/$1"
	cp -r "$scratch/base" "$scratch/$1"
	sed "$2" "$scratch/base/audit.jsonl" >"$scratch/$1/audit.jsonl"
	verify "$scratch/$1/audit.jsonl"
}

is_bad_at() { # RECORD REASON
	[ "$verified" -eq 1 ] && [[ $verdict == "record $1 is bad: "*"($2)"* ]]
}

has_no_control_characters() {
	! LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80\xae' "$1"
}

# ---- writing -----------------------------------------------------------------------------------
session base plain 4 500
verify "$log"
check "concurrent producers: the process ends well" test "$status" -eq 0
check "concurrent producers: all records are there" test "$verdict" = "2002 records, intact"
check "concurrent producers: one verdict for exit" test "$verified" -eq 0
in_order() {
	local i
	for i in 0 1 2 3; do
		"$audit" show --log "$log" --path "src/p$i/*" --json |
			sed 's/.*"bytes":\([0-9]*\),.*/\1/' | cmp -s - <(seq 500) || return 1
	done
}
check "concurrent producers: each one's records are in its order" in_order
check "the first record is the writer's own jail" \
	grep -q '^{"seq":1,.*"kind":"jail","component":"audit","detail":"no-new-privs seccomp(' "$log"
check "the last record is the end of the session" \
	test "$("$audit" show --log "$log" --kind session_end --json)" = "$(tail -n 1 "$log")"

session noend noend 1 3
verify "$log"
check "producers that die leave a closed log all the same" \
	test "$status:$verdict" = "0:5 records, intact"
check "and the end says what happened" grep -q 'without announcing the end' "$log"

session second second 1 0
check "a second writer is refused" test "$said" = "$(printf 'second=1\nstatus=0')"
check "and told why" grep -q 'already has a writer' "$scratch/second/stderr"

locked_up() { # what the kernel says about the running process
	local directory=$scratch/locked state
	mkdir -m 700 "$directory"
	mkfifo "$directory.held"
	"$producer" "$audit" "$directory" hold 1 0 <"$directory.held" >/dev/null 2>&1 &
	exec 8>"$directory.held"
	wait_for_log "$directory/audit.jsonl"
	state=$(cat "/proc/$(pgrep -P $! | head -n 1)/status")
	exec 8>&-
	wait $!
	grep -q '^Seccomp:.2$' <<<"$state" && grep -q '^NoNewPrivs:.1$' <<<"$state" &&
		grep -q '^CapEff:.0*$' <<<"$state" && grep -q '^CapPrm:.0*$' <<<"$state"
}
check "the running process is under seccomp and has no capability" locked_up

session flood flood 3 30000
flood_is_fair() {
	# The neighbours' 20 denials are in the log long before the flood of 30,000 is.
	local last
	last=$("$audit" show --log "$log" --denied --json | tail -n 1 | sed 's/{"seq":\([0-9]*\).*/\1/')
	[ "$("$audit" show --log "$log" --denied --json | wc -l)" -eq 20 ] && [ "$last" -lt 30000 ]
}
check "a flooding producer does not starve the others" flood_is_fair

session quota plain 2 5000 100000
verify "$log"
check "over the quota mutations are counted, and the log stays whole" \
	test "$status:$verified" = "0:0"
accounted() {
	local written missing
	written=$(grep -c '"kind":"mutation"' "$log")
	missing=$(sed -n 's/.*log quota: \([0-9]*\) mutations were not written.*/\1/p' "$log")
	[ $((written + missing)) -eq 10000 ] && [ "$(stat -c %s "$log")" -lt 102000 ]
}
check "written and counted mutations add up" accounted

# ---- killed ------------------------------------------------------------------------------------
session kill kill 3 20000
verify "$log"
check "kill -9: the process is gone" test "$status" -eq 137
check "kill -9: the log verifies up to the last complete record" test "$verified" -eq 0
check "kill -9: and verify says that it is not closed" \
	test -n "$(grep -E '^[0-9]+ records, intact; not closed' <<<"$verdict")"
# The writer may have died in the middle of a record; what comes next wants whole ones to begin with.
tail -c 1 "$log" | cmp -s - <(echo) || truncate -s "-$(tail -n 1 "$log" | wc -c)" "$log"
whole=$(wc -l <"$log")
truncate -s -20 "$log"
printf '{"seq":1,"mono' >>"$log"
printf '{"seq":%d,"hash":"%064d","closed":false}' 0 0 | awk '{ printf "%-127s\n", $0 }' \
	>"$scratch/kill/audit.head"
half=$(tail -n 1 "$log" | wc -c)
verify "$log"
check "half a record behind the head is the killed writer's, and named" \
	test "$verified:${verdict%% bytes*}" = "0:$((whole - 1)) records, intact; not closed, and $half"
session_again() { # a new writer mends and continues the log
	said=$("$producer" "$audit" "$scratch/kill" plain 1 10 2>&1)
	verify "$log"
	[ "$verified" -eq 0 ] && [ "$verdict" = "$((whole - 1 + 13)) records, intact" ] &&
		grep -q "cut off $half bytes of an incomplete record" "$log"
}
check "a new writer cuts it off, says so and goes on" session_again

# ---- tampered with -----------------------------------------------------------------------------
tamper edit '1000s/src/SRC/'
check "an edited record is found" is_bad_at 1000 link
tamper editlast '$s/command ended/command failed/'
check "an edited last record is found" is_bad_at 2002 link
tamper delete '1000d'
check "a deleted record is found" is_bad_at 1000 sequence
tamper deletelast '$d'
check "a deleted last record is found" is_bad_at 2002 missing
tamper truncate '1500,$d'
check "a truncated log is found" is_bad_at 1500 missing
tamper swap '1000{h;d};1001G'
check "reordered records are found" is_bad_at 1000 sequence
tamper replay '1000p'
check "a replayed record is found" is_bad_at 1001 sequence
tamper renumber '1000{p;s/"seq":1000/"seq":1001/};1001,$d'
check "a replayed and renumbered record is found" is_bad_at 1000 link
tamper garbage '1000s/"kind"/"kinds"/'
check "a line that is no record is found" is_bad_at 1000 parse
cp "$scratch/base/audit.jsonl" "$scratch/edit/audit.jsonl"
truncate -s -30 "$scratch/edit/audit.jsonl"
verify "$scratch/edit/audit.jsonl"
check "half a last record is found" is_bad_at 2002 truncated
cp "$scratch/base/audit.jsonl" "$scratch/edit/audit.jsonl"
cat "$scratch/base/audit.jsonl" >>"$scratch/edit/audit.jsonl"
verify "$scratch/edit/audit.jsonl"
check "records after the end are found" is_bad_at 2003 after-end
rm "$scratch/edit/audit.head"
verify "$scratch/edit/audit.jsonl"
check "a log without its head does not pass" test "$verified" -eq 1
check "verify --json names the record too" grep -q '"intact":false,"reason":"missing","records":2001,"first_bad":2002' \
	<<<"$("$audit" verify --log "$scratch/deletelast/audit.jsonl" --json)"
rewritten=$("$audit" verify --log "$scratch/base/audit.jsonl" --json | sed 's/.*"hash":"\([0-9a-f]*\)".*/\1/')
"$audit" verify --log "$scratch/base/audit.jsonl" --expect "$rewritten" >/dev/null
check "a log with the hash that was noted passes" test $? -eq 0
"$audit" verify --log "$scratch/noend/audit.jsonl" --expect "$rewritten" >/dev/null
check "a log rewritten as a whole does not" test $? -eq 1

# ---- hostile names and datagrams ---------------------------------------------------------------
session hostile hostile 2 0
verify "$log"
check "hostile datagrams and names: the log is intact" test "$status:$verified" = "0:0"
check "the log holds no control character" has_no_control_characters "$log"
"$audit" show --log "$log" >"$scratch/table"
"$audit" show --log "$log" --json >"$scratch/json"
check "the table holds none" has_no_control_characters "$scratch/table"
check "the JSON holds none" has_no_control_characters "$scratch/json"
check "no markup in the log" test -z "$(grep '<script' "$log")"
check "each name is one row" test "$(grep -c ' denial ' "$scratch/table")" -eq 20
check "bytes that are no UTF-8 are marked and kept" \
	grep -q '"path":"not-utf8-\\\\xff\\\\xfe".*"escaped":\["path"\]' "$log"
check "each malformed datagram is a violation that names its source" \
	test "$(grep -c '"kind":"violation".*source 1 sent' "$log")" -ge 5
cp -r "$scratch/hostile" "$scratch/raw"
printf '{"seq":1,"kind":"\033[2J\007"}\n' >>"$scratch/raw/audit.jsonl"
"$audit" show --log "$scratch/raw/audit.jsonl" >"$scratch/table" 2>&1
"$audit" show --log "$scratch/raw/audit.jsonl" --json >>"$scratch/table" 2>&1
check "a raw escape planted in the log itself does not reach the output" \
	has_no_control_characters "$scratch/table"

# ---- showing -----------------------------------------------------------------------------------
log=$scratch/base/audit.jsonl
lines() { # COUNT ARGUMENT...
	local wanted=$1
	shift
	[ "$("$audit" show --log "$log" --json "$@" | wc -l)" -eq "$wanted" ]
}
check "show: everything" lines 2002
check "show: by path" lines 10 --path 'src/p2/file-1?.c'
check "show: * also crosses directories" lines 4 --path '*/file-77.c'
check "show: by kind" lines 2 --kind jail --kind session_end
check "show: denials only" lines 0 --denied
check "show: since an hour ago" lines 2002 --since 1h
check "show: since tomorrow" lines 0 --since "$(date -u -d tomorrow +%Y-%m-%dT%H:%M:%SZ)"
aligned() {
	"$audit" show --log "$log" | awk '{ print index($0, "mutation") }' | sort -u | tr '\n' ' ' |
		grep -qx '0 36 '
}
check "show: columns are aligned" aligned
check "show: no colour into a pipe" test -z "$("$audit" show --log "$log" | grep $'\033')"
check "show --follow ends with the writer" \
	test "$(timeout 20 "$audit" show --log "$log" --follow --json | wc -l)" -eq 2002
follows() { # rows appear while the session runs
	local directory=$scratch/follow rows holder session
	mkdir -m 700 "$directory"
	mkfifo "$directory.held"
	"$producer" "$audit" "$directory" hold 1 0 <"$directory.held" >/dev/null 2>&1 &
	session=$!
	sleep 600 >"$directory.held" &
	holder=$!
	wait_for_log "$directory/audit.jsonl"
	# It ends when its first rows have been seen.
	rows=$(timeout 60 "$audit" show --log "$directory/audit.jsonl" --follow --json | {
		read -r _ && read -r _
		kill "$holder"
		echo $((2 + $(wc -l)))
	})
	wait "$session"
	[ "$rows" -eq 3 ]
}
check "show --follow sees what is written meanwhile" follows
head_closes() { "$audit" show --log "$log" | head -n 1 >/dev/null && [ "${PIPESTATUS[0]}" -eq 0 ]; }
check "show: a reader that has seen enough is no failure" head_closes

# ---- usage -------------------------------------------------------------------------------------
usage() { # ARGUMENT...: exit status 2 and a word on standard error
	local told
	told=$("$audit" "$@" 2>&1 >/dev/null)
	[ $? -eq 2 ] && [ -n "$told" ]
}
check "usage: nothing" usage
check "usage: unknown command" usage burn
check "usage: show without a log" usage show
check "usage: unknown kind" usage show --log "$log" --kind nothing
check "usage: bad time" usage show --log "$log" --since yesterday-ish
check "usage: bad hash" usage verify --log "$log" --expect abc
check "usage: serve without descriptors" usage serve --session x
check "usage: serve with a wrong number" usage serve --directory-fd x --source-fd 3
not_there() { "$audit" verify --log "$scratch/none.jsonl" 2>/dev/null; [ $? -eq 1 ]; }
check "a log that is not there is a failure, not a usage error" not_there
wrong_descriptor() { "$audit" serve --directory-fd 3 --source-fd 4 3<"$log" 4<"$log" 2>/dev/null; [ $? -eq 1 ]; }
check "serve refuses descriptors of the wrong kind" wrong_descriptor

# ---- speed, told and not judged ----------------------------------------------------------------
session speed plain 1 100000
echo "# 100,000 events: $(sed -n 's/.*ns_per_event=//p' <<<"$said") ns each as the producer sees it"
start=$(date +%s%N)
verify "$log"
middle=$(date +%s%N)
sha256sum "$log" >/dev/null
end=$(date +%s%N)
echo "# verify $(((middle - start) / 1000)) us, sha256sum $(((end - middle) / 1000)) us"
check "100,000 events arrive" test "$verdict" = "100002 records, intact"

echo "1..$count"
exit $failed
