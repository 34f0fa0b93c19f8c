"""An HTTP proxy between the broker and the world, and whom the broker trusts: run by proxy_upstream.sh."""
import base64
import json
import os
import shutil
import socket
import tempfile
import threading

from broker import TIMEOUT, Authority, Broker, Server, Tap, pump, read_all, read_message, read_until

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-proxy-upstream-")
authority = Authority(directory)
other_authority = Authority(tempfile.mkdtemp(dir=directory))
PASSWORD = "hunter2@x:y"
CREDENTIALS = base64.b64encode(f"agent:{PASSWORD}".encode())
asked = []  # heads of what the proxy was asked
seen = []  # heads of what servers were asked


def serve(connection):
    data = b""
    while data := read_until(connection, b"\r\n\r\n", data):
        head, _, data = data.partition(b"\r\n\r\n")
        seen.append(head)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def greet(connection):
    connection.sendall(b"220 hello\r\n")
    while data := connection.recv(65536):
        connection.sendall(data.upper())


def tunnel(connection):
    """The proxy. It goes wrong in the way that a host's name says; else that host is here."""
    head = read_until(connection, b"\r\n\r\n")
    asked.append(head)
    name, _, port = head.split(b" ")[1].decode().partition(":")
    if name == "refused.test":
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno")
    elif name == "garbled.test":
        connection.sendall(b"SSH-2.0-proxy\r\n\r\n")
    elif name == "endless.test":
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10000)
    elif name == "cut.test":
        connection.sendall(b"HTTP/1.1 200 O")
    elif name != "gone.test":
        with socket.create_connection(("127.0.0.1", int(port)), TIMEOUT) as server:
            early = server.recv(100) if name == "raw.test" else b""
            # The server's first bytes come with the head, as they may.
            connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n" + early)
            threading.Thread(target=pump, args=(connection, server), daemon=True).start()
            pump(server, connection)


def ask(name, port, tls=False):
    stream = broker.tls(name, port) if tls else broker.dial(name, port)
    stream.sendall(f"GET /x HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
    status, fields, body, _ = read_message(stream)
    stream.close()
    return status, fields.get("matchlock-error") or fields.get("matchlock-denied"), body


plain = Server(serve)
secure = Server(serve, authority.leaf("secure.test"), ["http/1.1"])
wrong = Server(serve, other_authority.leaf("wrong.test"), ["http/1.1"])
raw = Server(greet)
proxy = Server(tunnel)
with socket.create_server(("127.0.0.1", 0)) as free:
    closed = free.getsockname()[1]
failures = {"refused.test": b"407 Proxy Authentication Required", "garbled.test": b"SSH-2.0-proxy",
            "endless.test": b"answer is too long", "cut.test": b"closed the connection", "gone.test": b"closed the connection"}
allow = [f"plain.test:{plain.port}", f"secure.test:{secure.port}", f"wrong.test:{wrong.port}", f"tcp://raw.test:{raw.port}",
         f"pinned.test:{plain.port}", *failures]
errors = tempfile.TemporaryFile(dir=directory)
broker = Broker(allow, ["pinned.test"], authority, errors=errors,
                upstream_proxy=f"http://agent:{PASSWORD.replace('@', '%40')}@127.0.0.1:{proxy.port}/")

# ---- through a proxy -------------------------------------------------------------------------------------
WANTED = b"CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\nProxy-Authorization: Basic " + CREDENTIALS + b"\r\n\r\n"
told = []
for name, port, tls in (("plain.test", plain.port, False), ("secure.test", secure.port, True)):
    tap.same(f"{name}: a request goes through the proxy", (200, None, b"ok"), ask(name, port, tls))
    wanted = WANTED % (name.encode(), port, name.encode(), port)
    tap.same(f"{name}: which was asked for a tunnel, with the credentials", [wanted], asked)
    tap.ok(f"{name}: of which the server learns nothing", len(seen) == 1 and b"proxy" not in seen[0].lower(), seen)
    told.append(broker.event(kind="request", host=name))
    tap.ok(f"{name}: and which the log has as any request", told[-1] and told[-1]["status"] == 200, told)
    asked.clear()
    seen.clear()
stream = broker.dial("raw.test", raw.port)
greeting = read_until(stream, b"\n")
stream.sendall(b"quit")
stream.shutdown(socket.SHUT_WR)
tap.same("another protocol does, and its server may be the first to speak", (b"220 hello\r\n", b"QUIT"), (greeting, read_all(stream)))
tap.same("with a tunnel of its own", [WANTED % (b"raw.test", raw.port, b"raw.test", raw.port)], asked)
asked.clear()
tap.same("a name with an address of its own is reached directly", (200, None, b"ok"), ask("pinned.test", plain.port))
tap.same("without the proxy", [], asked)
status, reason, body = ask("denied.test", 80)
tap.same("what is not allowed is refused before the proxy is asked", (403, "host_not_allowed", []), (status, reason, asked))
status, reason, body = ask("wrong.test", wrong.port, True)
tap.ok("a server's certificate is judged behind a proxy as elsewhere", status == 502 and reason == "upstream_certificate" and
       b"issuer" in body, (status, reason, body))
told.append(body.decode())
seen.clear()
for name, text in failures.items():
    status, reason, body = ask(name, 80)
    tap.ok(f"a proxy that fails is a 502 that says how: {name}", (status, reason) == (502, "upstream_proxy_failed") and text in body,
           (status, reason, body))
    told.append(body.decode())
    event = broker.event(kind="request", host=name)
    tap.ok("and in the log", event and event["status"] == 502 and event["reason"] == "upstream_proxy_failed", event)
    told.append(event)
status, reason, body = ask("gone.test", 443, True)
tap.same("over TLS the answer can be read, too", (502, "upstream_proxy_failed"), (status, reason))
told.append(body.decode())
with open(f"/proc/{broker.process.pid}/cmdline", "rb") as file:
    told.append(file.read().decode())
tap.same("the broker ends in order", 0, broker.stop())
errors.seek(0)
told.append(errors.read().decode())
text = json.dumps(told + broker.events)
tap.ok("no log, answer or message has the credentials", len(told) > 15 and
       not any(part in text for part in ("hunter2", CREDENTIALS.decode(), "agent:")), text)
broker = Broker(allow, upstream_proxy=f"http://127.0.0.1:{closed}", authority=authority)
status, reason, body = ask("plain.test", plain.port)
tap.ok("a proxy that is not there is a 502 that names it", (status, reason) == (502, "upstream_proxy_failed") and
       f"127.0.0.1 port {closed}".encode() in body, (status, reason, body))
tap.same("that broker ends in order", 0, broker.stop())

# ---- whom it trusts --------------------------------------------------------------------------------------
FAILED = (502, "upstream_certificate")


def trusting(file, extra=None):
    """A broker on a host whose own certificates are those of the file."""
    os.environ["SSL_CERT_FILE"] = file
    try:
        return Broker([f"secure.test:{secure.port}", f"wrong.test:{wrong.port}"], ["secure.test", "wrong.test"], extra, errors=errors)
    finally:
        del os.environ["SSL_CERT_FILE"]


os.environ.pop("SSL_CERT_FILE", None)
broker = trusting(authority.certificate)
tap.same("a server that the host's certificates vouch for is trusted", (200, None), ask("secure.test", secure.port, True)[:2])
tap.same("and no other", FAILED, ask("wrong.test", wrong.port, True)[:2])
broker.stop()
broker = trusting(other_authority.certificate, authority)
tap.same("what --upstream-ca names is trusted besides them", [(200, None)] * 2,
         [ask(name, server.port, True)[:2] for name, server in (("secure.test", secure), ("wrong.test", wrong))])
broker.stop()
broker = trusting(os.path.join(directory, "missing.pem"), authority)
tap.same("and alone where there are none", [(200, None), FAILED],
         [ask(name, server.port, True)[:2] for name, server in (("secure.test", secure), ("wrong.test", wrong))])
broker.stop()
try:
    trusting(os.path.join(directory, "missing.pem")).stop()
    tap.ok("a broker that could trust nobody does not start", False)
except RuntimeError:
    errors.seek(0)
    text = errors.read()
    tap.ok("a broker that could trust nobody does not start", b"cannot load this host's trusted certificates" in text, text)
broker = Broker([f"secure.test:{secure.port}"], ["secure.test"], errors=errors) if any(
    os.path.exists(file) for file in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                      "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")) else None
tap.same("nor is a server trusted that only the test vouches for" + ("" if broker else " # SKIP this host has no certificates"),
         FAILED, ask("secure.test", secure.port, True)[:2] if broker else FAILED)
if broker:
    broker.stop()
errors.close()
shutil.rmtree(directory, ignore_errors=True)
tap.finish()
