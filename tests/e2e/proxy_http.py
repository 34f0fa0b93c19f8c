"""What the egress broker carries, and how: run by proxy.sh."""
import hashlib
import os
import ssl
import tempfile
import threading
import time

import websocket
from broker import Authority, Broker, Server, Tap, read_all, read_message, read_until

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-proxy-ca-")
authority = Authority(directory)
seen = []  # heads of requests, as the plain server got them
release = threading.Event()


def respond(connection, head, data):
    """Answers one request; returns what follows it, or None when the connection ends."""
    method, target = head.split(b" ")[:2]
    path = target.partition(b"?")[0]
    fields = head.lower()
    body = b""
    if path == b"/early":
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        return None
    if b"expect: 100-continue" in fields:
        if path == b"/unwanted":
            connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
            return None
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if b"transfer-encoding: chunked" in fields:
        data = read_until(connection, b"0\r\n", data)
        data = read_until(connection, b"\r\n\r\n", data)
        end = data.index(b"0\r\n")
        body, data = data, b""
    else:
        for line in fields.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
                while len(data) < length:
                    data += connection.recv(65536)
                body, data = data[:length], data[length:]
    return answer(connection, method, path, body, data, head)


def answer(connection, method, path, body, data, head):
    if path == b"/chunked":
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                           b"5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 42\r\n\r\n")
    elif path == b"/close":
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        return None
    elif path == b"/cut":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all")
        return None
    elif path == b"/cut-chunked":
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        return None
    elif path == b"/nothing":
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    elif path == b"/hints":
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n"
                           b"Alt-Svc: h3=\":443\"\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n")
    elif path == b"/once":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce")
        connection.recv(1)  # the next request, which this server does not answer
        return None
    elif path == b"/events":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            connection.sendall(b"data: %d\n\n" % number)
            release.wait(20)
            release.clear()
        return None
    elif path == b"/slow":
        connection.sendall(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n")
        time.sleep(0.5)
        connection.sendall(b"6\r\n world\r\n0\r\n\r\n")
    elif path == b"/garbage":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
        return None
    elif path == b"/socket":
        return web_socket(connection, head)
    elif path == b"/switch":
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           b"Sec-WebSocket-Accept: wrong\r\n\r\n")
        return None
    elif path == b"/big":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        block = bytes(range(256)) * 256
        for _ in range(BIG // len(block)):
            connection.sendall(block)
    else:
        text = b"%s %d" % (method, len(body)) if method != b"HEAD" else b""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(text) or 7) + text)
    return data


BIG = 64 << 20


def web_socket(connection, head):
    websocket.accept(connection, head)
    connection.sendall(websocket.frame(websocket.TEXT, b"early"))
    reader = websocket.Reader(connection, masked=True)
    while got := reader.next():
        connection.sendall(websocket.frame(*got))
    connection.sendall(websocket.frame(websocket.TEXT, b"bye"))
    return None


def serve(connection):
    data = b""
    while data is not None:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        seen.append(head)
        data = respond(connection, head, data)


def sink(connection):
    """Counts a body and says how long it was and what its digest is."""
    data = read_until(connection, b"\r\n\r\n")
    head, _, data = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    digest = hashlib.sha256(data)
    count = len(data)
    while count < length:
        more = connection.recv(1 << 20)
        if not more:
            return
        digest.update(more)
        count += len(more)
    text = digest.hexdigest().encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)


plain = Server(serve)
upload = Server(sink)
secure = Server(serve, authority.leaf("tls.test"), ["http/1.1"])
broker = Broker([f"plain.test:{plain.port}", f"tls.test:{secure.port}", f"upload.test:{upload.port}"],
                ["plain.test", "tls.test", "upload.test", "denied.test"], authority)


def request(text, name="plain.test", port=None, stream=None, **options):
    port = port or plain.port
    stream = stream or broker.dial(name, port)
    stream.sendall(text.replace("HOST", f"{name}:{port}").encode("latin-1"))
    return read_message(stream, **options)


# ---- plain requests ----------------------------------------------------------------------------
stream = broker.dial("plain.test", plain.port)
for number in range(3):
    status, fields, body, rest = request("POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n\r\nabc", stream=stream)
    tap.same(f"request {number + 1} on one connection", (200, b"POST 3", b""), (status, body, rest))
tap.same("all of them on one connection to the server", 1, plain.accepted)

seen.clear()
request("GET /a?token=1 HTTP/1.1\r\nhost:HOST\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 9\r\n"
        "X-Stays:   a \t\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n", stream=stream)
tap.same("the request is written anew, without fields of the connection",
         f"GET /a?token=1 HTTP/1.1\r\nHost: plain.test:{plain.port}\r\nX-Stays: a".encode(), seen[0])
event = broker.event(kind="request", path="/a")
tap.ok("the log has it without its query", event and "token" not in str(event) and event["status"] == 200 and
       event["host"] == "plain.test" and event["address"] == "127.0.0.1", event)

began = time.monotonic_ns()
status, fields, body, rest = request("POST /slow?x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\n\r\n",
                                     stream=stream)
taken = time.monotonic_ns() - began
event = broker.event(kind="request", path="/slow") or {}
duration = event.pop("duration_ns", 0)
tap.same("what was allowed is in the log, with the bytes of both bodies and what allowed it",
         {"kind": "request", "protocol": "http", "host": "plain.test", "port": plain.port, "address": "127.0.0.1", "method": "POST",
          "path": "/slow", "status": 201, "sent": 3, "received": 11, "rule": f"--allow-host plain.test:{plain.port}"}, event)
tap.ok("and how long it took", 500_000_000 <= duration <= taken, f"{duration} of {taken}")
status, fields, body, rest = request("HEAD /head HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream, to_head=True)
event = broker.event(kind="request", path="/head")
tap.same("an answer without a body counts none, whatever its length says", (0, 0), event and (event["sent"], event["received"]))

stream.sendall(b"".join(b"GET /p%d HTTP/1.1\r\nHost: plain.test:%d\r\n\r\n" % (number, plain.port)
                        for number in range(5)))
rest = b""
answers = []
for number in range(5):
    status, fields, body, rest = read_message(stream, rest)
    answers.append((status, body))
tap.same("pipelined requests are answered in order", [(200, b"GET 0")] * 5, answers)

status, fields, body, rest = request("GET /chunked HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
tap.same("chunks arrive, with their trailers", (b"hello world", "42"), (body, fields.get("trailer x-sum")))
status, fields, body, rest = request("GET /close HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
tap.same("a body until the end of the connection is chunked", ("chunked", b"until the end"),
         (fields.get("transfer-encoding"), body))
status, fields, body, rest = request("HEAD /head HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream, to_head=True)
tap.same("HEAD keeps the length and has no body", ("7", b"", b""), (fields.get("content-length"), body, rest))
status, fields, body, rest = request("GET /nothing HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
tap.same("204 has neither length nor body", (204, False), (status, "content-length" in fields))
status, fields, body, rest = request("GET /hints HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
tap.same("an interim response passes", 103, status)
status, fields, body, rest = read_message(stream, rest)
tap.same("and the final one, without Alt-Svc and Keep-Alive", (200, False, False),
         (status, "alt-svc" in fields, "keep-alive" in fields))

status, fields, body, rest = request("POST /echo HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n"
                                     "3;ext=1\r\nabc\r\n0\r\n\r\n", stream=stream)
tap.same("a chunked request passes", 200, status)
tap.ok("without its chunk extensions", b"ext" not in seen[-1])

old = broker.dial("plain.test", plain.port)
status, fields, body, rest = request("GET /close HTTP/1.0\r\nHost: HOST\r\n\r\n", stream=old)
tap.same("HTTP/1.0 gets the body until the end", (b"until the end", False), (body, "transfer-encoding" in fields))
old = broker.dial("plain.test", plain.port)
status, fields, body, rest = request("GET /x HTTP/1.0\r\n\r\n", stream=old)
tap.same("and may do without Host", 200, status)

half = broker.dial("plain.test", plain.port)
half.sendall(f"GET /half HTTP/1.1\r\nHost: plain.test:{plain.port}\r\n\r\n".encode())
half.shutdown(1)
status, fields, body, rest = read_message(half)
tap.same("a client that ended its side gets its answer", (200, b"GET 0"), (status, body))

# ---- expectations, early answers, failures ------------------------------------------------------
stream = broker.dial("plain.test", plain.port)
stream.sendall(f"PUT /echo HTTP/1.1\r\nHost: plain.test:{plain.port}\r\nContent-Length: 3\r\n"
               "Expect: 100-continue\r\n\r\n".encode())
status, fields, body, rest = read_message(stream)
tap.same("100 Continue comes from the server", 100, status)
stream.sendall(b"abc")
status, fields, body, rest = read_message(stream, rest)
tap.same("and then the answer", (200, b"PUT 3"), (status, body))
status, fields, body, rest = request("PUT /unwanted HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n"
                                     "Expect: 100-continue\r\n\r\n")
tap.same("or a refusal without the body being sent", (403, "close"), (status, fields.get("connection")))
status, fields, body, rest = request("PUT /early HTTP/1.1\r\nHost: HOST\r\nContent-Length: 30000000\r\n\r\n" + "x" * 1000)
tap.same("an answer before the request's end arrives", (413, b"large"), (status, body))

stream = broker.dial("plain.test", plain.port)
status, fields, body, rest = request("GET /cut HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
tap.same("a response that is cut off stays cut off", (b"not all", b""), (body, rest))
status, fields, body, rest = request("GET /cut-chunked HTTP/1.1\r\nHost: HOST\r\n\r\n")
tap.same("a chunked one too", (b"hello", b"<cut>"), (body, rest))
status, fields, body, rest = request("GET /garbage HTTP/1.1\r\nHost: HOST\r\n\r\n")
tap.same("two lengths in a response are a 502", (502, "upstream_broken"), (status, fields.get("matchlock-error")))

before = plain.accepted
stream = broker.dial("plain.test", plain.port)
status, fields, body, rest = request("GET /once HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
status, fields, body, rest = request("GET /again HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
tap.same("a request on a connection that its server closes is sent again", (200, b"GET 0"), (status, body))

# ---- streams -----------------------------------------------------------------------------------
stream = broker.dial("plain.test", plain.port)
stream.sendall(f"GET /events HTTP/1.1\r\nHost: plain.test:{plain.port}\r\n\r\n".encode())
data = b""
for number in range(3):
    data = read_until(stream, b"data: %d\n\n" % number, data)
    release.set()
tap.ok("each event arrives before the next is sent", b"data: 2\n\n" in data, data)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
stream = broker.dial("plain.test", plain.port)
WEBSOCKET = ("GET {} HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + "\r\n\r\n")
status, fields, body, rest = request(WEBSOCKET.format("/socket"), stream=stream)
tap.same("a websocket is opened", (101, "websocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
         (status, fields.get("upgrade"), fields.get("sec-websocket-accept")))
rest = read_until(stream, b"early", rest)
stream.sendall(websocket.client(websocket.TEXT, b"hello"))
tap.same("messages pass both ways", b"\x81\x05early\x81\x05hello", read_until(stream, b"hello", rest))
stream.shutdown(1)
tap.same("and each side ends for itself", b"\x81\x03bye", read_all(stream))
event = broker.event(kind="connection", protocol="websocket")
tap.ok("the log has the connection", event and event["sent"] == 11 and event["received"] == 19, event)
status, fields, body, rest = request(WEBSOCKET.format("/switch"))
tap.same("a 101 that does not verify is a 502", (502, "upgrade_refused"), (status, fields.get("matchlock-error")))
status, fields, body, rest = request("GET /socket HTTP/1.1\r\nHost: HOST\r\nSec-WebSocket-Key: " + KEY + "\r\n\r\n")
tap.same("as is one that nobody asked for", (502, "upgrade_refused"), (status, fields.get("matchlock-error")))

# ---- large bodies ------------------------------------------------------------------------------
stream = broker.dial("plain.test", plain.port)
request("GET /x HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=stream)
memory = broker.resident_kib()
stream.sendall(f"GET /big HTTP/1.1\r\nHost: plain.test:{plain.port}\r\n\r\n".encode())
data = read_until(stream, b"\r\n\r\n")
rest = data.partition(b"\r\n\r\n")[2]
count, digest, most = len(rest), hashlib.sha256(rest), 0
while count < BIG:
    data = stream.recv(1 << 20)
    if not data:
        break
    digest.update(data)
    count += len(data)
    most = max(most, broker.resident_kib()) if count % 8 == 0 else most
wanted = hashlib.sha256(bytes(range(256)) * (BIG // 256)).hexdigest()
tap.same("64 MiB arrive whole", wanted, digest.hexdigest())
sanitized = "asan" in os.environ.get("MATCHLOCK_BUILD", "")
tap.ok("in constant memory", sanitized or max(most, broker.resident_kib()) - memory < 2048,
       f"{memory} KiB before, {most} KiB at most")
stream = broker.dial("upload.test", upload.port)
stream.sendall(f"PUT / HTTP/1.1\r\nHost: upload.test:{upload.port}\r\nContent-Length: {BIG}\r\n\r\n".encode())
block = bytes(range(256)) * 4096
for _ in range(BIG // len(block)):
    stream.sendall(block)
status, fields, body, rest = read_message(stream)
tap.same("and go up whole", wanted.encode(), body)

# ---- TLS ---------------------------------------------------------------------------------------
stream = broker.tls("tls.test", secure.port)
tap.same("the guest's TLS is the broker's, for that name", ((("DNS", "tls.test"),), "http/1.1"),
         (stream.getpeercert()["subjectAltName"], stream.selected_alpn_protocol()))
for number in range(3):
    status, fields, body, rest = request("POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\nab",
                                         "tls.test", secure.port, stream)
    tap.same(f"request {number + 1} over TLS", (200, b"POST 2"), (status, body))
tap.same("on one connection to the server", 1, secure.accepted)
status, fields, body, rest = request("GET /cut HTTP/1.1\r\nHost: HOST\r\n\r\n", "tls.test", secure.port, stream)
tap.same("a response that is cut off stays cut off over TLS", b"not all", body)
event = broker.event(kind="request", path="/cut", protocol="https")
tap.ok("and the log says so", event and event["reason"] == "upstream_broken", event)
stream = broker.tls("tls.test", secure.port, protocols=())
status, fields, body, rest = request("GET /big HTTP/1.1\r\nHost: HOST\r\n\r\n", "tls.test", secure.port, stream)
tap.same("64 MiB arrive whole over TLS", wanted, hashlib.sha256(body).hexdigest())

# ---- denials that can be read ------------------------------------------------------------------
for stream, scheme in ((broker.dial("denied.test", 80), "http"), (broker.tls("denied.test", 443), "https")):
    stream.sendall(b"GET /secret/path?q=1 HTTP/1.1\r\nHost: denied.test\r\n\r\n")
    status, fields, body, rest = read_message(stream)
    tap.ok(f"a host that is not allowed: 403 in JSON over {scheme}",
           status == 403 and fields.get("matchlock-denied") == "host_not_allowed" and
           b'"error": "host_not_allowed"' in body and b'"host": "denied.test"' in body and
           b'"path": "/secret/path"' in body and b'"hint"' in body and b"q=1" not in body, body)
    event = broker.event(kind="denial", host="denied.test")
    tap.ok("and the log has it", event and event["reason"] == "host_not_allowed" and event["method"] == "GET" and
           event["sent"] == 0, event)
tap.same("allowed while the session runs", (0, ""), broker.control_call(64, f"denied.test:{plain.port}"))
status, fields, body, rest = request("GET /x HTTP/1.1\r\nHost: HOST\r\n\r\n", "denied.test")
tap.same("it is reached", 200, status)
error, text = broker.control_call(66, "")
tap.ok("and on the list", error == 0 and "denied.test" in text, text)
tap.same("and taken back", (0, ""), broker.control_call(65, f"denied.test:{plain.port}"))
status, fields, body, rest = request("GET /x HTTP/1.1\r\nHost: HOST\r\n\r\n", "denied.test")
tap.same("it is refused again", 403, status)

# ---- no more files -----------------------------------------------------------------------------
few = Broker([f"plain.test:{plain.port}", f"tcp://raw.test:{plain.port}"], ["plain.test", "raw.test"], files=64)
tunnels = [few.dial("raw.test", plain.port) for _ in range(40)]
event = few.event(reason="too_many_connections")
tap.ok("connections over the limit of files are refused", event, few.events[-3:])
status, fields, body, rest = request("GET /x HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=few.dial("plain.test", plain.port))
tap.ok("a request that finds none left is told which limit it was", status == 503 and b"too_many_connections" in body and
       b"all 64 files open" in body and b"ulimit -Hn" in body, (status, body))
waiting = [few.dial("plain.test", plain.port) for _ in range(10)]
time.sleep(0.5)
before = few.processor_seconds()
time.sleep(2)
used = few.processor_seconds() - before
tap.ok("who waits for a file costs no processor time", used < 0.5, f"{used} s of 2")
for tunnel in tunnels:
    tunnel.close()
status, fields, body, rest = request("GET /x HTTP/1.1\r\nHost: HOST\r\n\r\n", stream=waiting[-1])
tap.same("and is served when there are files again", (200, b"GET 0"), (status, body))
tap.same("the broker ends with connections open", 0, few.stop())

tap.same("the broker ends when its control socket closes", 0, broker.stop())
tap.finish()
