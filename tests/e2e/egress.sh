#!/bin/bash
# The network of a session from end to end: real clients in a VM, the broker, and servers of this
# test's own on 127.0.0.1, which --add-host lets it reach. The guest's part is
# inside/egress.sh, whose results are counted here, too. EGRESS_MIB is what is uploaded and
# downloaded at once (default 16), EGRESS_CONNECTIONS how many are open together (default 300); with
# EGRESS_BRIEF=1 the clients that come with a language, npm for one, are left out.
set -u
build=${MATCHLOCK_BUILD:-build/release}
matchlock=$build/matchlock

# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh

for program in curl openssl git python3; do
	command -v "$program" >/dev/null || skip_all "$program is not installed"
done
for program in "$matchlock" "$build/matchlock-proxy" "$build/initramfs.cpio"; do
	[ -e "$program" ] || skip_all "$program is not built"
done

work=$(mktemp -d /tmp/matchlock-egress-XXXXXX)
export XDG_STATE_HOME=$work/state XDG_RUNTIME_DIR=$work/run XDG_CONFIG_HOME=$work/config
servers=() session_pid=''
cleanup() {
	[ -z "$session_pid" ] || kill "$session_pid" 2>/dev/null
	[ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
mkdir -m 700 "$XDG_RUNTIME_DIR"
mkdir "$work/web" "$work/shared"
secret="sk-test-$(openssl rand -hex 24)"
echo "$secret" >"$work/secret"

# ---- what is served -----------------------------------------------------------------------------
certificate() { # a CA, a server's certificate for the test's names, and a client's
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=test authority' \
		-keyout "$work/ca.key" -out "$work/ca.pem" &&
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=tls.test' \
			-keyout "$work/server.key" -out "$work/server.csr" &&
		openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 2 \
			-extfile <(echo 'subjectAltName=DNS:tls.test,DNS:mutual.test') -out "$work/server.pem" &&
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=agent' \
			-keyout "$work/client.key" -out "$work/client.csr" &&
		openssl x509 -req -in "$work/client.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 2 -out "$work/client.pem"
}
certificate 2>"$work/openssl.log" || {
	cat "$work/openssl.log"
	exit 1
}
echo hello >"$work/web/hello"

git init -q -b main "$work/source" &&
	git -C "$work/source" -c user.name=t -c user.email=t@example.test commit -q --allow-empty -m 'a commit' &&
	git clone -q --bare "$work/source" "$work/web/repository.git" &&
	git -C "$work/web/repository.git" update-server-info || exit 1
git -C "$work" init -q -b main --bare web/pushed.git || exit 1

python3 "$(dirname "$0")/lib/egress_server.py" "$work/web" "$work/server.pem" "$work/server.key" "$work/ca.pem" \
	"$work/ports" "$work/requests" >"$work/server.log" 2>&1 &
servers+=($!)
ssh-keygen -q -t ed25519 -N '' -C host -f "$work/host_key" && ssh-keygen -q -t ed25519 -N '' -C agent -f "$work/shared/ssh_key" || exit 1
/usr/bin/python3 tests/e2e/lib/ssh_git_server.py "$work/web" "$work/host_key" "$work/shared/ssh_key.pub" "$work/ssh_port" \
	>>"$work/server.log" 2>&1 &
servers+=($!)
/usr/bin/python3 tests/e2e/lib/grpc_echo_server.py "$work/server.pem" "$work/server.key" "$work/grpc_port" >>"$work/server.log" 2>&1 &
servers+=($!)
listening() { # FILE: what a server wrote there once it listens
	local i
	for ((i = 0; i < 200; i++)); do
		[ ! -e "$1" ] || break
		sleep 0.1
	done
	cat "$1" || {
		cat "$work/server.log" >&2
		return 1
	}
}
read -r http https raw mutual < <(listening "$work/ports") || exit 1
ssh=$(listening "$work/ssh_port") && grpc=$(listening "$work/grpc_port") || exit 1
echo "[git.test]:$ssh $(cut -d ' ' -f 1,2 "$work/host_key.pub")" >"$work/shared/known_hosts"

registry() { # what npm, pip, cargo and go want to see, in files
	mkdir -p "$work/web/npm" "$work/web/pip/simple/hello-pip" "$work/package"
	echo '{"name":"hello-npm","version":"1.0.0","main":"index.js"}' >"$work/package/package.json"
	echo 'module.exports = "hello from npm";' >"$work/package/index.js"
	tar -czf "$work/web/npm/hello-npm-1.0.0.tgz" -C "$work" package
	cat >"$work/web/npm/hello-npm" <<-JSON
		{"name":"hello-npm","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"hello-npm","version":"1.0.0",
		"main":"index.js","dist":{"tarball":"https://tls.test:$https/npm/hello-npm-1.0.0.tgz",
		"shasum":"$(sha1sum <"$work/web/npm/hello-npm-1.0.0.tgz" | cut -d ' ' -f 1)"}}}}
	JSON
	python3 - "$work/web/pip/simple/hello-pip" <<-'PYTHON'
		import sys, zipfile
		name = "hello_pip-1.0-py3-none-any.whl"
		with zipfile.ZipFile(sys.argv[1] + "/" + name, "w") as wheel:
		    info = "hello_pip-1.0.dist-info/"
		    wheel.writestr("hello_pip.py", 'text = "hello from pip"\n')
		    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: hello-pip\nVersion: 1.0\n")
		    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
		    wheel.writestr(info + "RECORD", "hello_pip.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n")
		with open(sys.argv[1] + "/index.html", "w") as index:
		    index.write('<!DOCTYPE html><html><body><a href="%s">%s</a></body></html>' % (name, name))
	PYTHON
	mkdir -p "$work/hello-cargo-1.0.0/src" "$work/index/he/ll" "$work/web/go/hello.test/hello/@v"
	printf '[package]\nname = "hello-cargo"\nversion = "1.0.0"\n' >"$work/hello-cargo-1.0.0/Cargo.toml"
	echo 'pub const TEXT: &str = "hello from cargo";' >"$work/hello-cargo-1.0.0/src/lib.rs"
	tar -czf "$work/web/hello-cargo-1.0.0.crate" -C "$work" hello-cargo-1.0.0
	echo '{"name":"hello-cargo","vers":"1.0.0","deps":[],"features":{},"yanked":false,"cksum":"'"$(sha256sum \
		<"$work/web/hello-cargo-1.0.0.crate" | cut -d ' ' -f 1)"'"}' >"$work/index/he/ll/hello-cargo"
	echo '{"dl":"https://tls.test:'"$https"'/{crate}-{version}.crate"}' >"$work/index/config.json"
	git init -q -b master "$work/index" && git -C "$work/index" add . &&
		git -C "$work/index" -c user.name=t -c user.email=t@example.test commit -q -m index &&
		git clone -q --bare "$work/index" "$work/web/index.git"
	python3 - "$work/web/go/hello.test/hello/@v" <<-'PYTHON'
		import sys, zipfile
		module = "module hello.test/hello\n\ngo 1.16\n"
		files = {"list": "v1.0.0\n", "v1.0.0.info": '{"Version":"v1.0.0","Time":"2020-01-01T00:00:00Z"}', "v1.0.0.mod": module}
		for name, text in files.items():
		    with open(sys.argv[1] + "/" + name, "w") as file:
		        file.write(text)
		with zipfile.ZipFile(sys.argv[1] + "/v1.0.0.zip", "w") as source:
		    source.writestr("hello.test/hello@v1.0.0/go.mod", module)
		    source.writestr("hello.test/hello@v1.0.0/hello.go", 'package hello\n\nconst Text = "hello from go"\n')
	PYTHON
}
registry || exit 1

# ---- the session --------------------------------------------------------------------------------
free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
published=$(free_port)
forwarded=$(free_port)
cat >"$work/policy.yaml" <<YAML
version: 1
egress:
  - host: mutual.test
    ports: [$mutual]
    methods: [GET]
    client_certificate: {certificate: "file:client.pem", key: "file:client.key"}
YAML
key=$(sed -n 2p "$work/client.key")
run() { # the secret is in this process' environment alone, and in no argument
	export API_KEY=$secret
	exec timeout 1200 "$matchlock" run --engine "${MATCHLOCK_ENGINE:-auto}" --name egress \
		--allow-host "web.test:$http,tls.test:$https,tls.test:$grpc" --allow-host "tcp://raw.test:$raw,tcp://git.test:$ssh" \
		--secret "API_KEY@tls.test:$https" --upstream-ca "$work/ca.pem" \
		--add-host web.test:127.0.0.1 --add-host tls.test:127.0.0.1 --add-host raw.test:127.0.0.1 \
		--add-host git.test:127.0.0.1 --add-host other.test:127.0.0.1 --add-host later.test:127.0.0.1 --add-host mutual.test:127.0.0.1 --policy "$work/policy.yaml" -p "$published:8000" \
		-v "$work/shared:/shared" -v "$PWD/tests/e2e/inside:/inside:ro" -- \
		bash /inside/egress.sh /shared "$http" "$https" "$raw" "$mutual" "$ssh" "$grpc" "${EGRESS_MIB:-16}" "${EGRESS_CONNECTIONS:-300}" \
		${EGRESS_BRIEF:+brief}
}
(run) >"$work/inside" 2>"$work/errors" &
session_pid=$!

await() { # NAME: until the guest has made it
	local i
	for ((i = 0; i < 9000; i++)); do
		[ ! -e "$work/shared/$1" ] || return 0
		kill -0 "$session_pid" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

session() { # EXPRESSION about `s`, the session, that gives lines
	"$matchlock" ls --json | python3 -c "import json, sys; s = json.load(sys.stdin)[0]; print(*($1), sep='\n')"
}

# leaks: where the secret can be read, on this side, while the session runs. The session's own process
# was started with it in the environment and has wiped it.
leaks() {
	local pid file
	grep -rlF -e "$secret" -e "$key" "$work/state" "$work/run" "$work/shared" "$work/inside" "$work/errors" 2>/dev/null
	[ -d "$(session '[s["directory"]]')" ] || echo "no session"
	for pid in $(session '[p["pid"] for p in s["processes"]]'); do
		[ -e "/proc/$pid/environ" ] || echo "no process $pid"
		for file in environ cmdline comm; do
			! grep -qaF -e "$secret" -e "$key" "/proc/$pid/$file" 2>/dev/null || echo "/proc/$pid/$file"
		done
	done
}

await allow
ok "the guest comes as far as asking for a host" $?
same "nothing of the session holds the secret or the client's key while it runs" "" "$(leaks)"
# Root reads all; ordinary_user.sh runs this, too.
if [ "$(id -u)" -ne 0 ]; then
	! head -c 1 "/proc/$(session '[p["pid"] for p in s["processes"] if p["role"] == "proxy"]')/environ" >/dev/null 2>&1
	ok "the broker's memory is closed to its own user" $?
fi
same "matchlock allow add" "allowed later.test:$http" "$("$matchlock" allow add egress "later.test:$http" 2>&1)"
"$matchlock" allow ls egress | cut -f 1 | grep -xF "later.test:$http" >/dev/null
ok "matchlock allow ls" $?
"$matchlock" allow add egress 127.0.0.1 >/dev/null 2>&1
same "an address cannot be allowed" 2 $?
touch "$work/shared/allowed"
await withdraw
"$matchlock" allow rm egress "later.test:$http" >/dev/null
ok "matchlock allow rm" $?
touch "$work/shared/withdrawn"
await forward
same "-p reaches the guest's service" mine "$(curl -sS -m 30 "http://127.0.0.1:$published/mine" 2>&1)"
"$matchlock" port-forward egress "$forwarded:8000" 2>"$work/forward.log" &
forward_pid=$!
same "so does matchlock port-forward" mine \
	"$(curl -sS -m 60 --retry 40 --retry-delay 1 --retry-connrefused "http://127.0.0.1:$forwarded/mine" 2>/dev/null)"
kill "$forward_pid"
wait "$forward_pid" 2>/dev/null
touch "$work/shared/forwarded"
wait "$session_pid"
same "the session ends with status 0" 0 $?
session_pid=''
same "what the guest pushed has arrived" "a push" "$(git -C "$work/web/pushed.git" log -1 --format=%s pushed 2>&1)"
same "by ssh, too" "a push by ssh" "$(git -C "$work/web/pushed.git" log -1 --format=%s by-ssh 2>&1)"
replay "in the guest" cat "$work/inside"
if ! grep -q '^ok' "$work/inside" || grep -q '^not ok' "$work/inside"; then
	sed 's/^/# /' "$work/errors"
fi

# ---- afterwards ------------------------------------------------------------------------------------
same "nothing that is left holds the secret" "" \
	"$(grep -rlF -e "$secret" -e "$key" "$work/state" "$work/run" "$work/shared" "$work/inside" "$work/errors" 2>/dev/null)"
placeholder=$(cat "$work/shared/placeholder")
same "the placeholder is as long as the secret" ${#secret} ${#placeholder}
[ -n "$placeholder" ] && [ "$placeholder" != "$secret" ]
ok "and another text" $?
grep -qF "GET /auth HTTP/1.1 [Bearer $secret]" "$work/requests"
ok "the server was given the secret" $?
! grep -qF "$placeholder" "$work/requests"
ok "and never the placeholder" $?

"$matchlock" audit verify egress >/dev/null
ok "the log is whole" $?
shows() { # DESCRIPTION PATTERN FILTER...
	local description=$1 pattern=$2
	shift 2
	"$matchlock" audit show egress --json "$@" >"$work/shown"
	grep -qE "$pattern" "$work/shown"
	ok "$description" $?
}
shows "the log has requests" '"host":"tls.test".*"method":"GET".*"path":"/auth".*"status":200' --kind request --host tls.test
shows "with the secrets that went along" '"path":"/auth".*"secrets":"API_KEY"' --kind request
shows "and denials" '"host":"denied.test".*"path":"/secret/path"' --denied --host denied.test
shows "and connections that nobody looked into" '"host":"raw.test"' --kind connection
shows "git's over ssh among them" '"host":"git.test"' --kind connection
shows "and what was allowed meanwhile" '"operation":"allow","rule":"later.test' --kind grant
shows "and the port" '"operation":"forward","rule":"127.0.0.1:'"$published"':8000"' --kind grant
shows "and that of matchlock port-forward" '"operation":"forward","rule":"127.0.0.1:'"$forwarded"':8000"' --kind grant
for port in "$published" "$forwarded"; do
	shows "and a connection to it" \
		'"operation":"forward".*"rule":"127.0.0.1:'"$port"':8000"|"rule":"127.0.0.1:'"$port"':8000".*"operation":"forward"' --kind connection
done
shows "and how the processes that forward are locked" '"component":"port-forward".*seccomp' --kind jail

# ---- without a network nothing of it is there --------------------------------------------------------
"$matchlock" run --engine "${MATCHLOCK_ENGINE:-auto}" --name dry -- bash -c \
	'ls /run/matchlock 2>&1; ip rule 2>/dev/null | grep -c tcp; cat /proc/[0-9]*/comm | grep -c egress; echo "${SSL_CERT_FILE-}"' \
	>"$work/without" 2>&1
same "without a network there is no process, route or certificate of it" "0 0" \
	"$(grep -E '^[0-9]+$' "$work/without" | tr '\n' ' ' | sed 's/ $//')"
grep -q "cannot access '/run/matchlock'" "$work/without"
ok "nor a variable that names one" $?
finish
