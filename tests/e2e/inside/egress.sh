#!/bin/bash
# What tests/e2e/egress.sh runs in the guest: real clients against its servers, and whatever else a
# program in the guest can see of the network. Prints TAP.
#
#   egress.sh SHARED HTTP-PORT HTTPS-PORT RAW-PORT MUTUAL-PORT SSH-PORT GRPC-PORT MIB CONNECTIONS [brief]
set -u
shared=$1 http=$2 https=$3 raw=$4 mutual=https://mutual.test:$5 ssh=$6 grpc=$7 mib=$8 connections=$9 extent=${10:-}
web=web.test:$http
tls=https://tls.test:$https
databases=sql:$HOME/.pki/nssdb
cd "$(mktemp -d)" || exit 1
export HOME=$PWD

# A connection that hangs fails its test.
curl() {
	command curl -m 120 "$@"
}

count=0
ok() { # DESCRIPTION STATUS
	count=$((count + 1))
	[ "$2" = 0 ] && echo "ok $count - $1" || echo "not ok $count - $1"
}
same() { # DESCRIPTION WANTED GOT
	[ "$2" = "$3" ]
	ok "$1" $?
	[ "$2" = "$3" ] || printf '# wanted: %s\n# got:    %s\n' "$2" "$(head -c 600 <<<"$3")"
}
skip() { # DESCRIPTION [REASON]
	count=$((count + 1))
	echo "ok $count - $1 # SKIP ${2:-it is not installed}"
}
have() {
	command -v "$1" >/dev/null
}
# Waits for the host to make SHARED/NAME.
await() {
	local i
	for ((i = 0; i < 600; i++)); do
		[ ! -e "$shared/$1" ] || return 0
		sleep 0.1
	done
	return 1
}

# ---- clients, each with the trust that it finds ------------------------------------------------
same "curl, HTTP" hello "$(curl -sS "http://$web/hello" 2>&1)"
same "curl, HTTPS" hello "$(curl -sS "$tls/hello" 2>&1)"
same "curl without the environment" hello "$(env -i curl -sS -m 120 "$tls/hello" 2>&1)"
if have wget; then
	same "wget, HTTPS" hello "$(wget -qO- "$tls/hello" 2>&1)"
else
	skip "wget, HTTPS"
fi
if have vfyserv; then
	said=$(vfyserv -d "$databases" -p "$https" tls.test 2>&1)
	[[ $said == *bytes\ total* && $said != *ERROR* ]]
	ok "NSS, HTTPS" $?
	[[ $said == *bytes\ total* ]] || tail -n 5 <<<"$said" | sed 's/^/# /'
else
	skip "NSS, HTTPS"
fi
urllib='import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())'
same "python3, urllib" hello "$(/usr/bin/python3 -c "$urllib" "$tls/hello" 2>&1)"
same "python3 without the environment" hello "$(env -i /usr/bin/python3 -c "$urllib" "$tls/hello" 2>&1)"
if have node; then
	same "node, https" hello "$(node -e 'require("https").get(process.argv[1], r => r.pipe(process.stdout))' "$tls/hello" 2>&1)"
	fetch='typeof fetch === "undefined" ? console.log("hello") : fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t))'
	same "node, fetch" hello "$(node --no-warnings -e "$fetch" "$tls/hello" 2>&1)"
else
	skip "node"
fi
same "git clone over https" "a commit" \
	"$(git clone -q "$tls/repository.git" clone 2>&1 && git -C clone log --format=%s)"
git -C clone -c user.name=t -c user.email=t@example.test commit -q --allow-empty -m 'a push'
same "git push over https, the placeholder as its password" "" \
	"$(git -C clone push -q "https://agent:$API_KEY@tls.test:$https/git/pushed.git" HEAD:pushed 2>&1)"
! GIT_TERMINAL_PROMPT=0 git -C clone push -q "$tls/git/pushed.git" HEAD:refused >/dev/null 2>&1
ok "which is not possible without" $?
if have ssh; then
	# Nobody stands between: the server's own key is the one that is known.
	install -m 600 "$shared/ssh_key" ssh_key
	export GIT_SSH_COMMAND="ssh -F none -i $PWD/ssh_key -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile=$shared/known_hosts"
	same "git clone over ssh, by a rule" "a commit" \
		"$(git clone -q "ssh://agent@git.test:$ssh/repository.git" by-ssh 2>&1 && git -C by-ssh log --format=%s)"
	git -C by-ssh -c user.name=t -c user.email=t@example.test commit -q --allow-empty -m 'a push by ssh'
	same "git push over ssh" "" "$(git -C by-ssh push -q "ssh://agent@git.test:$ssh/pushed.git" HEAD:by-ssh 2>&1)"
	! git ls-remote "ssh://agent@other.test:$ssh/repository.git" >ssh.log 2>&1 && ! grep -q 'Host key' ssh.log
	ok "a host without a rule is not reached by ssh" $?
else
	skip "git over ssh"
fi
# The clients that come with a language: its packages, mostly.
language_clients() {
	if /usr/bin/python3 -c 'import grpc' 2>/dev/null; then
		same "gRPC, both ways at once" "0 1 2 of 3" "$(/usr/bin/python3 - "tls.test:$grpc" 2>&1 <<-'PYTHON'
			import sys, grpc
			channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())
			call = channel.stream_stream("/echo.Echo/Both")(iter([b"0", b"1", b"2"]), timeout=300)
			print(*[answer.decode() for answer in call], "of", dict(call.trailing_metadata())["x-count"])
		PYTHON
		)"
	else
		skip "gRPC, both ways at once"
	fi
	if have npm; then
		npm install --silent --no-audit --no-fund --registry "$tls/npm/" hello-npm >npm.log 2>&1
		same "npm install from a registry" "hello from npm" "$(node -e 'console.log(require("hello-npm"))' 2>&1)"
		grep -q . node_modules/hello-npm/package.json 2>/dev/null || sed 's/^/# /' npm.log
	else
		skip "npm install from a registry"
	fi
	if /usr/bin/python3 -m venv venv >venv.log 2>&1; then
		venv/bin/pip install -q --disable-pip-version-check --index-url "$tls/pip/simple/" hello-pip >pip.log 2>&1
		same "pip install from an index" "hello from pip" "$(venv/bin/python -c 'import hello_pip; print(hello_pip.text)' 2>&1)"
		[ -s pip.log ] && sed 's/^/# /' pip.log
	else
		skip "pip install from an index"
	fi

	if [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ]; then
		mkdir -p crate/src crate/.cargo
		printf '[package]\nname = "user"\nversion = "1.0.0"\n[dependencies]\nhello-cargo = "1"\n' >crate/Cargo.toml
		printf '[source.crates-io]\nreplace-with = "mine"\n[source.mine]\nregistry = "%s/git/index.git"\n' "$tls" \
			>crate/.cargo/config.toml
		echo 'fn main() { println!("{}", hello_cargo::TEXT); }' >crate/src/main.rs
		same "cargo, a crate from a registry" "hello from cargo" \
			"$(cd crate && PATH=/usr/bin:/bin CARGO_HOME=$HOME/cargo cargo run -q 2>cargo.log)"
		sed 's/^/# /' crate/cargo.log
	else
		skip "cargo, a crate from a registry"
	fi
	if have go; then
		mkdir module
		printf 'module user.test/user\n\ngo 1.16\n\nrequire hello.test/hello v1.0.0\n' >module/go.mod
		cat >module/main.go <<-'GO'
			package main

			import (
				"fmt"
				"io"
				"net/http"
				"os"

				"hello.test/hello"
			)

			func main() {
				answer, err := http.Get(os.Args[1])
				if err != nil {
					fmt.Println(err)
					return
				}
				text, _ := io.ReadAll(answer.Body)
				fmt.Print(hello.Text, ", ", string(text))
			}
		GO
		same "go, a module from a proxy, and its HTTP client" "hello from go, hello" \
			"$(cd module && GOPROXY=$tls/go GOSUMDB=off GOFLAGS=-mod=mod go run . "$tls/hello" 2>go.log)"
		grep -v '^go: downloading' module/go.log | sed 's/^/# /'
	else
		skip "go, a module from a proxy, and its HTTP client"
	fi

	if have java && have javac; then
		cat >Fetch.java <<-'JAVA'
			import java.net.URI;
			import java.net.http.*;
			class Fetch {
				public static void main(String[] arguments) throws Exception {
					HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
					HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
					System.out.print(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
				}
			}
		JAVA
		# QEMU before 8.1 may run what a compiler in another thread has just overwritten.
		local one_cpu='taskset -c 0'
		same "java, its HTTP client" "hello, status 0" \
			"$($one_cpu java Fetch.java "$tls/hello" 2>java.log), status $?"
		cat java.log hs_err*.log 2>/dev/null | head -n 60 | sed 's/^/# /'
	elif have keytool && [ -e /etc/ssl/certs/java/cacerts ]; then
		keytool -list -cacerts -storepass changeit -alias matchlock >keytool.log 2>&1
		ok "java's store holds the certificate" $?
	else
		skip "java"
	fi
}
[ "$extent" = brief ] || language_clients

# ---- denials --------------------------------------------------------------------------------------
for url in http://denied.test/secret/path https://denied.test/secret/path; do
	answer=$(curl -sS -w '%{http_code}' "$url" 2>&1)
	same "$url is a 403" 403 "${answer: -3}"
	grep -q '"host": "denied.test"' <<<"$answer" && grep -q '"hint"' <<<"$answer"
	ok "that says what and why ($url)" $?
done
! curl -sS -m 20 https://198.18.77.77/ >/dev/null 2>&1
ok "an address that stands for no name is not reached" $?
curl -sS -m 20 http://127.0.0.1:"$http"/hello >/dev/null 2>&1
same "the host's loopback is not the guest's" 7 $?

# ---- names -----------------------------------------------------------------------------------------
first=$(getent ahostsv4 any.name.test | awk 'NR == 1 { print $1 }')
[[ $first == 198.18.* || $first == 198.19.* ]]
ok "every name has an address ($first)" $?
same "and keeps it" "$first" "$(getent ahostsv4 any.name.test | awk 'NR == 1 { print $1 }')"
/usr/bin/python3 - <<'PYTHON'
import socket, struct, sys
def ask(kind, tcp, family):
    query = struct.pack(">HHHHHH", 77, 0x100, 1, 0, 0, 0) + b"\3any\4name\4test\0" + struct.pack(">HH", kind, 1)
    where = ("127.0.0.1" if family == socket.AF_INET else "::1", 53)
    s = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    s.settimeout(20)
    s.connect(where)
    s.send((struct.pack(">H", len(query)) if tcp else b"") + query)
    answer = s.recv(4096)
    while tcp and len(answer) < 2 + struct.unpack(">H", answer[:2])[0]:
        answer += s.recv(4096)
    answer = answer[2:] if tcp else answer
    return struct.unpack(">HHHHHH", answer[:12])
for kind, answers in (1, 1), (28, 1), (65, 0), (16, 0), (15, 0):
    for tcp in False, True:
        for family in socket.AF_INET, socket.AF_INET6:
            got = ask(kind, tcp, family)
            if got[0] != 77 or got[3] != answers or got[1] & 15:
                sys.exit("type %d tcp %s: %s" % (kind, tcp, got))
PYTHON
ok "queries over UDP and TCP, by both families; no HTTPS records" $?

# ---- what is not carried ----------------------------------------------------------------------------
/usr/bin/python3 - <<'PYTHON'
import errno, socket, sys, time
began = time.time()
for family, address in (socket.AF_INET, "198.18.0.1"), (socket.AF_INET6, "fd00::1"), (socket.AF_INET, "8.8.8.8"):
    for port in 443, 53, 123:
        s = socket.socket(family, socket.SOCK_DGRAM)
        try:
            s.connect((address, port))
            sys.exit("UDP to %s was not refused" % address)
        except OSError as error:
            if error.errno != errno.ENETUNREACH:
                sys.exit(str(error))
if time.time() - began > 5:
    sys.exit("it took %.1f s" % (time.time() - began))
PYTHON
ok "UDP, port 443 too, is unreachable at once" $?
if [ "$(id -u)" -eq 0 ]; then
	/usr/bin/python3 -c 'import errno, socket
try: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"\10\0\0\0\0\0\0\0", ("8.8.8.8", 0))
except OSError as error: raise SystemExit(error.errno != errno.ENETUNREACH)
raise SystemExit(1)'
	ok "so is ping" $?
else
	skip "so is ping" "only root sends raw packets"
fi

# ---- the guest's own -----------------------------------------------------------------------------------
echo mine >mine
/usr/bin/python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1 &
/usr/bin/python3 -m http.server --bind ::1 8000 >/dev/null 2>&1 &
for url in http://127.0.0.1:8000/mine 'http://[::1]:8000/mine'; do
	same "a service of the guest's own ($url)" mine "$(curl -sS --retry 20 --retry-delay 1 --retry-connrefused "$url" 2>/dev/null)"
done

# ---- connections that nobody looks into ------------------------------------------------------------------
/usr/bin/python3 - "$raw" <<'PYTHON'
import hashlib, socket, sys
data = bytes(range(256)) * 4096 * 8
s = socket.create_connection(("raw.test", int(sys.argv[1])))
s.sendall(data)
s.shutdown(socket.SHUT_WR)
answer = b""
while part := s.recv(4096):
    answer += part
wanted = b"%d %s\n" % (len(data), hashlib.sha256(data).hexdigest().encode())
sys.exit(None if answer == wanted else repr(answer))
PYTHON
ok "8 MiB, then the end of one direction, then the answer" $?
/usr/bin/python3 - "$raw" "$connections" <<'PYTHON'
import resource, socket, sys
count = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
all = [socket.create_connection(("raw.test", int(sys.argv[1]))) for i in range(count)]
for s in all:
    s.sendall(b"echo\n")
for i, s in enumerate(all):
    s.sendall(b"%d\n" % i)
for i, s in enumerate(all):
    wanted = b"%d\n" % i
    got = b""
    while len(got) < len(wanted):
        part = s.recv(100)
        if not part:
            sys.exit("connection %d ended" % i)
        got += part
    if got != wanted:
        sys.exit(repr(got))
PYTHON
ok "$connections connections at once" $?

# ---- bodies ----------------------------------------------------------------------------------------------
head -c 4000000 /dev/urandom >upload
sum="4000000 $(sha256sum <upload | cut -d ' ' -f 1)"
same "an upload" "$sum" "$(curl -sS -T upload "$tls/put" 2>&1)"
same "an upload in chunks" "$sum" "$(curl -sS -H 'Transfer-Encoding: chunked' -T upload "$tls/put" 2>&1)"
same "a download" 4000000 "$(curl -sS "$tls/zeros/4000000" | wc -c)"
# Both at once, neither with room for it all.
bytes=$((mib << 20))
command curl -sS -m 3600 "$tls/noise/$bytes" | sha256sum | cut -d ' ' -f 1 >downloaded &
noise() {
	head -c "$bytes" /dev/zero | openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00
}
up=$(noise 2>/dev/null | command curl -sS -m 3600 -T - "$tls/put" 2>&1)
wait $!
same "$mib MiB up" "$bytes $(noise 2>/dev/null | sha256sum | cut -d ' ' -f 1)" "$up"
same "and down at the same time" "$(curl -sS -m 600 "$tls/noise-sum/$bytes")" "$(cat downloaded)"

# ---- secrets ------------------------------------------------------------------------------------------------
same "a secret works where it belongs" welcome "$(curl -sS -H "Authorization: Bearer $API_KEY" "$tls/auth" 2>&1)"
same "nothing does without it" "who?" "$(curl -sS "$tls/auth" 2>&1)"
curl -sS -H "Authorization: Bearer $API_KEY" "$tls/headers" >headers 2>&1
grep -qF "Bearer $API_KEY" headers
ok "what a server hands back is the placeholder again" $?
answer=$(curl -sS -w '%{http_code}' -H "Authorization: Bearer $API_KEY" "http://$web/headers" 2>&1)
same "it does not go to another host" 403 "${answer: -3}"
answer=$(curl -sS -w '%{http_code}' -H 'Authorization: Bearer of-my-own' "$tls/headers" 2>&1)
same "another credential does not go where it belongs" 403 "${answer: -3}"
same "a server that wants a certificate of the client's gets the rule's" "((('commonName', 'agent'),),)" \
	"$(curl -sS "$mutual/who" 2>&1)"
answer=$(curl -sS -w '%{http_code}' -X POST -d x "$mutual/who" 2>&1)
same "which does not open what the rule closes" 403 "${answer: -3}"
printf '%s' "$API_KEY" >"$shared/placeholder"
cat headers >"$shared/headers"

# ---- while it runs ----------------------------------------------------------------------------------------------
answer=$(curl -sS -w '%{http_code}' "http://later.test:$http/hello" 2>&1)
same "a host that was not allowed" 403 "${answer: -3}"
touch "$shared/allow"
await allowed
same "is reached once it is" hello "$(curl -sS "http://later.test:$http/hello" 2>&1)"
touch "$shared/withdraw"
await withdrawn
answer=$(curl -sS -w '%{http_code}' "http://later.test:$http/hello" 2>&1)
same "and not any more when that is taken back" 403 "${answer: -3}"
touch "$shared/forward"
await forwarded
echo "1..$count"
