#!/usr/bin/env bash
# A session on a network of its own, from a guest's curl and git through the broker to nginx, with
# nothing pinned: names are looked up on a name server of the test's, which notes who asks for
# what, and lead to public addresses, which "the world" has, another network namespace. What the
# guest does is in inside/egress_world.sh.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
# shellcheck source=tests/e2e/lib/two_networks.sh
. tests/e2e/lib/two_networks.sh

build=${MATCHLOCK_BUILD:-build/release}
if [ "${1:-}" != inside ]; then
	for program in curl git openssl nginx; do
		command -v "$program" >/dev/null || skip_all "$program is not installed"
	done
	for program in matchlock matchlock-proxy initramfs.cpio; do
		[ -e "$build/$program" ] || skip_all "$build/$program is not built"
	done
	unshare --user --map-root-user --net --mount true 2>/dev/null ||
		skip_all "no namespaces of users and networks here"
	exec unshare --user --map-root-user --net --mount --pid --fork --kill-child --mount-proc "$0" inside
fi

work=$(mktemp -d /tmp/matchlock-world-XXXXXX)
world=()
# shellcheck disable=SC2317 # by the trap
cleanup() {
	[ ${#world[@]} -eq 0 ] || kill "${world[@]}" 2>/dev/null
	wait 2>/dev/null
	umount "$work/world" /etc/resolv.conf 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
export XDG_STATE_HOME=$work/state XDG_RUNTIME_DIR=$work/run XDG_CONFIG_HOME=$work/config
mkdir -m 700 "$XDG_RUNTIME_DIR"
mkdir "$work/web" "$work/shared"
build_network || skip_all "no virtual network here"
echo "nameserver 93.184.216.34" >"$work/resolv.conf"
mount --bind "$work/resolv.conf" "$(readlink -f /etc/resolv.conf)" || skip_all "/etc/resolv.conf cannot be mounted on"

# ---- the world ---------------------------------------------------------------------------------
certificates() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=test authority' \
		-keyout "$work/ca.key" -out "$work/ca.pem" &&
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=good.test' \
			-keyout "$work/server.key" -out "$work/server.csr" &&
		openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 2 \
			-extfile <(echo 'subjectAltName=DNS:good.test') -out "$work/server.pem"
}
certificates 2>"$work/openssl.log" || {
	cat "$work/openssl.log"
	exit 1
}
echo hello >"$work/web/hello"
head -c 4000000 /dev/urandom >"$work/web/blob"
git init -q -b main "$work/source" &&
	git -C "$work/source" -c user.name=t -c user.email=t@example.test commit -q --allow-empty -m 'a commit' &&
	git clone -q --bare "$work/source" "$work/web/repository.git" &&
	git -C "$work/web/repository.git" update-server-info || exit 1
cat >"$work/nginx.conf" <<CONF
user root; daemon off; master_process off; pid $work/nginx.pid; error_log $work/nginx.log;
events { worker_connections 64; }
http {
	access_log off; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
	fastcgi_temp_path $work/fastcgi; uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
	server {
		listen 93.184.216.34:80;
		listen 10.0.0.1:80;
		listen 93.184.216.34:443 ssl http2;
		ssl_certificate $work/server.pem;
		ssl_certificate_key $work/server.key;
		root $work/web;
	}
}
CONF
in_world nginx -e "$work/nginx.log" -c "$work/nginx.conf" -p "$work" 2>"$work/nginx.errors" &
world+=($!)
mkfifo "$work/ready"
in_world python3 tests/e2e/lib/attacker_network.py 93.184.216.34 8080 93.184.216.34 >"$work/dns.log" 3>"$work/ready" &
world+=($!)
read -r _ <"$work/ready"
for ((i = 0; i < 100; i++)); do
	curl -sS -m 5 http://93.184.216.34/hello >"$work/straight" 2>&1 && break
	sleep 0.1
done
same "the world is there" hello "$(cat "$work/straight")"
sed 's/^/# /' "$work/nginx.errors"
same "private addresses in it, too, for whoever does not look" hello "$(curl -sS -m 5 http://10.0.0.1/hello 2>&1)"

# ---- the session -------------------------------------------------------------------------------
: >"$work/dns.log"
timeout 900 "$build/matchlock" run --engine "${MATCHLOCK_ENGINE:-auto}" --name world --allow-host good.test,private.test \
	--allow-host '*.dns.test' --upstream-ca "$work/ca.pem" -v "$work/shared:/shared" -v "$PWD/tests/e2e/inside:/inside:ro" -- \
	bash /inside/egress_world.sh /shared >"$work/inside" 2>"$work/errors"
same "the session ends with status 0" 0 $?
replay "in the guest" cat "$work/inside"
grep -q '^not ok' "$work/inside" || [ -s "$work/inside" ] || sed 's/^/# /' "$work/errors"
same "what was downloaded is what is there" "$(sha256sum <"$work/web/blob")" "$(sha256sum <"$work/shared/blob")"
same "nobody was asked for names but for those that were allowed and connected to" "a.dns.test good.test private.test" \
	"$(awk '/^dns/ { print $2 }' "$work/dns.log" | sort -u | tr '\n' ' ' | sed 's/ $//')"
"$build/matchlock" audit show world --json --kind request --host good.test | grep -q '"address":"93.184.216.34"'
ok "the log has the address that was connected to" $?
"$build/matchlock" audit show world --json --host private.test | grep -q '"reason":"address_blocked"'
ok "and what was refused for its address" $?
finish
