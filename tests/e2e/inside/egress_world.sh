#!/bin/bash
# What tests/e2e/egress_world.sh runs in the guest. Prints TAP.
#
#   egress_world.sh SHARED
set -u
shared=$1
cd "$(mktemp -d)" || exit 1
export HOME=$PWD

count=0
same() { # DESCRIPTION WANTED GOT
	count=$((count + 1))
	if [ "$2" = "$3" ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf '# wanted: %s\n# got:    %s\n' "$2" "$(head -c 600 <<<"$3")"
	fi
}

same "HTTP by a name that is looked up" hello "$(curl -sS -m 120 http://good.test/hello 2>&1)"
same "HTTPS" hello "$(curl -sS -m 120 https://good.test/hello 2>&1)"
same "HTTP/2" "2 hello" "$(curl -sS -m 120 --http2 -w '%{http_version} ' -o hello https://good.test/hello 2>&1)$(cat hello)"
same "git clone" "a commit" "$(git clone -q https://good.test/repository.git 2>&1 && git -C repository log --format=%s)"
curl -sS -m 120 -o "$shared/blob" https://good.test/blob
same "a name that leads to a private address is refused, and why" "403 address_blocked" \
	"$(curl -sS -m 120 -o /dev/null -D - http://private.test/hello | tr -d '\r' | awk 'NR == 1 { status = $2 }
		tolower($1) == "matchlock-error:" || tolower($1) == "matchlock-denied:" { print status, $2 }')"
same "so is a name that does not exist" "502 name_not_found" \
	"$(curl -sS -m 120 -o /dev/null -D - http://a.dns.test/ | tr -d '\r' | awk 'NR == 1 { status = $2 }
		tolower($1) == "matchlock-error:" || tolower($1) == "matchlock-denied:" { print status, $2 }')"
same "one that is not allowed is a 403" 403 "$(curl -sS -m 120 -o /dev/null -w '%{http_code}' http://secret-data.evil.test/ 2>&1)"
getent ahostsv4 other.secret-data.evil.test >/dev/null
same "and resolves all the same" 0 $?
echo "1..$count"
