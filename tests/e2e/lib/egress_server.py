"""The servers that tests/e2e/egress.sh reaches from a guest, on ports of 127.0.0.1 that the kernel
chooses and PORTS gets as "http https raw mutual".

    egress_server.py DIRECTORY CERTIFICATE KEY AUTHORITY PORTS LOG

HTTP with and without TLS: files of DIRECTORY, and
    /auth     200 when the request carries the secret of DIRECTORY/../secret as a Bearer token
    /headers  the request's headers as the body, which is how a server would hand a secret back
    /zeros/N  N zero bytes
    /noise/N  N bytes that do not compress, and /noise-sum/N, their SHA-256
    /git/...  git's own server for the repositories in DIRECTORY; who pushes must have the secret as
              the password of Basic
    POST, PUT the body's length and SHA-256
Mutual: HTTPS for clients with a certificate of AUTHORITY's, and
    /who      that certificate's subject
Raw: reads until the end of the stream, then answers with the length and SHA-256 of what came;
after a line "echo" it sends each byte back as it comes.

Each request's line and Authorization go to LOG.
"""
import asyncio
import base64
import hashlib
import http.server
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading

directory, certificate, key, authority, ports, log = sys.argv[1:]
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
with open(os.path.join(directory, "..", "secret")) as file:
    secret = file.read().strip()


def noise(length):
    """The same bytes each time, in pieces."""
    block, count = b"", 0
    while length > 0:
        if count % 64 == 0:
            block = hashlib.shake_128(b"%d" % count).digest(65536)
        count += 1
        yield block[: min(length, len(block))]
        length -= len(block)


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=directory)

    def log_message(self, *arguments):
        pass

    def note(self):
        with open(log, "a") as file:
            file.write("%s [%s]\n" % (self.requestline, self.headers.get("Authorization", "")))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.note()
        if self.path == "/auth":
            given = self.headers.get("Authorization") == "Bearer " + secret
            self.answer(200 if given else 401, b"welcome\n" if given else b"who?\n")
        elif self.path == "/headers":
            self.answer(200, str(self.headers).encode())
        elif self.path == "/who":
            self.answer(200, str(self.connection.getpeercert()["subject"]).encode())
        elif self.path.startswith("/zeros/"):
            self.answer(200, bytes(int(self.path[7:])))
        elif self.path.startswith("/noise/"):
            self.send_response(200)
            self.send_header("Content-Length", self.path[7:])
            self.end_headers()
            for part in noise(int(self.path[7:])):
                self.wfile.write(part)
        elif self.path.startswith("/noise-sum/"):
            digest = hashlib.sha256()
            for part in noise(int(self.path[11:])):
                digest.update(part)
            self.answer(200, digest.hexdigest().encode())
        elif self.path.startswith("/git/"):
            self.git()
        else:
            super().do_GET()

    def body(self):
        """The request's, in pieces."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left and (part := self.rfile.read(min(left, 65536))):
                yield part
                left -= len(part)

    def git(self):
        path, _, query = self.path[4:].partition("?")
        body = b"".join(self.body())
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        is_pusher = kind == "Basic" and base64.b64decode(given).partition(b":")[2] == secret.encode()
        if "git-receive-pack" in self.path and not is_pusher:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": directory,
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        if is_pusher:
            environment["REMOTE_USER"] = "agent"
        output = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE
        ).stdout
        head, _, answer = output.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self):
        self.note()
        if self.path.startswith("/git/"):
            self.git()
            return
        digest, length = hashlib.sha256(), 0
        for part in self.body():
            digest.update(part)
            length += len(part)
        self.answer(200, b"%d %s\n" % (length, digest.hexdigest().encode()))

    do_PUT = do_POST


async def raw(reader, writer):
    first = await reader.read(65536)
    if first.startswith(b"echo\n"):
        part = first[5:]
        while True:
            writer.write(part)
            await writer.drain()
            if not (part := await reader.read(65536)):
                break
    else:
        digest, length = hashlib.sha256(first), len(first)
        while part := await reader.read(65536):
            digest.update(part)
            length += len(part)
        writer.write(b"%d %s\n" % (length, digest.hexdigest().encode()))
    writer.close()


async def serve_raw(listening):
    server = await asyncio.start_server(raw, sock=listening)
    await server.serve_forever()


class HttpServer(http.server.ThreadingHTTPServer):
    request_queue_size = 256


class TlsServer(HttpServer):
    def __init__(self, address, handler, context):
        super().__init__(address, handler)
        self.context = context

    def get_request(self):
        connection, address = super().get_request()
        # The handshake is for the connection's own thread.
        return self.context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        ), address

    def handle_error(self, request, address):
        pass


def make_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


mutual = make_context()
mutual.verify_mode = ssl.CERT_REQUIRED
mutual.load_verify_locations(authority)
servers = [
    HttpServer(("127.0.0.1", 0), Handler),
    TlsServer(("127.0.0.1", 0), Handler, make_context()),
    TlsServer(("127.0.0.1", 0), Handler, mutual),
]
listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
threading.Thread(target=asyncio.run, args=(serve_raw(listening),)).start()
for server in servers:
    threading.Thread(target=server.serve_forever).start()
numbers = [server.server_address[1] for server in servers]
numbers.insert(2, listening.getsockname()[1])
with open(ports + ".new", "w") as file:
    file.write(" ".join(map(str, numbers)) + "\n")
os.rename(ports + ".new", ports)
