"""WebSockets through the whole broker, and every way to get a secret or more bytes through one: run by
proxy_websocket.sh."""
import asyncio
import hashlib
import os
import ssl
import struct
import tempfile
import threading

import websocket
from broker import TIMEOUT, Authority, Broker, Server, Tap, bundle, read_message, read_until
from websocket import BINARY, CLOSE, PING, PONG, TEXT, Reader, client, frame

tap = Tap()
authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-websocket-"))
SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"
OTHER = b"ghp_0123456789ABCDEFGHIJabcdefghij012345"
BODY = b"client-secret-0123456789"
BODY_FLAG = 2
heads = []
got = []  # of each server's connection, what it read
more = threading.Condition()
go_on = threading.Semaphore(0)


def note(item):
    with more:
        got.append(item)
        more.notify_all()


def wait_for(what):
    """Whether a server has read it, which is forgotten then."""
    with more:
        found = more.wait_for(lambda: what in got, TIMEOUT)
        if found:
            got.remove(what)
        return found


def say_parts(connection):
    """The secret in every shape in which frames can be cut."""
    half = len(SECRET) // 2
    connection.sendall(frame(TEXT, b"you are " + SECRET))
    for at in range(len(SECRET)):
        connection.sendall(frame(TEXT if at == 0 else 0, SECRET[at:at + 1], final=at == len(SECRET) - 1))
        if at == half:
            connection.sendall(frame(PING, b"between"))
    for byte in frame(BINARY, b"bytes: " + SECRET):
        connection.sendall(bytes([byte]))
    connection.sendall(frame(PONG, SECRET))
    connection.sendall(frame(TEXT, b"hex " + SECRET.hex().encode()))
    connection.sendall(frame(TEXT, SECRET[:half]) + frame(PING, b"between") + frame(TEXT, SECRET[half:]))
    connection.sendall(frame(PONG, SECRET[:half]) + frame(PONG, SECRET[half:]))


def say_slowly(connection):
    """One frame that takes its time, and a message that never ends."""
    connection.sendall(frame(TEXT, b"x" * 1000)[:4])
    for part in (b"first", b"second"):
        connection.sendall(part)
        go_on.acquire(timeout=TIMEOUT)


def say_wrong(connection, what):
    connection.sendall({b"/masked": frame(TEXT, b"x", mask=b"abcd"), b"/reserved": frame(TEXT, b"x", first=0xc1),
                        b"/long": b"\x81\x7e\x00\x05hello", b"/http": b"HTTP/1.1 200 OK\r\n\r\n"}[what])


def serve(connection):
    head = read_until(connection, b"\r\n\r\n")
    if not head:
        return
    heads.append(head)
    path = head.split(b" ")[1]
    if path == b"/deflate":
        websocket.accept(connection, head, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        connection.recv(1)
        return
    websocket.accept(connection, head)
    if path == b"/parts":
        say_parts(connection)
    elif path == b"/slow":
        say_slowly(connection)
    elif path != b"/":
        say_wrong(connection, path)
    reader = Reader(connection, masked=True)
    while item := reader.next():
        note(item)
        if item[0] < CLOSE:
            connection.sendall(frame(*item))
        elif item[0] == PING:
            connection.sendall(frame(PONG, item[1]))
        elif item[0] == CLOSE:
            connection.sendall(frame(*item))
            return
    note(("end", reader.problem))


bound = Server(serve, authority.leaf("api.test"))
few = Server(serve)
broker = Broker([f"api.test:{bound.port}"], ["api.test", "few.test"], authority,
                bundle((b"API_KEY", SECRET, [(b"api.test", 0)], 1), (b"HUB_TOKEN", OTHER, [(b"hub.test", 0)], 1),
                       (b"CLIENT_SECRET", BODY, [(b"api.test", 0)], 1, BODY_FLAG),
                       (b"DECOY", b"AKIAABCDEFGHIJKLMNOP", [], 5)),
                rules=[{"where": "p:1", "host": "few.test", "ports": [few.port], "methods": ["GET"], "paths": ["/"],
                        "body_bytes_max": 200, "response_bytes_max": 3000, "bytes_max": 4000}])
placeholder = {name: text.encode() for name, text in broker.placeholders.items()}


def connect(path=b"/", extra=b"", name="api.test"):
    """An opened WebSocket: the stream and a reader behind the answer's head."""
    port = bound.port if name == "api.test" else few.port
    stream = broker.tls(name, port) if name == "api.test" else broker.dial(name, port)
    stream.sendall(websocket.opening(f"{name}:{port}".encode(), path, extra))
    status, _, _, rest = read_message(stream)
    if status != 101:
        tap.ok(f"a websocket is opened at {path.decode()}", False, status)
    return stream, Reader(stream, rest)


def expect_closed(what, reader, code, reason):
    """A Close with that code and reason, and an end."""
    item = reader.next()
    good = item and item[0] == CLOSE and item[1][:2] == struct.pack(">H", code) and reason in item[1]
    tap.ok(what, good, (item, reader.problem))
    return reader.next() is None


# ---- what passes -------------------------------------------------------------------------------
stream, reader = connect(extra=b"Sec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer %s\r\n" %
                         placeholder["API_KEY"])
tap.ok("the handshake has the secret and offers no compression",
       SECRET in heads[-1] and b"extensions" not in heads[-1].lower(), heads[-1])
stream.sendall(client(TEXT, "grüße".encode()))
tap.same("a text there and back", (TEXT, "grüße".encode()), reader.next())
large = os.urandom(300000)
# The server takes all of it before it answers. One thread alone: of a TLS connection that two use, OpenSSL confuses
# the one's state with the other's, and a read can end as if the connection had.
stream.sendall(client(BINARY, large))
tap.same("300000 bytes there and back", (BINARY, hashlib.sha256(large).digest()),
         (lambda item: item and (item[0], hashlib.sha256(item[1]).digest()))(reader.next()))
stream.sendall(client(TEXT, b"a", False) + client(PING, b"ping") + client(0, b"b", False) + client(0, b"c"))
tap.same("a ping inside a message", (PONG, b"ping"), reader.next())
tap.same("and the message", (TEXT, b"abc"), reader.next())
stream.sendall(client(CLOSE, struct.pack(">H", 1000) + b"bye"))
tap.same("the closing handshake", (CLOSE, struct.pack(">H", 1000) + b"bye"), reader.next())
tap.same("and the end", None, reader.next())
event = broker.event(kind="connection", protocol="websocket")
tap.ok("the log has it", event and "reason" not in event and event["sent"] > 300000 < event["received"] and
       event["secrets"] == "API_KEY", event)

# ---- secrets that a server says ----------------------------------------------------------------
stream, reader = connect(b"/parts")
tap.same("a secret in one frame", (TEXT, b"you are " + placeholder["API_KEY"]), reader.next())
tap.same("a ping is not held behind one in fragments", (PING, b"between"), reader.next())
tap.same("one byte a frame", (TEXT, placeholder["API_KEY"]), reader.next())
tap.same("one byte a packet", (BINARY, b"bytes: " + placeholder["API_KEY"]), reader.next())
tap.same("in a pong", (PONG, placeholder["API_KEY"]), reader.next())
tap.same("in hex", (TEXT, b"hex " + placeholder["API_KEY"].hex().encode()), reader.next())
middle = len(SECRET) // 2
tap.same("in two messages, of which the first is not held back", (TEXT, placeholder["API_KEY"][:middle]), reader.next())
tap.same("nor what is between them", (PING, b"between"), reader.next())
tap.same("the second", (TEXT, placeholder["API_KEY"][middle:]), reader.next())
tap.same("in two pongs", [(PONG, placeholder["API_KEY"][:middle]), (PONG, placeholder["API_KEY"][middle:])],
         [reader.next(), reader.next()])
stream.close()
stream, reader = connect(b"/slow")
received = reader.frame()[2]
while not received.endswith(b"first"):
    received += reader.frame()[2]
go_on.release()
while not received.endswith(b"second"):
    received += reader.frame()[2]
tap.same("what has come of a frame is passed on before its end", b"firstsecond", received)
go_on.release()
stream.close()

# ---- secrets that the guest sends --------------------------------------------------------------
stream, reader = connect()
stream.sendall(client(TEXT, b'{"secret":"' + placeholder["CLIENT_SECRET"] + b'"}'))
tap.same("its echo has the placeholder", (TEXT, b'{"secret":"' + placeholder["CLIENT_SECRET"] + b'"}'), reader.next())
tap.ok("a secret that may be in bodies is put in", wait_for((TEXT, b'{"secret":"' + BODY + b'"}')), got[-3:])
stream.sendall(client(TEXT, placeholder["API_KEY"]))
tap.same("one that may not stays a text", (TEXT, placeholder["API_KEY"]), reader.next())
tap.ok("that opens nothing", wait_for((TEXT, placeholder["API_KEY"])), got[-3:])
stream.sendall(client(CLOSE))
reader.next()
event = broker.event(kind="connection", protocol="websocket", secrets="CLIENT_SECRET")
tap.ok("the log names what was put in", event, broker.events[-3:])
stream.close()

hub = placeholder["HUB_TOKEN"]
attacks = {
    "in a text": [client(TEXT, b"token=" + hub)],
    "in binary": [client(BINARY, b"\x00\xff" + hub)],
    "in a ping": [client(PING, hub)],
    "in a close": [client(CLOSE, struct.pack(">H", 1000) + hub)],
    "percent-encoded": [client(TEXT, b"".join(b"%%%02x" % byte for byte in hub))],
    "in JSON escapes": [client(TEXT, b"".join(b"\\u%04x" % byte for byte in hub))],
    "a byte a frame": [client(TEXT if at == 0 else 0, hub[at:at + 1], at == len(hub) - 1) for at in range(len(hub))],
    "with pings between": [client(TEXT, hub[:20], False), client(PING, b"x"), client(0, b"", False), client(0, hub[20:])],
    "in two messages": [client(TEXT, b"x" + hub[:10]), client(BINARY, hub[10:] + b"x")],
    "a byte a message": [client(TEXT, hub[at:at + 1]) for at in range(len(hub))],
    "in two messages, percent-encoded": [client(TEXT, b"".join(b"%%%02x" % byte for byte in hub)[:40]),
                                         client(TEXT, b"".join(b"%%%02x" % byte for byte in hub)[40:])],
    "in two pings": [client(PING, hub[:20]), client(PING, hub[20:])],
    "with a mask of zeros": [frame(TEXT, hub, mask=bytes(4))],
    "a byte a packet": [bytes([byte]) for byte in client(TEXT, hub)],
    "before the answer": None,
}
for name, parts in attacks.items():
    if parts is None:
        stream = broker.tls("api.test", bound.port)
        stream.sendall(websocket.opening(b"api.test:%d" % bound.port) + client(TEXT, hub))
        _, _, _, rest = read_message(stream)
        reader = Reader(stream, rest)
    else:
        stream, reader = connect()
        try:
            for part in parts:
                stream.sendall(part)
        except OSError:
            pass
    item = reader.next()
    # Of what is in several messages, the echo of the first ones comes before it.
    while item and (item[0] == PONG or ("message" in name and item[0] < CLOSE)):
        item = reader.next()
    tap.ok(f"a placeholder of another host {name}: a Close says why",
           item and item[0] == CLOSE and item[1].startswith(struct.pack(">H", 1008) + b"matchlock: secret_wrong_host"),
           (item, reader.problem))
    tap.ok("the server sees its client go", wait_for((CLOSE, struct.pack(">H", 1001))), got[-3:])
    event = broker.event(kind="denial", reason="secret_wrong_host")
    tap.ok("the log has the denial", event and event["operation"] == "tunnel" and event["path"] == "/" and
           event["secrets"] == "HUB_TOKEN" and event["protocol"] == "websocket" and event["bytes"] > 0, event)
    stream.close()
    event = broker.event(kind="connection", reason="secret_wrong_host")
    tap.ok("and the end", event, broker.events[-3:])
with more:
    tap.ok("nothing of it reached the server", not any(hub in item[1] for item in got if item[1] and item[0] != "end"), got[-3:])
    got.clear()
stream, reader = connect()
stream.sendall(client(TEXT, placeholder["DECOY"]))
expect_closed("a decoy", reader, 1008, b"canary")
stream.close()

# ---- what is no websocket ----------------------------------------------------------------------
for name, data in {"without a mask": frame(TEXT, b"x"), "with reserved bits": frame(TEXT, b"x", first=0xc1, mask=b"abcd"),
                   "with a length in the long form": b"\x81\xfe\x00\x01abcdx", "with a long ping": client(PING, b"x" * 126),
                   "of nothing": client(0, b"x"), "that is HTTP": b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"}.items():
    stream, reader = connect()
    stream.sendall(data)
    expect_closed(f"a frame {name} is refused", reader, 1002, b"websocket_malformed")
    tap.ok("and goes nowhere", wait_for((CLOSE, struct.pack(">H", 1001))), got[-3:])
    tap.ok("and is told to the log", broker.event(kind="denial", reason="websocket_malformed"), broker.events[-3:])
    stream.close()
for path in (b"/masked", b"/reserved", b"/long", b"/http"):
    stream, reader = connect(path)
    expect_closed(f"a server's frame that is none ({path.decode()})", reader, 1011, b"upstream_broken")
    stream.close()
    tap.ok("is told to the log", broker.event(kind="connection", reason="upstream_broken"), broker.events[-3:])
stream = broker.tls("api.test", bound.port)
stream.sendall(websocket.opening(b"api.test:%d" % bound.port, b"/deflate", b"Sec-WebSocket-Extensions: permessage-deflate\r\n"))
status, fields, _, _ = read_message(stream)
tap.same("a server that compresses unasked is a 502", (502, "upgrade_refused"), (status, fields.get("matchlock-error")))
stream.close()

# ---- limits ------------------------------------------------------------------------------------
stream, reader = connect(name="few.test")
stream.sendall(client(TEXT, b"x" * 100))
tap.same("within a rule's limits", (TEXT, b"x" * 100), reader.next())
stream.sendall(client(TEXT, b"x" * 100))
expect_closed("beyond that of a request's body", reader, 1008, b"body_too_large")
tap.ok("which the log says", broker.event(kind="denial", reason="body_too_large", rule="p:1 host few.test"), broker.events[-3:])
stream.close()
stream, reader = connect(name="few.test")
stream.sendall(client(PING) * 100)
item = reader.next()
while item and item[0] == PONG:
    item = reader.next()
tap.ok("empty frames count", item and item[0] == CLOSE and b"body_too_large" in item[1], item)
stream.close()
count, item = 0, (TEXT, b"")
while item and item[0] == TEXT and count < 100:
    stream, reader = connect(name="few.test")
    stream.sendall(client(TEXT, b"y" * 150))
    item, count = reader.next(), count + 1
    stream.close()
    if item and item[0] == CLOSE:
        break
tap.ok("beyond the session's bytes", count < 100 and item and item[0] == CLOSE and b"bytes_exhausted" in item[1], item)
stream = broker.dial("few.test", few.port)
stream.sendall(websocket.opening(b"few.test:%d" % few.port))
status, fields, _, _ = read_message(stream)
tap.same("after which no request goes", (403, "bytes_exhausted"), (status, fields.get("matchlock-denied")))
stream.close()


# ---- a library on both sides -------------------------------------------------------------------
async def library():
    import websockets

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.leaf("lib.test"))

    async def echo(peer):
        async for message in peer:
            await peer.send(message)

    results = []
    async with websockets.serve(echo, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        stream = await loop.run_in_executor(None, lambda: lib.dial("lib.test", port) if lib_allow(port) else None)
        stream.setblocking(False)
        trust = ssl.create_default_context(cadata=lib.certificate)
        async with websockets.connect(f"wss://lib.test:{port}/", sock=stream, ssl=trust, server_hostname="lib.test",
                                      max_size=None) as peer:
            for message in ("hello", b"\x00" * 70000, "x" * 65536, ""):
                await peer.send(message)
                results.append(await peer.recv() == message)
            await peer.send(part for part in ("a", "b", "c"))
            results.append(await peer.recv() == "abc")
            pong = await peer.ping(b"are you there")
            await asyncio.wait_for(pong, TIMEOUT)
            for number in range(200):
                await peer.send(str(number))
            results.append([await peer.recv() for _ in range(200)] == [str(number) for number in range(200)])
            await peer.close(1000, "done")
            results.append(peer.close_code == 1000 and peer.close_reason == "done")
    return results


def lib_allow(port):
    return lib.control_call(64, f"lib.test:{port}")[0] == 0


lib = Broker(["none.test"], ["lib.test"], authority)
tap.same("a library's server and client talk", [True] * 7, asyncio.run(asyncio.wait_for(library(), 4 * TIMEOUT)))
tap.same("the broker ends well", 0, lib.stop())
tap.same("and the other", 0, broker.stop())
tap.finish()
