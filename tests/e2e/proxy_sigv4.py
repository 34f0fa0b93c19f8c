"""AWS Signature Version 4 through the broker: run by proxy_sigv4.sh. Signatures are made and checked here
from AWS's description alone (IAM User Guide, "Create a signed AWS API request"), with nothing of the broker's."""
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

from broker import Authority, Broker, Server, Tap, bundle, pump, read_message, read_until, spawn

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-proxy-sigv4-")
authority = Authority(directory)
KEY_ID, KEY, TOKEN = b"AKIAIOSFODNN7EXAMPLE", b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", b"IQoJb3JpZ2luX2VjEXAMPLETOKEN0123456789"
LIMIT = 1 << 20  # of a body that is collected, as docs/egress-secrets.md has it
DATE = "20260101T120000Z"
SCOPE = "20260101/us-east-1/%s/aws4_request"
seen = []  # what reached a server: (method, path, fields, body, what is wrong with the signature)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def signature_of(method, path, fields, names, payload, key, scope, again):
    """`fields` is a list of pairs; `again` is for services other than S3, whose paths are escaped once more."""
    path, _, query = path.partition("?")
    parameters = sorted(tuple(urllib.parse.quote(urllib.parse.unquote(part), safe="-_.~") for part in
                              (one.partition("=")[0], one.partition("=")[2])) for one in query.split("&") if one)
    lines = [method, urllib.parse.quote(path, safe="/-_.~") if again else path,
             "&".join(f"{name}={value}" for name, value in parameters)]
    for name in names:
        lines.append(f"{name}:" + ",".join(" ".join(value.split()) for field, value in fields if field == name))
    lines += ["", ";".join(names), payload]
    text = "\n".join(["AWS4-HMAC-SHA256", dict(fields)["x-amz-date"], scope, digest("\n".join(lines).encode())])
    made = b"AWS4" + key
    for part in scope.split("/"):
        made = hmac.digest(made, part.encode(), "sha256")
    return hmac.digest(made, text.encode(), "sha256").hex()


def signed(method, path, host, body=b"", said=None, service="s3", key_id=None, key=None, extra=()):
    """The fields of a request as a client makes them; `said` is what the head tells of the payload, if it does."""
    fields = [("host", host), ("x-amz-date", DATE), *extra]
    if said:
        fields.append(("x-amz-content-sha256", said))
    names = sorted(name for name, _ in fields)
    scope = SCOPE % service
    made = signature_of(method, path, fields, names, said or digest(body), key or broker.placeholders["AWS_SECRET_ACCESS_KEY"].encode(),
                        scope, service != "s3")
    fields.append(("authorization", f"AWS4-HMAC-SHA256 Credential={key_id or broker.placeholders['AWS_ACCESS_KEY_ID']}/{scope}, "
                                    f"SignedHeaders={';'.join(names)}, Signature={made}"))
    return fields


def fault(method, path, fields, body_digest):
    """What AWS would refuse such a request for; None for nothing."""
    had = dict(fields)
    kind, _, rest = had.get("authorization", "").partition(" ")
    if kind != "AWS4-HMAC-SHA256":
        return "no signature"
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    key_id, _, scope = parts["Credential"].partition("/")
    if key_id != KEY_ID.decode():
        return f"key {key_id}"
    payload = had.get("x-amz-content-sha256", body_digest)
    if len(payload) == 64 and payload != body_digest:
        return "another body"
    wanted = signature_of(method, path, fields, parts["SignedHeaders"].split(";"), payload, KEY, scope, "/s3/" not in scope)
    return None if parts["Signature"] == wanted else "SignatureDoesNotMatch"


def take(connection, data, length):
    while len(data) < length:
        more = connection.recv(65536)
        if not more:
            raise ValueError("cut")
        data += more
    return data[:length], data[length:]


def take_chunks(connection, data, had):
    """The trailers become fields of `had`."""
    body = b""
    while True:
        size, _, data = read_until(connection, b"\r\n", data).partition(b"\r\n")
        if int(size, 16) == 0:
            break
        piece, data = take(connection, data, int(size, 16) + 2)
        body += piece[:-2]
    while True:
        line, _, data = read_until(connection, b"\r\n", data).partition(b"\r\n")
        if not line:
            return body, data
        name, _, value = line.decode().partition(": ")
        had[f"trailer {name.lower()}"] = value


def serve(connection):
    data = b""
    while data := read_until(connection, b"\r\n\r\n", data):
        head, _, data = data.partition(b"\r\n\r\n")
        heads.append(head)
        lines = head.decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        had = dict(fields)
        if had.get("expect") == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if had.get("transfer-encoding") == "chunked":
            body, data = take_chunks(connection, data, had)
        else:
            body, data = take(connection, data, int(had.get("content-length", "0")))
        wrong = fault(method, path, fields, digest(body))
        seen.append((method, path, had, body, wrong))
        connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nok" % (b"403 Forbidden" if wrong else b"200 OK"))


heads = []
server = Server(serve, authority.leaf("aws.test"), ["http/1.1"])
stranger = Server(serve, authority.leaf("other.test"), ["http/1.1"])
plain = Server(serve)

# Tells this test what it got, which is judged here. In its answer the broker would put placeholders.
NODE_SERVER = """
const http2 = require('http2'), fs = require('fs'), crypto = require('crypto');
const pem = fs.readFileSync(process.argv[2]);
const server = http2.createSecureServer({ key: pem, cert: pem, allowHTTP1: false });
server.on('sessionError', () => {});
let asked = 0;
server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    asked++;
    const hash = crypto.createHash('sha256');
    stream.on('data', data => hash.update(data));
    stream.on('end', () => { console.log(JSON.stringify({ headers, asked, digest: hash.digest('hex') }));
                             stream.respond({ ':status': 200 });
                             stream.end('ok'); });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""
node = None
if shutil.which("node"):
    script = os.path.join(directory, "server.js")
    with open(script, "w", encoding="ascii") as file:
        file.write(NODE_SERVER)
    node = spawn(["node", script, authority.leaf("two.test")], stdout=subprocess.PIPE)
    node_port = int(node.stdout.readline())

hosts = [(b"aws.test", 0), (b"two.test", 0)]
ports = [f"aws.test:{server.port}", f"aws.test:{plain.port}", f"other.test:{stranger.port}"]
broker = Broker(ports + ([f"two.test:{node_port}"] if node else []), ["aws.test", "other.test", "two.test"], authority,
                bundle((b"AWS_ACCESS_KEY_ID", KEY_ID, hosts, 2), (b"AWS_SECRET_ACCESS_KEY", KEY, hosts, 3),
                       (b"AWS_SESSION_TOKEN", TOKEN, hosts, 4)))
HOST = f"aws.test:{server.port}"
events = []


def head_of(method, path, fields):
    return f"{method} {path} HTTP/1.1\r\n".encode() + b"".join(f"{name}: {value}\r\n".encode() for name, value in fields) + b"\r\n"


def ask(method, path, fields, *pieces, to=("aws.test", server.port), tls=True):
    """The answer's status, why it was refused, and how many interim ones came. Of several pieces each is sent
    a while after the one before."""
    stream = broker.tls(*to) if tls else broker.dial(*to)
    stream.sendall(head_of(method, path, fields))
    interims = 0
    data = b""
    if dict(fields).get("expect"):
        status, _, _, data = read_message(stream, data)
        if status != 100:
            return status, None, 0
        interims = 1
    for number, piece in enumerate(pieces):
        if number > 0:
            time.sleep(0.3)
        try:
            stream.sendall(piece)
        except OSError:
            break  # it was refused before all was there
    status, had, _, _ = read_message(stream, data)
    return status, had.get("matchlock-denied") or had.get("matchlock-error"), interims


def sent_on(what, wanted_body, answer, interims=0):
    """That the request went through, and that the server found it to be signed with the real key."""
    tap.same(f"{what}: the server takes the signature", (200, None, interims), answer)
    got = seen.pop() if seen else (None,) * 5
    tap.same(f"{what}: which is by the real key, over what arrived", (None, digest(wanted_body)),
             (got[4], digest(got[3] or b"")))
    event = broker.event(kind="request", host="aws.test")
    tap.ok(f"{what}: the log names the secrets and what was sent", event and event["sent"] == len(wanted_body) and
           "AWS_SECRET_ACCESS_KEY" in event.get("secrets", ""), event)
    events.append(event)
    return got


def refused(what, wanted, answer, host="aws.test"):
    tap.same(f"{what}: refused", wanted, answer[:2])
    tap.same(f"{what}: nothing reached a server", ([], []), (seen, heads))
    event = broker.event(kind="denial", reason=wanted[1], host=host)
    tap.ok(f"{what}: the log has it", event is not None, broker.events)
    events.append(event)
    heads.clear()


def chunks(*pieces):
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]


# ---- what can be signed anew -----------------------------------------------------------------------------
body = b"text " * 5000
path = "/bucket/a%20key?prefix=b%20c&list-type=2&empty&a=~%2F"
got = sent_on("a request with a query", b"", ask("GET", path, signed("GET", path, HOST, extra=[("range", "bytes=0-9")])))
tap.same("the target is as it was", path, got[1])
got = sent_on("one with a session's token", b"", ask("GET", "/", signed(
    "GET", "/", HOST, extra=[("x-amz-security-token", broker.placeholders["AWS_SESSION_TOKEN"])])))
tap.same("which is replaced, too", TOKEN.decode(), (got[2] or {}).get("x-amz-security-token"))
sent_on("a service that escapes paths once more", b"", ask("GET", "/a%20b/c", signed("GET", "/a%20b/c", HOST, service="es")))
fields = [("content-length", str(len(body)))]
sent_on("a body whose hash is in the head", body, ask("PUT", "/o", signed("PUT", "/o", HOST, body, digest(body)) + fields, body))
big = os.urandom(2 * LIMIT)
sent_on("such a body of any size", big,
        ask("PUT", "/o", signed("PUT", "/o", HOST, big, digest(big)) + [("content-length", str(len(big)))], big))
sent_on("a payload that is not signed", body,
        ask("PUT", "/o", signed("PUT", "/o", HOST, body, "UNSIGNED-PAYLOAD") + fields, body))
sent_on("a body that only the signature covers", body, ask("POST", "/", signed("POST", "/", HOST, body) + fields, body[:100], body[100:]))
sent_on("the same in chunks", body, ask("POST", "/", signed("POST", "/", HOST, body) + [("transfer-encoding", "chunked")],
                                        *chunks(body[:7], body[7:]), b"0\r\n\r\n"))
got = sent_on("and with a trailer", body, ask("POST", "/", signed("POST", "/", HOST, body) + [("transfer-encoding", "chunked")],
                                              *chunks(body), b"0\r\nX-Sum: 42\r\n\r\n"))
tap.same("which arrives behind it", "42", (got[2] or {}).get("trailer x-sum"))
sent_on("an empty body in chunks", b"", ask("POST", "/", signed("POST", "/", HOST) + [("transfer-encoding", "chunked")], b"0\r\n\r\n"))
got = sent_on("a body that waits to be asked for", body,
              ask("POST", "/", signed("POST", "/", HOST, body) + fields + [("expect", "100-continue")], body), 1)
tap.ok("which the broker asked for, so that the server has no part in it", got[2] and "expect" not in got[2], got[2])
got = sent_on("one that waits, and whose hash is known", body,
              ask("POST", "/", signed("POST", "/", HOST, body, digest(body)) + fields + [("expect", "100-continue")], body), 1)
tap.same("which is the server's to ask for", "100-continue", (got[2] or {}).get("expect"))
whole = os.urandom(LIMIT)
sent_on("a body of just the limit", whole,
        ask("POST", "/", signed("POST", "/", HOST, whole) + [("content-length", str(LIMIT))], whole))
sent_on("the same in chunks, whose end comes later", whole,
        ask("POST", "/", signed("POST", "/", HOST, whole) + [("transfer-encoding", "chunked")], *chunks(whole), b"0\r\n\r\n"))
stream = broker.tls("aws.test", server.port)
for number in range(3):
    text = b"%d" % number * 1000
    stream.sendall(head_of("POST", "/", signed("POST", "/", HOST, text) + [("content-length", str(len(text)))]) + text)
    status, had, _, _ = read_message(stream)
    sent_on(f"request {number + 1} of one connection", text, (status, had.get("matchlock-denied"), 0))
stream.close()
tap.ok("no server ever saw a placeholder, nor the secret key", heads and not any(
    text in head for head in heads for text in (KEY, *(value.encode() for value in broker.placeholders.values()))), heads)
heads.clear()

# ---- what cannot -----------------------------------------------------------------------------------------
more = whole + b"x"
no = (403, "signature_not_possible")
refused("a body over the limit", (413, "signature_not_possible"),
        ask("POST", "/", signed("POST", "/", HOST, more) + [("content-length", str(len(more)))], more))
refused("the same in chunks", (413, "signature_not_possible"),
        ask("POST", "/", signed("POST", "/", HOST, more) + [("transfer-encoding", "chunked")], *chunks(whole, b"x"), b"0\r\n\r\n"))
refused("another body than the signed one", no, ask("POST", "/", signed("POST", "/", HOST, body) + fields, body[:-1] + b"!"))
refused("another path", no, ask("GET", "/b", signed("GET", "/a", HOST)))
refused("another method", no, ask("DELETE", "/a", signed("GET", "/a", HOST)))
refused("a field that was changed", no,
        ask("GET", "/", [(name, "bytes=0-" if name == "range" else value) for name, value in
                         signed("GET", "/", HOST, extra=[("range", "bytes=0-9")])]))
refused("a signature by another key", no, ask("GET", "/", signed("GET", "/", HOST, key=b"x" * len(KEY))))
# Who has the real key is not helped by it: what the guest signs with is the placeholder.
refused("a signature by the real key", no, ask("GET", "/", signed("GET", "/", HOST, key=KEY)))
refused("each chunk signed", no,
        ask("PUT", "/o", signed("PUT", "/o", HOST, body, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") + fields, body))
refused("somebody else's key", (403, "foreign_credential"), ask("GET", "/", signed("GET", "/", HOST, key_id="AKIAATTACKERSKEY0000")))
query = (f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={broker.placeholders['AWS_ACCESS_KEY_ID']}%2F{SCOPE % 's3'}"
         f"&X-Amz-Date={DATE}&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}")
refused("a signature in the URL", (403, "foreign_credential"), ask("GET", f"/?{query}", [("host", HOST)]))
refused("another host", (403, "secret_wrong_host"),
        ask("GET", "/", signed("GET", "/", f"other.test:{stranger.port}"), to=("other.test", stranger.port)), "other.test")
refused("without TLS", (403, "secret_needs_tls"),
        ask("GET", "/", signed("GET", "/", f"aws.test:{plain.port}"), to=("aws.test", plain.port), tls=False))
stream = broker.tls("aws.test", server.port)
stream.sendall(head_of("POST", "/", signed("POST", "/", HOST, body) + fields) + body[:-1])
stream.close()
event = broker.event(kind="request", reason="request_broken")
tap.ok("a body that breaks off is in the log", event is not None, broker.events)
tap.same("and reached no server", ([], []), (seen, heads))

# ---- HTTP/2 ----------------------------------------------------------------------------------------------


def relay():
    """Lets curl reach the broker: at 127.0.0.2, the same port."""
    while True:
        client, _ = listener.accept()
        stream = broker.dial("two.test", node_port)
        stream.settimeout(None)
        for ends in ((client, stream), (stream, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def curl(method, path, fields, data=b"", *more):
    """Version and status, and the answer."""
    upload = os.path.join(directory, "upload")
    with open(upload, "wb") as file:
        file.write(data)
    options = [option for name, value in fields if name != "host" for option in ("-H", f"{name}: {value}")]
    result = subprocess.run(["curl", "-sS", "--max-time", "30", "--http2", "--cacert", trusted, "--path-as-is", "-X", method,
                             "--resolve", f"two.test:{node_port}:127.0.0.2", "-H", "Expect:", "-H", "Content-Type:", *options, *more,
                             *(["--data-binary", f"@{upload}"] if data else []), "-w", "\n%{http_version} %{http_code}",
                             f"https://{two}{path}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text, _, rest = result.stdout.decode().rpartition("\n")
    return rest, text


if node:
    listener = socket.create_server(("127.0.0.2", node_port), backlog=16)
    threading.Thread(target=relay, daemon=True).start()
    trusted = os.path.join(directory, "session.pem")
    with open(trusted, "w", encoding="ascii") as file:
        file.write(broker.certificate)
    two = f"two.test:{node_port}"
    asked = 0
    for what, method, path, data, said in (
            ("a request with a query", "GET", "/a%20b?z=1&a=2", b"", None),
            ("a body whose hash is in the head", "PUT", "/o", body, digest(body)),
            ("a payload that is not signed", "PUT", "/o", body, "UNSIGNED-PAYLOAD"),
            ("a body that only the signature covers", "POST", "/", body, None),
            ("a body of just the limit", "POST", "/", whole, None)):
        rest, told = curl(method, path, signed(method, path, two, data, said), data)
        tap.same(f"HTTP/2, {what}: goes through", "2 200", rest)
        if rest != "2 200":
            continue
        asked += 1
        told = json.loads(node.stdout.readline())
        fields = [("host" if name == ":authority" else name, value) for name, value in told["headers"].items()]
        tap.same(f"HTTP/2, {what}: signed with the real key, over what arrived", (None, digest(data), asked),
                 (fault(method, path, fields, told.get("digest")), told.get("digest"), told.get("asked")))
    # What a client of others' making signs.
    pair = f"{broker.placeholders['AWS_ACCESS_KEY_ID']}:{broker.placeholders['AWS_SECRET_ACCESS_KEY']}"
    for service in ("es", "s3"):
        rest, _ = curl("POST", "/a/b", [], body, "--aws-sigv4", f"aws:amz:us-east-1:{service}", "--user", pair)
        tap.same(f"HTTP/2, as curl signs for {service}: goes through", "2 200", rest)
        if rest != "2 200":
            continue
        asked += 1
        told = json.loads(node.stdout.readline())
        fields = [("host" if name == ":authority" else name, value) for name, value in told["headers"].items()]
        tap.same(f"HTTP/2, as curl signs for {service}: signed with the real key", (None, digest(body), asked),
                 (fault("POST", "/a/b", fields, told.get("digest")), told.get("digest"), told.get("asked")))
    for what, data, fields, wanted, reason in (
            ("a body over the limit", more, signed("POST", "/", two, more), "2 413", "signature_not_possible"),
            ("another body than the signed one", body + b"!", signed("POST", "/", two, body), "2 403", "signature_not_possible"),
            ("a signature by another key", b"", signed("POST", "/", two, key=b"x" * 40), "2 403", "signature_not_possible"),
            ("somebody else's key", b"", signed("POST", "/", two, key_id="AKIAATTACKERSKEY0000"), "2 403", "foreign_credential")):
        rest, told = curl("POST", "/", fields, data)
        tap.ok(f"HTTP/2, {what}: refused", rest == wanted and reason in told, (rest, told))
        tap.ok(f"HTTP/2, {what}: the log has it", broker.event(kind="denial", host="two.test", reason=reason))
    curl("GET", "/", signed("GET", "/", two))
    tap.same("HTTP/2: none of these reached the server", asked + 1, json.loads(node.stdout.readline()).get("asked"))
    node.terminate()
    node.wait(20)
else:
    tap.ok("HTTP/2 # SKIP node is not installed", True)

tap.same("the broker ends in order", 0, broker.stop())
told = json.dumps(events + broker.events)
tap.ok("the log holds no value of a secret", len(events) > 20 and not any(value.decode() in told for value in (KEY_ID, KEY, TOKEN)), told)
shutil.rmtree(directory, ignore_errors=True)
tap.finish()
