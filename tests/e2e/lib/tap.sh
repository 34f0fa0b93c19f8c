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

finish() {
	echo "1..$count"
	exit "$failed"
}
