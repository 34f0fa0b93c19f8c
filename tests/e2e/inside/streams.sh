#!/bin/bash
# What tests/e2e/streams.sh runs in the guest: three real clients at once, each with a stream that lasts.
# Every line of a client's goes to standard output behind the client's name as it comes; what it complains
# of goes to standard error.
#
#   streams.sh URL SECONDS
set -u
url=$1 limit=$(($2 + 300))
echo "guest placeholder $API_KEY"

events() { # NAME OPTION...
	local name=$1
	shift
	curl -sSN -m "$limit" "$@" -H "Authorization: Bearer $API_KEY" \
		-w '\nended %{http_version} %{http_code} %{size_download} %{exitcode}\n' "$url/events/$name" |
		sed -u "s/^/$name /"
}
events http1 --http1.1 &
events http2 --http2 &
timeout "$limit" /usr/bin/python3 /inside/websocket_stream.py "wss${url#https}/socket" | sed -u 's/^/socket /' &
wait
