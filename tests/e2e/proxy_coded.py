"""Content codings of requests, and what hides in them: run by proxy_coded.sh."""
import base64
import gzip
import os
import tempfile
import time
import zlib

from broker import Authority, Broker, Server, Tap, bundle, read_message, read_until

tap = Tap()
authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-coded-"))
SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"
IN_BODY = b"client-secret-0123456789"
seen = []  # bodies, as far as they came


def serve(connection):
    data = b""
    while True:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(data) < length:
            more = connection.recv(65536)
            if not more:
                seen.append(data)
                return
            data += more
        seen.append(data[:length])
        data = data[length:]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


bound = Server(serve, authority.leaf("api.test"))
evil = Server(serve, authority.leaf("evil.test"))
open_ = Server(serve, authority.leaf("open.test"))
secrets = bundle((b"API_KEY", SECRET, [(b"api.test", bound.port)], 1), (b"CLIENT", IN_BODY, [(b"api.test", bound.port)], 1, 2),
                 (b"DECOY", b"ghp_0123456789abcdefghijABCDEFGHIJ012345", [], 5))
names = {"api.test": bound, "evil.test": evil, "open.test": open_}
rules = [{"where": "p:1", "host": "open.test", "ports": [open_.port], "pass_unread_bodies": True}]


def start(with_secrets=True):
    return Broker([f"{name}:{names[name].port}" for name in ("api.test", "evil.test")], list(names), authority,
                  secrets if with_secrets else None, rules=rules)


broker = start()
placeholder, in_body, decoy = (broker.placeholders[name].encode() for name in ("API_KEY", "CLIENT", "DECOY"))


def send(name, coding, body, pieces=1, head=b"", on=None):
    port = names[name].port
    stream = (on or broker).tls(name, port)
    stream.sendall(b"POST / HTTP/1.1\r\nHost: %s:%d\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n%s\r\n" %
                   (name.encode(), port, coding, len(body), head))
    try:
        for at in range(0, max(len(body), 1), max(len(body) // pieces, 1)):
            stream.sendall(body[at:at + max(len(body) // pieces, 1)])
    except OSError:
        pass
    status, fields, text, _ = read_message(stream)
    return status, fields.get("matchlock-denied"), text


text = os.urandom(300000) + b"harmless text " * 50000
for coding, body in ((b"gzip", gzip.compress(text)), (b"deflate", zlib.compress(text)), (b"X-GZip", gzip.compress(text)),
                     (b"gzip", gzip.compress(text[:1000]) + gzip.compress(text[1000:])), (b"identity", text), (b"gzip", b"")):
    status, denied, _ = send("evil.test", coding, body, 7)
    tap.same(f"harmless, {coding.decode()}: arrives byte for byte", (200, True), (status, seen[-1] == body))
for name, value, reason in (("placeholder", placeholder, "secret_wrong_host"), ("decoy", decoy, "canary")):
    for coding, pack in ((b"gzip", gzip.compress), (b"deflate", zlib.compress)):
        for where, plain in (("alone", value), ("behind 200 KB", os.urandom(200000) + value), ("percent-encoded", b"".join(
                b"%%%02x" % byte for byte in value)), ("in base64", base64.b64encode(b"a" + value + b"b"))):
            status, denied, _ = send("evil.test", coding, pack(plain), 3)
            tap.same(f"a {name} in {coding.decode()}, {where}: refused", (403, reason), (status, denied))
            event = broker.event(kind="denial", reason=reason)
            tap.ok("which the log has", event and event["host"] == "evil.test", event)
status, denied, _ = send("evil.test", b"gzip", gzip.compress(decoy), head=b"X-Data: " + decoy + b"\r\n")
tap.same("a decoy in both head and body", (403, "canary"), (status, denied))
status, denied, _ = send("evil.test", b"gzip", gzip.compress(decoy[:20]) + gzip.compress(decoy[20:]))
tap.same("a decoy over two members", (403, "canary"), (status, denied))
tap.ok("none of them arrived whole", not any(value in zlib.decompressobj(47).decompress(body) for body in seen[6:] if body[:2] in (
    b"\x1f\x8b", b"x\x9c") for value in (placeholder, decoy)))

status, denied, text_ = send("api.test", b"gzip", gzip.compress(b"secret=" + in_body))
tap.same("one that would have to be replaced is refused", (403, "coded_request"), (status, denied))
tap.ok("and the answer says what to do", b"send it as it is" in text_, text_)
body = gzip.compress(b"note=" + placeholder)
tap.same("one that opens nothing there arrives as it is", (200, True), (send("api.test", b"gzip", body)[0], seen[-1] == body))

# ---- what cannot be read -------------------------------------------------------------------------
for what, coding, body in (
        ("brotli", b"br", b"\x0b\x02\x80hello\x03"), ("zstd", b"zstd", b"\x28\xb5\x2f\xfd"), ("two codings", b"gzip, gzip", gzip.compress(gzip.compress(decoy))),
        ("a coding of no name", b"x-attack", b"hello"), ("what is no gzip", b"gzip", b"hello"), ("a raw deflate", b"deflate", zlib.compress(b"x")[2:-4]),
        ("something behind the end", b"gzip", gzip.compress(b"x") + b"hello"), ("a body without its end", b"gzip", gzip.compress(b"hello")[:-1]),
        ("a bomb", b"gzip", gzip.compress(bytes(1 << 28)))):
    before = time.monotonic()
    status, denied, text_ = send("evil.test", coding, body)
    tap.same(f"refused: {what}", (403, "coded_request"), (status, denied))
    tap.ok("quickly", time.monotonic() - before < 10)
tap.ok("and said why", b"pass_unread_bodies" in text_ and b"too much" in text_, text_)
stream = broker.tls("evil.test", evil.port)
stream.sendall(b"POST / HTTP/1.1\r\nHost: evil.test:%d\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx" % evil.port)
status, fields, _, _ = read_message(stream)
tap.same("refused: two fields with a coding each", (403, "coded_request"), (status, fields.get("matchlock-denied")))
body = b"\x0b\x02\x80hello\x03"
tap.same("a rule lets what cannot be read pass", (200, True), (send("open.test", b"br", body)[0], seen[-1] == body))
tap.same("but not what can", (403, "canary"), send("open.test", b"gzip", gzip.compress(decoy))[:2])

tap.same("the broker ends", 0, broker.stop())

# ---- without secrets -----------------------------------------------------------------------------
free = start(False)
for coding, body in ((b"br", b"\x0b\x02\x80hello\x03"), (b"gzip", b"hello")):
    tap.same(f"without secrets nobody looks: {coding.decode()}", (200, True), (send("evil.test", coding, body, on=free)[0], seen[-1] == body))
tap.same("the broker ends", 0, free.stop())
tap.finish()
