#!/bin/bash
# Streams that last, from end to end: curl with server-sent events over HTTP/1.1 and over HTTP/2 and a
# WebSocket client, all at once in a VM, through the broker to nginx with TLS and a server behind it. The
# requests carry a placeholder, and the server says the secret back now and then, so that both
# directions are searched. Nothing may be cut, lost, or kept back, not after a long pause either.
#
# EGRESS_STREAM_S is how long: 16 s unless set, 120 s in the long form (MATCHLOCK_LONG=1), an hour by hand
# (3600, with pauses of 330 s). EGRESS_STREAM_KEEP=DIRECTORY keeps there what was measured.
set -u
build=${MATCHLOCK_BUILD:-build/release}
matchlock=$build/matchlock
seconds=${EGRESS_STREAM_S:-${MATCHLOCK_LONG:+120}}
seconds=${seconds:-16}

# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh
# shellcheck source=tests/e2e/lib/engine.sh
. tests/e2e/lib/engine.sh

for program in curl openssl nginx; do
	command -v "$program" >/dev/null || skip_all "$program is not installed"
done
/usr/bin/python3 -c 'import websockets' 2>/dev/null || skip_all "python3-websockets is not installed"
for program in "$matchlock" "$build/matchlock-proxy" "$build/initramfs.cpio"; do
	[ -e "$program" ] || skip_all "$program is not built"
done

work=$(mktemp -d /tmp/matchlock-streams-XXXXXX)
export XDG_STATE_HOME=$work/state XDG_RUNTIME_DIR=$work/run XDG_CONFIG_HOME=$work/config
use_engine "$work"
pids=()
cleanup() {
	[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
	wait 2>/dev/null
	[ -z "${EGRESS_STREAM_KEEP:-}" ] || cp "$work"/{output,told,rss,log,errors} "$EGRESS_STREAM_KEEP" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
mkdir -m 700 "$XDG_RUNTIME_DIR"
secret="sk-test-$(openssl rand -hex 24)"
echo "$secret" >"$work/secret"

await() { # FILE
	local i
	for ((i = 0; i < 600; i++)); do
		[ ! -e "$1" ] || return 0
		sleep 0.1
	done
	return 1
}

# ---- servers ------------------------------------------------------------------------------------
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=streams.test' \
	-addext 'subjectAltName=DNS:streams.test' -keyout "$work/server.key" -out "$work/server.pem" 2>"$work/openssl.log" || {
	cat "$work/openssl.log"
	exit 1
}
/usr/bin/python3 tests/e2e/lib/stream_server.py "$seconds" "$work/secret" "$work/ports" "$work/told" >"$work/server.log" 2>&1 &
pids+=($!)
await "$work/ports" || {
	cat "$work/server.log"
	exit 1
}
read -r events socket <"$work/ports"
port=$(/usr/bin/python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/nginx.conf" <<NGINX
daemon off; master_process off; pid $work/nginx.pid; error_log $work/nginx.log;
events { }
http {
	access_log off; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
	fastcgi_temp_path $work/fastcgi; uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
	proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 2h; proxy_send_timeout 2h;
	server {
		listen 127.0.0.1:$port ssl http2; ssl_certificate $work/server.pem; ssl_certificate_key $work/server.key;
		location /events/ { proxy_pass http://127.0.0.1:$events; proxy_set_header Connection ""; }
		location = /socket {
			proxy_pass http://127.0.0.1:$socket; proxy_set_header Upgrade websocket; proxy_set_header Connection Upgrade;
		}
	}
}
NGINX
nginx -c "$work/nginx.conf" -p "$work" 2>"$work/nginx.errors" &
pids+=($!)
await "$work/nginx.pid" || {
	cat "$work/nginx.errors" "$work/nginx.log"
	exit 1
}

# ---- the session --------------------------------------------------------------------------------
run() {
	export API_KEY=$secret
	exec timeout $((seconds + 900)) "$matchlock" run --name streams --allow-host "streams.test:$port" \
		--secret "API_KEY@streams.test:$port" --upstream-ca "$work/server.pem" --add-host streams.test:127.0.0.1 \
		-v "$PWD/tests/e2e/inside:/inside:ro" -- bash /inside/streams.sh "https://streams.test:$port" "$seconds"
}
mkfifo "$work/pipe"
/usr/bin/python3 tests/e2e/lib/stream_judge.py stamp "$work/output" <"$work/pipe" &
stamp=$!
(run) >"$work/pipe" 2>"$work/errors" &
session=$!
pids+=("$session" "$stamp")

broker() {
	"$matchlock" ls --json | /usr/bin/python3 -c 'import json, sys
for process in json.load(sys.stdin)[0]["processes"]:
    if process["role"] == "proxy":
        print(process["pid"])' 2>/dev/null
}
pid='' interval=$((seconds > 600 ? 5 : 1))
while kill -0 "$session" 2>/dev/null; do
	[ -n "$pid" ] || pid=$(broker)
	[ -z "$pid" ] || size=$(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status" 2>/dev/null)
	[ -z "${size:-}" ] || echo "$(date +%s.%N) $size" >>"$work/rss"
	sleep "$interval"
done
wait "$session"
status=$?
wait "$stamp"
same "the session ends with status 0" 0 "$status"

# ---- afterwards ------------------------------------------------------------------------------------
"$matchlock" audit verify streams >/dev/null
ok "the log is whole" $?
"$matchlock" audit show streams --json >"$work/log"
touch "$work/told" "$work/rss" "$work/output"
replay "$seconds s" env PYTHONPATH=tests/e2e/lib /usr/bin/python3 tests/e2e/lib/stream_judge.py judge \
	"$work/output" "$work/told" "$work/rss" "$work/log" "$secret"
same "the guest never saw the secret" "" "$(grep -F "$secret" "$work/output" "$work/log" "$work/errors")"
[ "$failed" = 0 ] || sed 's/^/# /' "$work/errors"
finish
