# shellcheck shell=bash
# Two network namespaces: the caller's own is "the host", 93.184.216.1 and 2606:2800:220:1::1, and
# "the world" lies behind its only route. $work is a directory of the test's, whose `world` is
# mounted on. For tests inside namespaces of users, networks and mounts, which they may change.

# shellcheck disable=SC2154
in_world() { nsenter --net="$work/world" "$@"; }

# The world has every address that the attacker may name; routes lead there for all of them.
build_network() {
	touch "$work/world"
	unshare --net sh -c "mount --bind /proc/self/ns/net '$work/world'" || return 1
	ip link add host0 type veth peer name world0 netns "$work/world" || return 1
	sysctl -qw net.ipv6.conf.host0.accept_dad=0 2>/dev/null
	ip link set lo up
	ip address add 93.184.216.1/24 dev host0
	ip address add 2606:2800:220:1::1/64 dev host0 nodad
	ip link set host0 up
	in_world ip link set lo up
	in_world ip address add 93.184.216.34/24 dev world0
	in_world ip address add 2606:2800:220:1::34/64 dev world0 nodad
	in_world ip link set world0 up
	for address in 10.0.0.1 169.254.169.254; do
		in_world ip address add "$address/32" dev lo
	done
	for address in 64:ff9b::a00:1 2002:a00:1::1; do
		in_world ip address add "$address/128" dev lo nodad
	done
	ip route add default via 93.184.216.34
	ip -6 route add default via 2606:2800:220:1::34
}
