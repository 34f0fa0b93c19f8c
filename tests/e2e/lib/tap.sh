# shellcheck shell=bash
# TAP for the shell tests that source this: results are counted in `count`, and `failed` is 1 once
# one was bad. finish ends the test.
count=0
failed=0

ok() { # DESCRIPTION CONDITION-STATUS
	count=$((count + 1))
	if [ "$2" = 0 ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		failed=1
	fi
}

same() { # DESCRIPTION WANTED GOT
	[ "$2" = "$3" ]
	ok "$1" $?
	[ "$2" = "$3" ] || printf '# wanted: %s\n# got:    %s\n' "$2" "$3"
}

skip() { # DESCRIPTION WHY
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}

skip_all() { # WHY
	echo "1..0 # SKIP $1"
	exit 0
}

replay() { # NAME COMMAND...: another test, whose results become this one's
	local name=$1 line status=0 planned=0 before=$count
	shift
	while IFS= read -r line; do
		case $line in
		"ok "*"# SKIP "*) skip "$name: $(sed 's/^ok [0-9]* - //; s/ *# SKIP.*//' <<<"$line")" "${line#*# SKIP }" ;;
		"ok "*) ok "$name: ${line#ok * - }" 0 ;;
		"not ok "*) ok "$name: ${line#not ok * - }" 1 ;;
		"1.."*) planned=${line#1..} ;;
		"replay-status "*) status=${line#replay-status } ;;
		"" | "#"*) [ -z "$line" ] || echo "$line" ;;
		*) echo "# $line" ;;
		esac
	done < <(
		"$@" 2>&1 </dev/null
		printf '\nreplay-status %d\n' $?
	)
	same "$name: ends with status 0, having run what it planned" "0 $planned" \
		"$status $((count - before))"
}

finish() {
	echo "1..$count"
	exit "$failed"
}
