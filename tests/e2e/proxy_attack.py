"""The attacker on the broker's sockets, with raw bytes: names that disagree, addresses, hostile
certificates, slow and huge and endless input. Run by proxy_attack.sh."""
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
import urllib.parse

from broker import TIMEOUT, Authority, Broker, Server, Tap, read_all, read_message, read_until

tap = Tap()
authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-ca-"))
other_authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-ca-"))
seen = []


def serve(connection):
    data = b""
    while True:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        seen.append(head)
        if head.startswith(b"GET /go?"):
            where = head.split(b" ")[1].partition(b"?")[2]
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + where + b"\r\nContent-Length: 0\r\n\r\n")
            continue
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def opaque(connection):
    connection.sendall(b"220 hello\r\n")
    while data := connection.recv(65536):
        connection.sendall(data.upper())
    connection.sendall(b"bye")


def endless(connection):
    read_until(connection, b"\r\n\r\n")
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000)


def interim(connection):
    read_until(connection, b"\r\n\r\n")
    connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)


def flood(connection):
    """Counts what it could send."""
    read_until(connection, b"\r\n\r\n")
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    try:
        while True:
            flooded[0] += connection.send(b"x" * 65536)
    except OSError:
        flooded[1] = True


def authority_for(constraints, ca="TRUE"):
    return authority.intermediate(f"basicConstraints=critical,CA:{ca}\nkeyUsage=critical,keyCertSign\n{constraints}\n")


flooded = [0, False]
plain = Server(serve)
secure = Server(serve, authority.leaf("good.test"), ["http/1.1"])
raw = Server(opaque)
endless_server = Server(endless)
interim_server = Server(interim)
flood_server = Server(flood)
within = Server(serve, authority_for("nameConstraints=critical,permitted;DNS:within.test").leaf("within.test"))
hostile = {
    "expired": Server(serve, authority.leaf("expired.test", days=("-2", "-1"))),
    "wrong": Server(serve, authority.leaf("another.test")),
    "self": Server(serve, authority.leaf("self.test", self_signed=True)),
    "usage": Server(serve, authority.leaf("usage.test", usage="clientAuth")),
    "stranger": Server(serve, other_authority.leaf("stranger.test")),
    "beyond": Server(serve, authority_for("nameConstraints=critical,permitted;DNS:within.test").leaf("beyond.test")),
    "excluded": Server(serve, authority_for("nameConstraints=critical,excluded;DNS:excluded.test").leaf("excluded.test")),
    "nested": Server(serve, authority_for("", ca="FALSE").leaf("nested.test")),
    "old": Server(serve, authority.leaf("old.test"), minimum=ssl.TLSVersion.TLSv1_1),
}
# Else OpenSSL's own defaults would refuse every client of such an old version, and the broker as one of them.
hostile["old"].context.set_ciphers("ALL:@SECLEVEL=0")
names = ["good.test", "plain.test", "raw.test", "endless.test", "interim.test", "flood.test", "within.test", "nobody.test"]
allow = [f"good.test:{secure.port}", f"plain.test:{plain.port}", f"tcp://raw.test:{raw.port}",
         f"endless.test:{endless_server.port}", f"interim.test:{interim_server.port}", f"flood.test:{flood_server.port}",
         f"within.test:{within.port}", "localhost.test:80",
         f"loop.test:{plain.port}"]
for name, server in hostile.items():
    names.append(f"{name}.test")
    allow.append(f"{name}.test:{server.port}")
broker = Broker(allow, names, authority, passthrough=[f"passed.test:{secure.port}"],
                add_host=[{"name": name, "address": "127.0.0.1"} for name in names + ["passed.test"]])


def plainly(text, address="plain.test", port=None):
    stream = broker.dial(address, port or plain.port)
    stream.sendall(text.replace("HOST", f"plain.test:{plain.port}").encode("latin-1"))
    status, fields, body, rest = read_message(stream)
    return status, fields.get("matchlock-denied") or fields.get("matchlock-error")


# ---- names that disagree -----------------------------------------------------------------------
seen.clear()
for what, target, host, reason in (
        ("another Host", "/", "evil.test", (403, "host_mismatch")),
        ("another port in Host", "/", "plain.test:1", (403, "host_mismatch")),
        ("an absolute target elsewhere", "http://evil.test/", "HOST", (403, "host_mismatch")),
        ("an absolute target here, Host elsewhere", "http://HOST/", "evil.test", (403, "host_mismatch")),
        ("another scheme", "https://HOST/", "HOST", (421, "scheme_mismatch")),
        ("user information", "http://plain.test@evil.test/", "HOST", (400, "host_invalid")),
        ("an address", "/", "127.0.0.1", (403, "address_literal")),
        ("an address in hexadecimal", "/", "0x7f.1", (403, "address_literal")),
        ("an address in decimal", "/", "2130706433", (403, "address_literal")),
        ("an IPv6 address", "/", "[::1]", (403, "address_literal")),
        ("a v4-mapped one", "/", "[::ffff:127.0.0.1]", (403, "address_literal")),
        ("non-ASCII", "/", "pl\xe4in.test", (400, "host_invalid")),
        ("an empty label", "/", "plain..test", (400, "host_invalid")),
        ("an empty Host", "/", "", (400, "host_invalid"))):
    got = plainly(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    if what == "an empty Host" and got[0] == 403:
        got = reason
    tap.same(f"refused: {what}", reason, got)
tap.same("refused: two Hosts", (400, "request_malformed"), plainly("GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil.test\r\n\r\n"))
tap.same("refused: NUL in Host", (400, "request_malformed"), plainly("GET / HTTP/1.1\r\nHost: HOST\0.evil.test\r\n\r\n"))
tap.same("refused: CONNECT", (403, "connect_not_allowed"), plainly("CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n"))
tap.same("refused: TRACE", (403, "trace_not_allowed"), plainly("TRACE / HTTP/1.1\r\nHost: HOST\r\n\r\n"))
tap.same("nothing of all this reached a server", [], seen)
tap.same("taken: a trailing dot and capitals", 200,
         plainly(f"GET / HTTP/1.1\r\nHost: Plain.TEST.:{plain.port}\r\n\r\n")[0])
tap.ok("and written in one form", seen and f"Host: plain.test:{plain.port}".encode() in seen[0], seen)
tap.same("taken: no port in Host on an odd port", 200, plainly("GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n")[0])
tap.ok("which the server gets", f"Host: plain.test:{plain.port}".encode() in seen[-1], seen)

for what, name in (("another name", "evil.test"), ("no host name", "a_b..c")):
    try:
        broker.tls("good.test", secure.port, server_name=name)
        tap.ok(f"TLS for {what} is refused", False, "a handshake succeeded")
    except (ssl.SSLError, ValueError, OSError) as error:
        tap.ok(f"TLS for {what} is refused", "UNRECOGNIZED_NAME" in str(error) or isinstance(error, ValueError), error)
tap.ok("and told to the log", broker.event(kind="denial", reason="host_mismatch", protocol="tls"))
stream = broker.tls("good.test", secure.port)
stream.sendall(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
status, fields, body, rest = read_message(stream)
tap.same("Host against the server name", (421, "host_mismatch"), (status, fields.get("matchlock-denied")))

# ---- TLS without a server name: then it is the name that was looked up -------------------------
nameless = ssl.create_default_context(cadata=broker.certificate)
nameless.check_hostname = False
for what, host, wanted in (("for that name", f"good.test:{secure.port}", (200, None)), ("for another", "evil.test", (421, "host_mismatch")),
                           ("for another port", f"good.test:{plain.port}", (421, "host_mismatch")), ("for an address", "127.0.0.1", (403, "address_literal"))):
    stream = nameless.wrap_socket(broker.dial("good.test", secure.port))
    tap.same("TLS without a server name has a certificate for the name that was looked up", (("DNS", "good.test"),),
             stream.getpeercert()["subjectAltName"])
    before = len(seen)
    stream.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    status, fields, body, rest = read_message(stream)
    tap.same(f"a request in it {what}", (*wanted, wanted[0] == 200), (status, fields.get("matchlock-denied"), len(seen) > before))
try:
    nameless.wrap_socket(broker.dial("good.test", secure.port), server_hostname="plain.test")
    tap.ok("one for another name that is allowed is refused", False, "a handshake succeeded")
except ssl.SSLError as error:
    tap.ok("one for another name that is allowed is refused", "UNRECOGNIZED_NAME" in str(error), error)
event = broker.event(kind="denial", reason="host_mismatch", protocol="tls")
tap.ok("which the log has", event and event["host"] == "good.test", event)
try:
    nameless.wrap_socket(broker.dial(socket.inet_aton("127.0.0.1"), secure.port))
    tap.ok("TLS to an address without a name is refused", False, "a handshake succeeded")
except ssl.SSLError as error:
    tap.ok("TLS to an address without a name is refused", "UNRECOGNIZED_NAME" in str(error), error)
event = broker.event(kind="denial", reason="server_name_invalid")
tap.ok("which the log has, too", event is not None, broker.events)

# ---- addresses ---------------------------------------------------------------------------------
for what, address in (("loopback", socket.inet_aton("127.0.0.1")), ("metadata", socket.inet_aton("169.254.169.254")),
                      ("private", socket.inet_aton("10.0.0.1")), ("public", socket.inet_aton("93.184.216.34")),
                      ("IPv6 loopback", socket.inet_pton(socket.AF_INET6, "::1")),
                      ("v4-mapped", socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")),
                      ("NAT64", socket.inet_pton(socket.AF_INET6, "64:ff9b::7f00:1")),
                      ("6to4", socket.inet_pton(socket.AF_INET6, "2002:7f00:1::1")),
                      ("synthetic, of no name", socket.inet_aton("198.19.200.7"))):
    before = plain.accepted
    got = plainly("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n", address)
    tap.same(f"a connection to an address is refused: {what}", (403, "address_literal"), got)
    tap.same("and nothing was dialled", before, plain.accepted)
try:
    stream = broker.tls("good.test", secure.port, address=socket.inet_aton("127.0.0.1"))
    stream.sendall(b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")
    status, fields, body, rest = read_message(stream)
    tap.same("over TLS too, readably", (403, "address_literal"), (status, fields.get("matchlock-denied")))
except ssl.SSLError as error:
    tap.ok("over TLS too, readably", False, error)
status, reason = plainly("GET / HTTP/1.1\r\nHost: localhost.test\r\n\r\n", "localhost.test", 80)
tap.ok("an allowed name that does not exist is a readable failure", status in (502, 504), (status, reason))

# ---- redirects ---------------------------------------------------------------------------------
for what, where, reason in (("metadata", "http://169.254.169.254/latest/meta-data/", "address_literal"),
                            ("loopback", f"http://127.0.0.1:{raw.port}/", "address_literal"),
                            ("a name that is not allowed", "http://internal.test/", "host_not_allowed")):
    stream = broker.dial("plain.test", plain.port)
    stream.sendall(f"GET /go?{where} HTTP/1.1\r\nHost: plain.test:{plain.port}\r\n\r\n".encode())
    status, fields, body, rest = read_message(stream)
    tap.same(f"a redirect to {what} is the guest's to follow", (302, where), (status, fields.get("location")))
    url = urllib.parse.urlsplit(where)
    address = socket.inet_aton(url.hostname) if url.hostname[0].isdigit() else url.hostname
    stream = broker.dial(address, url.port or 80)
    stream.sendall(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    status, fields, body, rest = read_message(stream)
    tap.same("and leads nowhere", (403, reason), (status, fields.get("matchlock-denied")))

# ---- hellos ------------------------------------------------------------------------------------
for what, hello in (("garbage", b"\xff" * 24), ("port 0", struct.pack("<IBBH", 0x30654c4d, 4, 0, 0) + bytes(16)),
                    ("family 5", struct.pack("<IBBH", 0x30654c4d, 5, 0, 80) + bytes(16)),
                    ("bytes behind an IPv4 address", struct.pack("<IBBH", 0x30654c4d, 4, 0, 80) + b"\1" * 16)):
    tap.same(f"a bad hello ends the connection: {what}", b"", read_all(broker.dial(b"", 0, hello)).replace(b"<reset>", b""))

# ---- other protocols ---------------------------------------------------------------------------
before = len(seen)
for what, data in (("binary", b"\x00\x01\x02\x03"), ("SSH", b"SSH-2.0-attack\r\n"), ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")):
    stream = broker.dial("plain.test", plain.port)
    stream.sendall(data)
    got = read_all(stream)
    tap.ok(f"what is not HTTP gets nowhere: {what}", b"200" not in got and len(seen) == before, got)
context = ssl.create_default_context(cadata=broker.certificate)
context.set_alpn_protocols(["imap"])
try:
    context.wrap_socket(broker.dial("good.test", secure.port), server_hostname="good.test")
    tap.ok("another application protocol in TLS gets an alert", False, "a handshake succeeded")
except ssl.SSLError as error:
    tap.ok("another application protocol in TLS gets an alert", "no application protocol" in str(error).lower().replace("_", " "), error)
event = broker.event(kind="denial", reason="protocol_not_allowed", protocol="tls")
tap.ok("and a line in the log", event is not None, broker.events)

stream = broker.dial("raw.test", raw.port)
greeting = read_until(stream, b"\n")
stream.sendall(b"quit\n")
stream.shutdown(1)
tap.same("another protocol by its own rule: opaque, server first", (b"220 hello\r\n", b"QUIT\nbye"),
         (greeting, read_all(stream)))
event = broker.event(kind="connection", protocol="tcp")
tap.ok("in the log with its bytes", event and event["sent"] == 5 and event["received"] == 19 and
       event["rule"].startswith("--allow-host tcp://"), event)

passing = ssl.create_default_context(cafile=authority.certificate)
passing.check_hostname = False
stream = passing.wrap_socket(broker.dial("passed.test", secure.port), server_hostname="passed.test")
tap.same("a host that is passed through shows its own certificate", (("DNS", "good.test"),),
         stream.getpeercert()["subjectAltName"])
stream.sendall(b"GET /passed HTTP/1.1\r\nHost: passed.test\r\n\r\n")
tap.same("and serves its guest", 200, read_message(stream)[0])
stream.close()
event = broker.event(kind="connection", host="passed.test") or {}
tap.same("of which the log has a connection, opaque, by which option", ("tcp", secure.port, "127.0.0.1", f"--passthrough passed.test:{secure.port}"),
         tuple(event.get(field) for field in ("protocol", "port", "address", "rule")))
tap.ok("its bytes, those of TLS included, and its time", event.get("sent", 0) > 100 and event.get("received", 0) > 500 and
       0 < event.get("duration_ns", 0) < 1e9 * TIMEOUT, event)
tap.ok("and nothing that was said in it", not {"method", "path", "status"} & set(event) and "/passed" not in str(broker.events), event)
try:
    passing.wrap_socket(broker.dial("passed.test", secure.port), server_hostname="evil.test")
    tap.ok("but not under another server name", False, "a handshake succeeded")
except (ssl.SSLError, OSError) as error:
    tap.ok("but not under another server name", True)

# ---- hostile certificates ----------------------------------------------------------------------
lax = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
lax.load_verify_locations(authority.certificate)
lax.minimum_version = lax.maximum_version = ssl.TLSVersion.TLSv1_1
lax.set_ciphers("ALL:@SECLEVEL=0")
with lax.wrap_socket(socket.create_connection(("127.0.0.1", hostile["old"].port)), server_hostname="old.test") as stream:
    stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
    tap.same("a client that takes TLS 1.1 is served by the old server", ("TLSv1.1", 200), (stream.version(), read_message(stream)[0]))
seen.clear()
for name, wanted in (("expired", "expired"), ("wrong", "hostname mismatch"), ("self", "self-signed"),
                     ("usage", "purpose"), ("stranger", "issuer"), ("beyond", "permitted subtree"),
                     ("excluded", "excluded subtree"), ("nested", "invalid CA"), ("old", "protocol version")):
    server = hostile[name]
    stream = broker.tls(f"{name}.test", server.port)
    stream.sendall(f"GET / HTTP/1.1\r\nHost: {name}.test:{server.port}\r\n\r\n".encode())
    status, fields, body, rest = read_message(stream)
    reason = fields.get("matchlock-error")
    kind = "upstream_tls" if name == "old" else "upstream_certificate"
    tap.ok(f"a server that is {name}, in its certificate or TLS: a 502 that says so",
           status == 502 and reason == kind and wanted in body.decode(), f"{status} {reason} {body}")
    tap.same(f"a server that is {name}: the log says which check failed", (kind, 502),
             (lambda event: event and (event.get("reason"), event.get("status")))(broker.event(kind="request", host=f"{name}.test")))
tap.same("no request reached them", [], seen)
stream = broker.tls("within.test", within.port)
stream.sendall(f"GET / HTTP/1.1\r\nHost: within.test:{within.port}\r\n\r\n".encode())
tap.same("a name within the constraints is taken", 200, read_message(stream)[0])

# ---- slow, huge, endless -----------------------------------------------------------------------
stream = broker.dial("plain.test", plain.port)
stream.sendall(b"GET / HTTP/1.1\r\n")
try:
    for _ in range(40):
        stream.sendall(b"X-Flood: " + b"y" * 4096 + b"\r\n")
except OSError:
    pass
got = read_all(stream)
tap.ok("a head without end is refused", got.startswith(b"HTTP/1.1 400") or got == b"<reset>", got[:100])
for name, server in (("endless", endless_server), ("interim", interim_server)):
    stream = broker.dial(f"{name}.test", server.port)
    stream.sendall(f"GET / HTTP/1.1\r\nHost: {name}.test:{server.port}\r\n\r\n".encode())
    status, rest = 103, b""
    while status == 103:
        status, fields, body, rest = read_message(stream, rest)
    tap.same(f"a server that is {name} ends as a 502", (502, "upstream_broken"), (status, fields.get("matchlock-error")))
memory = broker.resident_kib()
idle = []
for _ in range(1000):
    stream = broker.dial("plain.test", plain.port)
    idle.append(stream)
for stream in idle:
    stream.sendall(b"GET /")
stream = broker.dial("plain.test", plain.port)
stream.sendall(f"GET / HTTP/1.1\r\nHost: plain.test:{plain.port}\r\n\r\n".encode())
status, fields, body, rest = read_message(stream)
tap.same("a thousand that say no more than half a line stop nobody", 200, status)
grown = broker.resident_kib() - memory
tap.ok("and cost little", "asan" in os.environ.get("MATCHLOCK_BUILD", "") or grown < 1000 * 16, f"{grown} KiB")
for stream in idle:
    stream.close()

memory = broker.resident_kib()
stream = broker.dial("flood.test", flood_server.port)
stream.sendall(f"GET / HTTP/1.1\r\nHost: flood.test:{flood_server.port}\r\n\r\n".encode())
read_until(stream, b"\r\n\r\n")
before = -1
while flooded[0] != before:
    before = flooded[0]
    time.sleep(1)
grown = broker.resident_kib() - memory
tap.ok("a server that sends to a guest that does not read is stopped", flooded[0] > 0 and not flooded[1], flooded)
tap.ok("and the broker does not fill up", "asan" in os.environ.get("MATCHLOCK_BUILD", "") or grown < 2048, f"{grown} KiB")
stream.close()
for _ in range(100):
    if flooded[1]:
        break
    time.sleep(0.1)
tap.ok("when the guest goes, so does that server's connection", flooded[1])

# ---- certificates without end ------------------------------------------------------------------
# A certificate is made for each name, also where nothing will be allowed; an address needs no look-up first.
shown = ssl.create_default_context(cadata=broker.certificate)
failures = []


def mint(numbers):
    """One handshake for each number, with a name as long as they can be."""
    for number in numbers:
        name = f"{number}.{'.'.join(['x' * 60] * 3)}.test"
        try:
            shown.wrap_socket(broker.dial(socket.inet_aton("10.0.0.1"), 443), server_hostname=name).close()
        except OSError as failure:
            failures.append((name, failure))


mint(range(600))
memory = broker.resident_kib()
minters = [threading.Thread(target=mint, args=(range(1000 * number, 1000 * number + 700),)) for number in range(1, 4)]
stream = broker.dial("plain.test", plain.port)
for minter in minters:
    minter.start()
slowest = 0
answered = []
while any(minter.is_alive() for minter in minters):
    began = time.monotonic()
    stream.sendall(f"GET / HTTP/1.1\r\nHost: plain.test:{plain.port}\r\n\r\n".encode())
    answered.append(read_message(stream)[0])
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.01)
mint(range(5))
tap.same("a guest that has certificates made for two thousand names gets them, again for those that were forgotten", [], failures)
tap.ok("and keeps nobody waiting", len(answered) > 10 and set(answered) == {200} and slowest < 5, (len(answered), set(answered), slowest))
grown = broker.resident_kib() - memory
tap.ok("nor does it fill up the broker", "asan" in os.environ.get("MATCHLOCK_BUILD", "") or grown < 2048, f"{grown} KiB")

dns = broker.dns(b"\0\1\1\0\0\1\0\0\0\0\0\0" + b"\7example\4test\0\0\x41\0\1")
tap.same("a query for HTTPS records has no answer", 0, struct.unpack(">H", dns[6:8])[0])
tap.same("the broker ends in order after all this", 0, broker.stop())
tap.finish()
