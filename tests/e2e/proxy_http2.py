"""HTTP/2 on both legs of the broker: real clients and servers (curl, node, nginx), and an attacker's
frames. Run by proxy_http2.sh."""
import hashlib
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading

from broker import Authority, Broker, Server, Tap, bundle, read_all, read_message, read_until, spawn

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-proxy-h2-")
authority = Authority(directory)

SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"

NODE_SERVER = """
const http2 = require('http2'), fs = require('fs'), crypto = require('crypto');
const pem = fs.readFileSync(process.argv[2]);
const server = http2.createSecureServer({ key: pem, cert: pem, allowHTTP1: false });
server.on('sessionError', () => {});
server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    const path = headers[':path'];
    if (path === '/big') {
        stream.resume(); // else node resets it, which may overtake the end
        stream.respond({ ':status': 200 });
        const block = Buffer.alloc(65536, 'x');
        let left = 512;
        const more = () => { while (left > 0) { left--; if (!stream.write(block)) { stream.once('drain', more); return; } }
                             stream.end(); };
        more();
        return;
    }
    const digest = crypto.createHash('sha256');
    let length = 0;
    stream.on('data', data => { digest.update(data); length += data.length; });
    stream.on('end', () => {
        if (path === '/trailers') {
            stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
            stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'te-was': headers['te'] || 'none' }));
            stream.end('message');
        } else if (path === '/reset') {
            stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
        } else {
            stream.respond({ ':status': 200, 'content-type': 'application/json', 'alt-svc': 'h3=":443"' });
            stream.end(JSON.stringify({ version: '2', method: headers[':method'], path: path, authority: headers[':authority'],
                cookie: headers['cookie'] || '', x: headers['x-field'] || '', length: length, digest: digest.digest('hex') }));
        }
    });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""

NODE_CLIENT = """
const http2 = require('http2'), fs = require('fs');
const [ca, url, what] = process.argv.slice(2);
const host = new URL(url);
const session = http2.connect(url, { ca: fs.readFileSync(ca),
    createConnection: () => require('tls').connect({ host: '127.0.0.2', port: host.port, servername: host.hostname,
        ca: fs.readFileSync(ca), ALPNProtocols: ['h2'] }) });
session.on('error', error => { console.log(JSON.stringify({ error: error.code || error.message })); process.exit(0); });
function ask(headers, body) {
    return new Promise(resolve => {
        const request = session.request(headers), answer = { body: '' };
        request.setEncoding('utf8');
        request.on('response', got => { answer.status = got[':status']; answer.type = got['content-type'];
                                        answer.denied = got['matchlock-denied']; });
        request.on('trailers', got => { answer.trailers = got['grpc-status'] + ' ' + got['te-was']; });
        request.on('data', data => { answer.body += data.length < 1000 ? data : ''; answer.length = (answer.length || 0) + data.length; });
        request.on('error', error => { answer.error = error.code; });
        request.on('close', () => resolve(answer));
        request.end(body);
    });
}
(async () => {
    if (what === 'many')
        console.log(JSON.stringify((await Promise.all(Array.from({ length: 200 }, (_, number) =>
            ask({ ':path': '/n' + number, ':method': 'POST' }, 'b'.repeat(number))))).map(answer => JSON.parse(answer.body))));
    else if (what === 'grpc')
        console.log(JSON.stringify(await ask({ ':path': '/trailers', ':method': 'POST', te: 'trailers',
                                               'content-type': 'application/grpc' }, 'x')));
    else
        console.log(JSON.stringify(await ask({ ':path': what, ':method': 'GET', cookie: ['a=1', 'b=2'] })));
    session.close();
})();
"""


def script(name, text):
    path = os.path.join(directory, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


def start_node(certificate):
    process = spawn(["node", script("server.js", NODE_SERVER), certificate], stdout=subprocess.PIPE)
    return process, int(process.stdout.readline())


def start_nginx(certificate):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open(os.path.join(directory, "file"), "wb") as file:
        file.write(bytes(range(256)) * 65536)
    with open(os.path.join(directory, "held"), "wb") as file:
        file.write(b"a" * 1000 + SECRET + b"b" * 1000)
    config = script("nginx.conf", f"""daemon off; pid {directory}/pid; error_log {directory}/error; worker_processes 1; user root;
        events {{ }}
        http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {certificate};
                root {directory}; location = /ok {{ return 200 "$server_protocol $http_host"; }} }} }}""")
    process = spawn(["nginx", "-c", config, "-p", directory], stderr=subprocess.DEVNULL)
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except OSError:
            threading.Event().wait(0.05)
    raise RuntimeError("nginx does not start")


def serve_http1(connection):
    data = b""
    while True:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)


node, node_port = start_node(authority.leaf("node.test"))
# One server of two names; at the second one its answers are searched for a secret.
nginx, nginx_port = start_nginx(authority.leaf("nginx.test,DNS:held.test"))
old = Server(serve_http1, authority.leaf("old.test"), ["http/1.1"])
broker = Broker([f"node.test:{node_port}", f"nginx.test:{nginx_port}", f"held.test:{nginx_port}", f"old.test:{old.port}"],
                ["node.test", "nginx.test", "held.test", "old.test"], authority, bundle((b"API_KEY", SECRET, [(b"held.test", 0)], 1)))
trusted = script("session.pem", broker.certificate)


def address_of(name):
    return "127.0.0.3" if name == "held.test" else "127.0.0.2"


def relay(name, port):
    """Lets programs that know nothing of Unix sockets reach the broker: at that address, the same port."""

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept():
        while True:
            client, _ = listener.accept()
            stream = broker.dial(name, port)
            stream.settimeout(None)
            for ends in ((client, stream), (stream, client)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    listener = socket.create_server((address_of(name), port), backlog=128)
    threading.Thread(target=accept, daemon=True).start()


for name, port in (("node.test", node_port), ("nginx.test", nginx_port), ("held.test", nginx_port), ("old.test", old.port)):
    relay(name, port)


def curl(name, port, path, *options):
    result = subprocess.run(["curl", "-sS", "--max-time", "30", "--cacert", trusted, "--resolve", f"{name}:{port}:{address_of(name)}",
                             "-o", "-", "-w", "\n%{http_version} %{http_code}", *options, f"https://{name}:{port}{path}"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    body, _, rest = result.stdout.rpartition(b"\n")
    return body, rest.decode()


def client(name, port, what):
    result = subprocess.run(["node", script("client.js", NODE_CLIENT), trusted, f"https://{name}:{port}", what],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    try:
        return json.loads(result.stdout)
    except ValueError:
        return result.stdout


# ---- real clients, real servers ------------------------------------------------------------------
body, rest = curl("nginx.test", nginx_port, "/ok")
tap.same("curl and nginx over HTTP/2", (f"HTTP/2.0 nginx.test:{nginx_port}".encode(), "2 200"), (body, rest))
body, rest = curl("nginx.test", nginx_port, "/ok", "--http1.1")
tap.same("a client of HTTP/1.1 gets that on both legs", (f"HTTP/1.1 nginx.test:{nginx_port}".encode(), "1.1 200"), (body, rest))
body, rest = curl("old.test", old.port, "/ok")
tap.same("where the server has no HTTP/2, neither has the client", "1.1 200", rest)
body, rest = curl("nginx.test", nginx_port, "/file")
tap.same("16 MiB arrive whole", hashlib.sha256(bytes(range(256)) * 65536).hexdigest(), hashlib.sha256(body).hexdigest())
body, rest = curl("node.test", node_port, "/upload", "--data-binary", f"@{directory}/file", "-H", "Expect:")
answer = json.loads(body) if body.startswith(b"{") else {"raw": body}
tap.same("16 MiB go up whole", (16777216, hashlib.sha256(bytes(range(256)) * 65536).hexdigest()),
         (answer.get("length"), answer.get("digest")))
event = broker.event(kind="request", path="/upload")
tap.ok("and are in the log", event and event["sent"] == 16777216 and event["protocol"] == "h2" and event["status"] == 200, event)
body, rest = curl("node.test", node_port, "/x", "-i")
head = body.lower().partition(b"\r\n\r\n")[0]
tap.ok("an answer arrives without Alt-Svc, which would lead round the broker", rest == "2 200" and
       b"content-type: application/json" in head and b"alt-svc" not in head, (rest, head))
answer = client("node.test", node_port, "/x?q=1")
inner = json.loads(answer["body"]) if isinstance(answer, dict) and answer.get("body") else {}
tap.same("a request of node's", (200, "GET", "/x?q=1", f"node.test:{node_port}", "a=1; b=2"),
         (answer.get("status"), inner.get("method"), inner.get("path"), inner.get("authority"), inner.get("cookie")))
answers = client("node.test", node_port, "many")
tap.ok("200 requests on one connection, each with its own body", isinstance(answers, list) and
       [(got["path"], got["length"]) for got in answers] == [(f"/n{number}", number) for number in range(200)], answers)
answer = client("node.test", node_port, "grpc")
tap.same("trailers and TE pass", (200, "message", "0 trailers"),
         (answer.get("status"), answer.get("body"), answer.get("trailers")))
body, rest = curl("node.test", node_port, "/big")
tap.same("32 MiB of one stream, without a length", (32 << 20, "2 200"), (len(body), rest))
answer = client("node.test", node_port, "/reset")
tap.same("a stream that the server resets is a 502", 502, answer.get("status"))
tap.ok("a client that has only HTTP/2 gets no connection where the server has none", "error" in client("old.test", old.port, "/x"))

# ---- parts of a file, at a host that has a secret --------------------------------------------------
placeholder = broker.placeholders["API_KEY"].encode()
whole = b"a" * 1000 + placeholder + b"b" * 1000
size = len(whole)


def part(version, *options):
    """Status, the fields of the head, the body."""
    body, rest = curl("held.test", nginx_port, "/held", version, "-i", "-H", f"Authorization: Bearer {placeholder.decode()}", *options)
    head, _, body = body.partition(b"\r\n\r\n")
    lines = (line.partition(":") for line in head.decode().split("\r\n")[1:])
    return rest, {name.lower(): value.strip() for name, _, value in lines}, body


for version, number in ("--http1.1", "1.1"), ("--http2", "2"):
    rest, fields, body = part(version)
    etag = fields.get("etag", "")
    tap.same(f"HTTP/{number}: the whole file, with the placeholder in the secret's place", (f"{number} 200", whole), (rest, body))
    for what, given, first, last in (("before the secret", "0-999", 0, 999), ("around it", "990-1065", 990, 1065),
                                     ("up to its end", f"1000-{999 + len(SECRET)}", 1000, 999 + len(SECRET)),
                                     ("at the end", "-10", size - 10, size - 1)):
        rest, fields, body = part(version, "-H", f"Range: bytes={given}")
        tap.same(f"HTTP/{number}: a range {what}", (f"{number} 206", f"bytes {first}-{last}/{size}", str(last - first + 1), whole[first:last + 1]),
                 (rest, fields.get("content-range"), fields.get("content-length"), body))
    rest, fields, body = part(version, "-H", "Range: bytes=990-1065", "-H", f"If-Range: {etag}")
    tap.same(f"HTTP/{number}: a range if the file is the same", (f"{number} 206", True, whole[990:1066]), (rest, bool(etag), body))
    rest, fields, body = part(version, "-H", "Range: bytes=990-1065", "-H", 'If-Range: "another"')
    tap.same(f"HTTP/{number}: the whole one if it is not", (f"{number} 200", None, whole), (rest, fields.get("content-range"), body))
    rest, fields, body = part(version, "-H", "Range: bytes=0-9,990-1065")
    tap.ok(f"HTTP/{number}: two ranges", rest == f"{number} 206" and fields.get("content-type", "").startswith("multipart/byteranges") and
           b"\r\n\r\n" + whole[:10] + b"\r\n" in body and b"\r\n\r\n" + whole[990:1066] + b"\r\n" in body, (rest, fields, body))
    rest, fields, body = part(version, "-H", f"Range: bytes={size}-")
    tap.same(f"HTTP/{number}: a range behind the end", (f"{number} 416", f"bytes */{size}"), (rest, fields.get("content-range")))
    event = broker.event(kind="request", host="held.test", protocol="h2" if number == "2" else "https", status=206)
    tap.same(f"HTTP/{number}: the log has what was received", ("API_KEY", 1000), event and (event.get("secrets"), event["received"]))

# ---- frames of an attacker's -----------------------------------------------------------------------
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A field that is not indexed, without Huffman coding."""

    def text(raw):
        assert len(raw) < 127
        return bytes([len(raw)]) + raw

    return b"\x00" + text(name) + text(value)


def headers(stream, fields, ends=True):
    return frame(1, 4 | (1 if ends else 0), stream, b"".join(literal(name, value) for name, value in fields))


def fields_for(port, name=b"node.test", path=b"/x", extra=()):
    return [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"%s:%d" % (name, port)), (b":path", path), *extra]


def attack(data):
    """The frames that come back: (type, stream, payload)."""
    stream = broker.tls("node.test", node_port, protocols=("h2",))
    stream.sendall(PREFACE + frame(4, 0, 0, b"") + data)
    got = b""
    frames = []
    while True:
        while len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], "big"):
            length = int.from_bytes(got[:3], "big")
            frames.append((got[3], int.from_bytes(got[5:9], "big"), got[9:9 + length]))
            got = got[9 + length:]
            # An answer to the last request, its reset, or the connection's end is enough.
            if frames[-1][0] in (1, 3, 7):
                return frames
        try:
            more = stream.recv(65536)
        except OSError:
            return frames
        if not more:
            return frames
        got += more


def is_misdirected(frames):
    """A head that begins with ":status: 421", in Huffman's code."""
    return any(kind == 1 and payload.startswith(b"H\x82hA") for kind, _, payload in frames)


def is_refused(frames):
    """No 200 (0x88, index 8 of the static table) but a reset or the connection's end."""
    return any(kind in (3, 7) for kind, _, _ in frames) and not any(kind == 1 for kind, _, _ in frames)


good = attack(headers(1, fields_for(node_port)))
tap.ok("the harness can ask", any(kind == 1 for kind, _, _ in good), good)
for what, extra in (("CR LF in a value", [(b"x", b"a\r\nEvil: 1")]), ("LF in a value", [(b"x", b"a\nb")]),
                    ("NUL in a value", [(b"x", b"a\0b")]), ("a capital letter in a name", [(b"Xx", b"a")]),
                    ("a colon in a name", [(b"x:y", b"a")]), ("a space in a name", [(b"x y", b"a")]),
                    ("CR LF in a name", [(b"x\r\ny", b"a")]), ("Connection", [(b"connection", b"close")]),
                    ("Transfer-Encoding", [(b"transfer-encoding", b"chunked")]), ("Upgrade", [(b"upgrade", b"h2c")]),
                    ("Keep-Alive", [(b"keep-alive", b"5")]), ("Proxy-Connection", [(b"proxy-connection", b"close")]),
                    ("TE other than trailers", [(b"te", b"gzip")]), ("an unknown pseudo-field", [(b":x", b"a")]),
                    ("a pseudo-field behind a field", [(b"x", b"a"), (b":path", b"/y")]),
                    ("two paths", [(b":path", b"/y")]), ("two lengths", [(b"content-length", b"0"), (b"content-length", b"1")]),
                    ("a length that is no number", [(b"content-length", b"+0")]),
                    ("a length and no data", [(b"content-length", b"5")])):
    frames = attack(headers(1, fields_for(node_port, extra=extra)))
    tap.ok(f"refused: {what}", is_refused(frames), frames)
frames = attack(headers(1, fields_for(node_port, path=b"/a b")))
tap.ok("refused: a space in the path", is_refused(frames), frames)
frames = attack(headers(1, fields_for(node_port, path=b"/a\r\nHost: evil.test\r\n")))
tap.ok("refused: CR LF in the path", is_refused(frames), frames)
frames = attack(headers(1, fields_for(node_port, extra=[(b"content-length", b"3")]), ends=False) + frame(0, 1, 1, b"abcd"))
tap.ok("refused: more data than the length", is_refused(frames), frames)
frames = attack(headers(1, fields_for(node_port, name=b"evil.test")))
tap.ok("another authority is a 421", is_misdirected(frames), frames)
event = broker.event(kind="denial", reason="host_mismatch")
tap.ok("and a line in the log", event is not None)
frames = attack(headers(1, fields_for(node_port, extra=[(b"host", b"evil.test")])))
tap.ok("so is another Host beside it", is_misdirected(frames), frames)

# ---- WebSocket over HTTP/2 (RFC 8441), which is not spoken -------------------------------------------
def first_frames(data):
    """All frames that come until the connection ends or a stream does: (type, stream, payload)."""
    stream = broker.tls("node.test", node_port, protocols=("h2",))
    stream.settimeout(5)
    stream.sendall(PREFACE + frame(4, 0, 0, b"") + data)
    got, frames = b"", []
    while True:
        while len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], "big"):
            length = int.from_bytes(got[:3], "big")
            frames.append((got[3], int.from_bytes(got[5:9], "big"), got[9:9 + length]))
            got = got[9 + length:]
            if frames[-1][0] in (3, 7) or (frames[-1][0] == 0 and frames[-1][1] > 0):
                return frames
        try:
            more = stream.recv(65536)
        except OSError:
            return frames
        if not more:
            return frames
        got += more


upgrade = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":path", b"/x"),
           (b":authority", b"node.test:%d" % node_port), (b"sec-websocket-version", b"13")]
frames = first_frames(headers(1, upgrade, ends=False))
settings = [payload for kind, stream, payload in frames if kind == 4 and payload]
identifiers = [int.from_bytes(payload[at:at + 2], "big") for payload in settings for at in range(0, len(payload), 6)]
tap.ok("the settings do not offer extended CONNECT, so that clients take HTTP/1.1 for a WebSocket", identifiers and 8 not in identifiers,
       identifiers)
errors = [int.from_bytes(payload[-4:] if kind == 3 else payload[4:8], "big") for kind, _, payload in frames if kind in (3, 7)]
tap.same("one that asks all the same has its stream ended with PROTOCOL_ERROR", ([1], False),
         (errors, any(kind in (0, 1) for kind, _, _ in frames)))
frames = first_frames(headers(1, [(b":method", b"CONNECT"), (b":authority", b"node.test:%d" % node_port)], ends=False))
answered = b"".join(payload for kind, stream, payload in frames if kind == 0)
tap.ok("a CONNECT without a protocol is refused with a 403", b"connect_not_allowed" in answered, frames)
tap.ok("and told to the log", broker.event(kind="denial", reason="connect_not_allowed"))
body, rest = curl("node.test", node_port, "/after")
tap.same("and stops nobody", "2 200", rest)

memory = broker.resident_kib()
for _ in range(5):
    stream = broker.tls("node.test", node_port, protocols=("h2",))
    stream.sendall(PREFACE + frame(4, 0, 0, b""))
    try:
        for number in range(1, 4001, 2):
            stream.sendall(headers(number, fields_for(node_port)) + frame(3, 0, number, struct.pack(">I", 8)))
    except OSError:
        pass
    stream.close()
body, rest = curl("node.test", node_port, "/after")
tap.same("ten thousand streams that are reset at once stop nobody", "2 200", rest)
grown = broker.resident_kib() - memory
tap.ok("and cost little", "asan" in os.environ.get("MATCHLOCK_BUILD", "") or grown < 8192, f"{grown} KiB")


def flood(first, piece, count):
    """How many pieces go behind `first` before the connection ends, and the kinds of frames that came back. All of
    them are more than what sockets hold, so they only go when somebody reads them."""
    stream = broker.tls("node.test", node_port, protocols=("h2",))
    stream.sendall(PREFACE + frame(4, 0, 0, b"") + first)
    went = 0
    try:
        while went < count:
            stream.sendall(piece)
            went += 1
    except OSError:
        pass
    got = b"" if went == count else read_all(stream)
    kinds = []
    while len(got) >= 9:
        kinds.append(got[3])
        got = got[9 + int.from_bytes(got[:3], "big"):]
    return went, kinds


begun = b"".join(literal(name, value) for name, value in fields_for(node_port))
memory = broker.resident_kib()
spent = broker.processor_seconds()
for what, first, piece in (("of large fields", begun, literal(b"x", b"y" * 100) * 10), ("in frames of nothing", begun, b""),
                           ("in frames of one field", begun, b"\x82"), ("that cannot be decoded", b"\x00", literal(b"x", b"y" * 100))):
    went, kinds = flood(frame(1, 0, 1, first), frame(9, 0, 1, piece), 20000)
    tap.ok(f"a head without end ends the connection, unanswered: {what}", went < 20000 and not {0, 1} & set(kinds), (went, kinds))
tap.ok("before it costs anything", "asan" in os.environ.get("MATCHLOCK_BUILD", "") or
       (broker.resident_kib() - memory < 2048 and broker.processor_seconds() - spent < 1),
       (broker.resident_kib() - memory, broker.processor_seconds() - spent))
# In so few frames that only its size is wrong.
filler = literal(b"x", b"y" * 100) * (16384 // 104)
frames = attack(frame(1, 1, 1, begun) + frame(9, 0, 1, filler) * 5 + frame(9, 4, 1, filler))
tap.ok("a head that is too large is refused", not any(kind in (0, 1) for kind, _, _ in frames), frames)
body, rest = curl("node.test", node_port, "/after")
tap.same("and none of them stops anybody", "2 200", rest)

for process in (node, nginx):
    process.terminate()
    process.wait(20)
tap.same("the broker ends in order", 0, broker.stop())
shutil.rmtree(directory, ignore_errors=True)
tap.finish()
