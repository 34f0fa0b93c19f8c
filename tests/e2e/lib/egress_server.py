"""The servers that tests/e2e/egress.sh reaches from a guest, on ports of 127.0.0.1 that the kernel
chooses and PORTS gets as "http https raw mutual".

    egress_server.py DIRECTORY CERTIFICATE KEY AUTHORITY PORTS LOG

HTTP with and without TLS: files of DIRECTORY, and
    /auth     200 when the request carries the secret of DIRECTORY/../secret as a Bearer token
    /headers  the request's headers as the body, which is how a server would hand a secret back
    /zeros/N  N zero bytes
    POST, PUT the body's length and SHA-256
Mutual: HTTPS for clients with a certificate of AUTHORITY's, and
    /who      that certificate's subject
Raw: reads until the end of the stream, then answers with the length and SHA-256 of what came;
after a line "echo" it sends each byte back as it comes.

Each request's line and Authorization go to LOG.
"""
import hashlib
import http.server
import os
import socketserver
import ssl
import sys
import threading

directory, certificate, key, authority, ports, log = sys.argv[1:]
with open(os.path.join(directory, "..", "secret")) as file:
    secret = file.read().strip()


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
        else:
            super().do_GET()

    def do_POST(self):
        self.note()
        digest, length = hashlib.sha256(), 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                digest.update(self.rfile.read(size))
                length += size
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left and (part := self.rfile.read(min(left, 65536))):
                digest.update(part)
                length += len(part)
                left -= len(part)
        self.answer(200, b"%d %s\n" % (length, digest.hexdigest().encode()))

    do_PUT = do_POST


class Raw(socketserver.StreamRequestHandler):
    def handle(self):
        first = self.request.recv(65536)
        if first.startswith(b"echo\n"):
            self.request.sendall(first[5:])
            while part := self.request.recv(65536):
                self.request.sendall(part)
            return
        digest, length = hashlib.sha256(first), len(first)
        while part := self.request.recv(65536):
            digest.update(part)
            length += len(part)
        self.request.sendall(b"%d %s\n" % (length, digest.hexdigest().encode()))


class RawServer(socketserver.ThreadingTCPServer):
    request_queue_size = 1024
    daemon_threads = True


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
    RawServer(("127.0.0.1", 0), Raw),
    TlsServer(("127.0.0.1", 0), Handler, mutual),
]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
with open(ports + ".new", "w") as file:
    file.write(" ".join(str(server.server_address[1]) for server in servers) + "\n")
os.rename(ports + ".new", ports)
