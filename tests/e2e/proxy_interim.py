"""Interim responses (100, 103) and Expect through the broker: run by proxy_interim.sh."""
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading

from broker import Authority, Broker, Server, Tap, bundle, pump, read_message, read_until, spawn

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-proxy-interim-")
authority = Authority(directory)
SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"

# Over HTTP/2: what each path does with interim responses; `continue` asks for bodies.
NODE_SERVER = """
const http2 = require('http2'), fs = require('fs');
const pem = fs.readFileSync(process.argv[2]);
const server = http2.createSecureServer({ key: pem, cert: pem, allowHTTP1: false });
server.on('sessionError', () => {});
const answer = (request, response, continued) => {
    let length = 0;
    request.on('data', data => { length += data.length; });
    request.on('end', () => response.end(JSON.stringify({ continued, length })));
};
server.on('checkContinue', (request, response) => {
    if (request.url === '/refuse') { response.writeHead(403); response.end('no'); return; }
    response.writeContinue();
    answer(request, response, true);
});
server.on('request', (request, response) => {
    const hints = parseInt(request.url.split('/early/')[1] || '0');
    for (let i = 0; i < hints; i++)
        response.stream.additionalHeaders({ ':status': 103, link: `</${i}.css>; rel=preload`,
                                            'x-key': request.headers['authorization'] || '' });
    if (request.url === '/late') {
        response.stream.additionalHeaders({ ':status': 103, link: '</0.css>; rel=preload' });
        setTimeout(() => answer(request, response, false), 300);
    } else {
        answer(request, response, false);
    }
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""

# One request over HTTP/2: interim responses in their order, and when the body was sent.
NODE_CLIENT = """
const http2 = require('http2'), fs = require('fs');
const [ca, url, path, expect, authorization] = process.argv.slice(2);
const host = new URL(url);
const session = http2.connect(url, { ca: fs.readFileSync(ca),
    createConnection: () => require('tls').connect({ host: '127.0.0.2', port: host.port, servername: host.hostname,
        ca: fs.readFileSync(ca), ALPNProtocols: ['h2'] }) });
const told = { interim: [], body: '', sent: false };
const end = () => { console.log(JSON.stringify(told)); process.exit(0); };
session.on('error', error => { told.error = error.code || error.message; end(); });
const headers = { ':path': path, ':method': expect ? 'POST' : 'GET' };
if (expect) headers['expect'] = expect;
if (authorization) headers['authorization'] = authorization;
const request = session.request(headers, { endStream: !expect });
request.setEncoding('utf8');
request.on('headers', got => told.interim.push([got[':status'], got['link'] || '', got['x-key'] || '']));
request.on('continue', () => { told.sent = true; request.end('x'.repeat(1000)); });
request.on('response', got => { told.status = got[':status']; told.denied = got['matchlock-denied'];
                                told.error = got['matchlock-error']; });
request.on('data', data => { told.body += data; });
request.on('error', error => { told.broken = error.code; });
request.on('end', () => request.close());
request.on('close', end);
if (expect && expect !== '100-continue') request.end('x');
"""


def script(name, text):
    path = os.path.join(directory, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


node = spawn(["node", script("server.js", NODE_SERVER), authority.leaf("node.test")], stdout=subprocess.PIPE)
node_port = int(node.stdout.readline())
seen = []


def serve_http1(connection, closes=b""):
    """What the node server does, over HTTP/1.1."""
    data = b""
    while True:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        path = head.split(b" ")[1]
        continued = b"expect: 100-continue" in head.lower()
        if path == b"/refuse":
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            return
        if b"/early/" in path:
            for number in range(int(path.split(b"/early/")[1])):
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </%d.css>; rel=preload\r\n\r\n" % number)
        if continued:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if b"transfer-encoding: chunked" in head.lower():
            data = read_until(connection, b"0\r\n\r\n", data)
            body = data.split(b"\r\n")[1]
            data = b""
        elif b"content-length: " in head.lower():
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(data) < length:
                data += connection.recv(65536)
            body, data = data[:length], data[length:]
        text = json.dumps({"continued": continued, "length": len(body)}).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (closes, len(text)) + text)
        if closes:
            return


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def serve_switching(connection):
    """HTTP/2 with a 101, which it does not have."""
    while len(connection.recv(65536)) > 0:
        connection.sendall(frame(4, 0, 0, b"") + frame(1, 4, 1, literal(b":status", b"101")) +
                           frame(1, 4, 1, literal(b":status", b"200")) + frame(0, 1, 1, b"hello"))


first_is_over = threading.Semaphore(0)


def serve_bridge(connection):
    """The first connection promises HTTP/2 and ends; what follows has HTTP/1.1 alone."""
    if connection.selected_alpn_protocol() == "h2":
        bridge.context.set_alpn_protocols(["http/1.1"])
        connection.close()
        first_is_over.release()
        return
    # Else the connection would be there for the next guest, who then does not get HTTP/2.
    serve_http1(connection, b"Connection: close\r\n")


old = Server(serve_http1, authority.leaf("old.test"), ["http/1.1"])
bridge = Server(serve_bridge, authority.leaf("bridge.test"), ["h2"])
switching = Server(serve_switching, authority.leaf("switch.test"), ["h2"])
ports = {"node.test": node_port, "old.test": old.port, "bridge.test": bridge.port, "switch.test": switching.port}
broker = Broker([f"{name}:{port}" for name, port in ports.items()], list(ports), authority,
                bundle((b"API_KEY", SECRET, [(b"node.test", node_port)], 1)))
trusted = script("session.pem", broker.certificate)


def pump_request(name, client, stream):
    """To the bridge, what comes behind the ClientHello waits for the end of its first connection: a request on
    that one would be lost, as it may be with any server that ends one."""
    if name == "bridge.test":
        stream.sendall(client.recv(65536))
        first_is_over.acquire(timeout=30)
    pump(client, stream)


def relay(name, port):
    def accept():
        while True:
            client, _ = listener.accept()
            stream = broker.dial(name, port)
            stream.settimeout(None)
            threading.Thread(target=pump_request, args=(name, client, stream), daemon=True).start()
            threading.Thread(target=pump, args=(stream, client), daemon=True).start()

    listener = socket.create_server(("127.0.0.2", port), backlog=16)
    threading.Thread(target=accept, daemon=True).start()


for name, port in ports.items():
    relay(name, port)


def client(name, path, *options):
    result = subprocess.run(["node", script("client.js", NODE_CLIENT), trusted, f"https://{name}:{ports[name]}", path, *options],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    try:
        return json.loads(result.stdout)
    except ValueError:
        return {"output": result.stdout}


def body_of(answer):
    try:
        return json.loads(answer["body"])
    except (KeyError, ValueError):
        return answer


def hints(count):
    return [[103, f"</{number}.css>; rel=preload", ""] for number in range(count)]


# ---- HTTP/2 on both legs -----------------------------------------------------------------------------
answer = client("node.test", "/early/1")
tap.same("an early hint passes", (hints(1), 200), (answer.get("interim"), answer.get("status")))
answer = client("node.test", "/early/3")
tap.same("so do three at once, in their order", (hints(3), 200), (answer.get("interim"), answer.get("status")))
answer = client("node.test", "/late")
tap.same("and one long before its answer", (hints(1), 200), (answer.get("interim"), answer.get("status")))
answer = client("node.test", "/early/50")
tap.ok("of fifty at once some pass, and the answer", answer.get("status") == 200 and 0 < len(answer["interim"]) <= 50 and
       answer["interim"][0] == hints(1)[0], answer)
answer = client("node.test", "/x", "100-continue")
tap.same("a body is sent when the server asks for it", ([[100, "", ""]], True, {"continued": True, "length": 1000}),
         (answer.get("interim"), answer.get("sent"), body_of(answer)))
answer = client("node.test", "/refuse", "100-continue")
tap.same("and is not where it does not", ([], False, 403), (answer.get("interim"), answer.get("sent"), answer.get("status")))
tap.ok("which is the server's answer", answer.get("body") == "no" and not answer.get("denied"), answer)
answer = client("node.test", "/x", "200-ok")
tap.same("another expectation is a 417", (417, "expectation_unknown"), (answer.get("status"), answer.get("error")))
answer = client("node.test", "/early/1", "", "Bearer " + broker.placeholders["API_KEY"])
tap.same("a secret that a server hands out in a hint is none any more",
         [[103, "</0.css>; rel=preload", "Bearer " + broker.placeholders["API_KEY"]]], answer.get("interim"))

# ---- HTTP/2 to the guest, HTTP/1.1 to the server ---------------------------------------------------------
answer = client("bridge.test", "/early/2")
tap.same("hints of HTTP/1.1 reach a guest of HTTP/2", (hints(2), 200, {"continued": False, "length": 0}),
         (answer.get("interim"), answer.get("status"), body_of(answer)))
bridge.context.set_alpn_protocols(["h2"])
answer = client("bridge.test", "/x", "100-continue")
tap.same("an expectation of HTTP/2's reaches a server of HTTP/1.1, and its answer the guest",
         ([[100, "", ""]], {"continued": True, "length": 1000}), (answer.get("interim"), body_of(answer)))
bridge.context.set_alpn_protocols(["h2"])
answer = client("bridge.test", "/refuse", "100-continue")
tap.same("or its refusal", ([], False, 403), (answer.get("interim"), answer.get("sent"), answer.get("status")))

# ---- HTTP/1.1 on both legs --------------------------------------------------------------------------------


def ask(data, name="old.test"):
    """Interim statuses, then the rest of read_message()."""
    stream = broker.tls(name, ports[name])
    stream.sendall(data.replace(b"HOST", b"Host: %s:%d\r\n" % (name.encode(), ports[name])))
    interim = []
    rest = b""
    while True:
        status, fields, body, rest = read_message(stream, rest)
        if status is None or status >= 200:
            return interim, status, fields, body
        interim.append((status, fields.get("link")))
        if status == 100:
            stream.sendall(b"hello")


interim, status, _, body = ask(b"POST /early/2 HTTP/1.1\r\nHOSTExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
tap.same("hints, then a request for the body", ([(103, "</0.css>; rel=preload"), (103, "</1.css>; rel=preload"), (100, None)], 200),
         (interim, status))
tap.same("which then arrives", {"continued": True, "length": 5}, json.loads(body))
interim, status, _, body = ask(b"GET /early/2 HTTP/1.0\r\nHOST\r\n")
tap.same("a client of HTTP/1.0 gets none", ([], 200), (interim, status))
interim, status, fields, body = ask(b"GET /early/100 HTTP/1.1\r\nHOST\r\n")
tap.same("a server that goes on and on is broken", (502, "upstream_broken"), (status, fields.get("matchlock-error")))

# ---- a server that goes wrong --------------------------------------------------------------------------------
answer = client("switch.test", "/x")
tap.ok("a 101 over HTTP/2 is a 502, and nothing behind it is taken for an answer", answer.get("status") == 502 and
       "hello" not in answer.get("body", ""), answer)
node.terminate()
node.wait(20)
tap.same("the broker ends in order", 0, broker.stop())
shutil.rmtree(directory, ignore_errors=True)
tap.finish()
