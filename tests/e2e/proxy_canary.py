"""What a decoy does to the request that carries it, and to the session: run by proxy_canary.sh."""
import base64
import tempfile
import threading
import time
import urllib.parse

import websocket
from broker import TIMEOUT, Authority, Broker, Server, Tap, bundle, read_all, read_message, read_until

tap = Tap()
authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-canary-"))
DECOYS = bundle((b"DECOY", b"ghp_0123456789abcdefghijABCDEFGHIJ012345", [], 5),
                (b"DECOY_ID", b"AKIAQ3EGRV2FJZ5TNW4K", [], 5))
got = []  # what reached servers
go_on = threading.Event()


def serve(connection):
    data = b""
    while True:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        got.append(head)
        if b"GET /socket" in head:
            websocket.accept(connection, head)
            go_on.wait(TIMEOUT)
            connection.sendall(websocket.frame(websocket.TEXT, b"late"))
            got.append(connection.recv(65536))
            return
        if b"GET /slow" in head:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nearl")
            go_on.wait(TIMEOUT)
            connection.sendall(b"late")
            continue
        if b"POST /upload" in head:
            got.append(data)
            while more := connection.recv(65536):
                got.append(more)
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while len(data) < length:
            more = connection.recv(65536)
            if not more:
                got.append(data)
                return
            data += more
        got.append(data[:length])
        data = data[length:]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def echo(connection):
    while data := connection.recv(65536):
        got.append(data)
        connection.sendall(data)
        if data == b"wait":
            go_on.wait(TIMEOUT)
            connection.sendall(b"late")


server = Server(serve, authority.leaf("a.test"), ["http/1.1"])
raw = Server(echo)
HOST = b"Host: a.test:%d\r\n" % server.port


def start(**config):
    return Broker([f"a.test:{server.port}", f"tcp://raw.test:{raw.port}"], ["a.test", "raw.test"], authority, DECOYS, **config)


def ask(broker, path=b"/", head=b"", body=b"", method=b"POST", name="a.test"):
    stream = broker.tls(name, server.port)
    stream.sendall(b"%s %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: %d\r\n%s\r\n" %
                   (method, path, name.encode(), server.port, len(body), head) + body)
    status, fields, text, _ = read_message(stream)
    return status, fields.get("matchlock-denied"), text


# ---- without freezing ----------------------------------------------------------------------------
broker = start()
decoy = broker.placeholders["DECOY"].encode()
for _ in range(20):
    status, denied, text = ask(broker, head=b"X-Data: " + decoy + b"\r\n")
tap.same("a decoy is refused", (403, "canary"), (status, denied))
tap.ok("and the answer does not speak of freezing", b"frozen" not in text, text)
event = broker.event(kind="canary")
tap.ok("a record of its own names it", event and event["secrets"] == "DECOY" and event["host"] == "a.test" and
       event["path"] == "/" and event["reason"] == "canary", event)
tap.same("everything else goes on", 200, ask(broker)[0])
status, denied, text = ask(broker, body=b"x" * 1000000, name="denied.test")
tap.same("a large body that goes nowhere gets its answer", (403, "host_not_allowed"), (status, denied))
stream = broker.tls("denied.test", 443)
stream.sendall(b"POST / HTTP/1.1\r\nHost: denied.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
tap.same("and one that waits to be asked for is not waited for", 403, read_message(stream)[0])
broker.event(kind="request", status=200)


def counts_of(*kinds):
    with broker.condition:
        return [sum(event["kind"] == kind for event in broker.events) for kind in kinds]


deadline = time.monotonic() + TIMEOUT
while (counts := counts_of("canary", "denial"))[1] < 22 and time.monotonic() < deadline:
    time.sleep(0.01)
tap.same("records of it are few, whatever the guest sends; denials are all there", [15, 22], counts)
tap.same("the broker ends", 0, broker.stop())

# ---- every form freezes -----------------------------------------------------------------------------
forms = {
    "in a header": lambda decoy: {"head": b"X-Data: " + decoy + b"\r\n"},
    "as a credential": lambda decoy: {"head": b"Authorization: Bearer " + decoy + b"\r\n"},
    "in Basic": lambda decoy: {"head": b"Authorization: Basic " + base64.b64encode(b"x:" + decoy) + b"\r\n"},
    "in the path": lambda decoy: {"path": b"/" + decoy},
    "in the query": lambda decoy: {"path": b"/?q=" + urllib.parse.quote(decoy).encode()},
    "in the body": lambda decoy: {"body": b"x=" + decoy},
    "in the body as base64": lambda decoy: {"body": base64.b64encode(b"x" + decoy + b"y")},
    "in the body as hexadecimal": lambda decoy: {"body": decoy.hex().encode()},
    "to a host that is not allowed": lambda decoy: {"head": b"X-Data: " + decoy + b"\r\n", "name": "denied.test"},
    "in a body to such a host": lambda decoy: {"body": b"x=" + decoy, "name": "denied.test"},
    "far behind in such a body": lambda decoy: {"body": b"x" * 60000 + decoy, "name": "denied.test"},
}
for form, make in forms.items():
    broker = start(freeze_on_canary=True)
    decoy = broker.placeholders["DECOY"].encode()
    tap.same("before, requests go through", 200, ask(broker)[0])
    status, denied, text = ask(broker, **make(decoy))
    tap.same(f"a decoy {form} is refused", (403, "canary"), (status, denied))
    tap.ok("the answer says that the session is frozen", b"frozen" in text, text)
    event = broker.event(kind="canary")
    tap.ok("so does the record", event and "frozen" in event["hint"] and event["secrets"] == "DECOY", event)
    status, denied, text = ask(broker)
    tap.same("then nothing goes through", (403, "session_frozen"), (status, denied))
    tap.ok("and the answer says why", b"decoy" in text and b"canary: freeze" in text, text)
    event = broker.event(kind="denial", reason="session_frozen")
    tap.ok("as does the log", event and event["rule"] == "canary: freeze", event)
    tap.same("the broker ends", 0, broker.stop())

broker = start(freeze_on_canary=True)
status, denied, text = ask(broker, head=b"Authorization: AWS4-HMAC-SHA256 Credential=%s/20260101/us-east-1/s3/aws4_request, "
                           b"SignedHeaders=host, Signature=00\r\n" % broker.placeholders["DECOY_ID"].encode())
tap.same("a decoy access key in a signature is one, though the key itself is not sent", (403, "canary"), (status, denied))
broker.stop()

# ---- what is under way ---------------------------------------------------------------------------------
broker = start(freeze_on_canary=True)
decoy = broker.placeholders["DECOY"].encode()
kept = broker.tls("a.test", server.port)
kept.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
tap.same("a connection that is kept", 200, read_message(kept)[0])
tunnel = broker.dial("raw.test", raw.port)
tunnel.sendall(b"wait")
tap.same("an opaque connection", b"wait", tunnel.recv(100))
idle = broker.dial("raw.test", raw.port)
idle.sendall(b"idle")
tap.same("another, which is silent then", b"idle", idle.recv(100))
socket = broker.tls("a.test", server.port)
socket.sendall(websocket.opening(b"a.test:%d" % server.port, b"/socket"))
tap.same("a websocket", 101, read_message(socket)[0])
download = broker.tls("a.test", server.port)
download.sendall(b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n")
tap.ok("a download", read_until(download, b"earl").endswith(b"earl"))
upload = broker.tls("a.test", server.port)
upload.sendall(b"POST /upload HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nfirst")
deadline = time.monotonic() + TIMEOUT
while b"first" not in got and time.monotonic() < deadline:
    time.sleep(0.01)
tap.ok("and an upload are under way", b"first" in got)
tap.same("when a decoy is used", (403, "canary"), ask(broker, head=b"X-Data: " + decoy + b"\r\n")[:2])
for stream in (upload, socket):
    try:
        stream.sendall(websocket.frame(websocket.TEXT, b"second", mask=b"abcd") if stream is socket else b"second")
    except OSError:
        pass
go_on.set()
kept.sendall(b"GET /second HTTP/1.1\r\n" + HOST + b"\r\n")
status, fields, text, _ = read_message(kept)
tap.same("the connection that was kept: refused", (403, "session_frozen"), (status, fields.get("matchlock-denied")))
status, fields, text, _ = read_message(upload)
tap.same("the upload: refused", (403, "session_frozen"), (status, fields.get("matchlock-denied")))
tap.ok("the download: cut", b"late" not in read_all(download))
tap.ok("the websocket: cut", b"late" not in read_all(socket))
tap.ok("the opaque connection: cut", b"late" not in read_all(tunnel))
tap.ok("the silent one: ended, though nobody says anything", read_all(idle) in (b"", b"<reset>"))
late = broker.dial("raw.test", raw.port)
try:
    late.sendall(b"third")
except OSError:
    pass
tap.ok("a new one: not opened", read_all(late) in (b"", b"<reset>"))
event = broker.event(kind="denial", reason="session_frozen", protocol="tcp")
tap.ok("which the log has", event and event["operation"] == "connect", event)
deadline = time.monotonic() + TIMEOUT
while counts_of("connection")[0] < 3 and time.monotonic() < deadline:
    time.sleep(0.01)
reasons = [event.get("reason") for event in broker.events if event["kind"] == "connection"]
tap.same("and why the others ended", ["session_frozen"] * 3, reasons)
tap.same("names still have addresses, which lead nowhere", 4, len(broker.resolve("other.test")))
tap.same("the broker ends", 0, broker.stop())
after = b"".join(got)
tap.ok("nothing reached a server afterwards", not any(word in after for word in (b"second", b"third", b"/second")), got[-5:])
tap.ok("no decoy ever did", b"ghp_" not in after and b"AKIA" not in after)
tap.finish()
