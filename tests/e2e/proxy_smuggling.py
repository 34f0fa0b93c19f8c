"""Hundreds of messages that two readers might read differently, each with a second request hidden in
it, sent through the broker to real servers, nginx and node. What these saw must be what the broker
says that it sent. Run by proxy_smuggling.sh."""
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from broker import Broker, Tap, read_all, spawn

tap = Tap()
HIDDEN = "GET /s{i} HTTP/1.1\r\nHost: {h}\r\n\r\n"


def post(fields, body, target="/m{i}"):
    return f"POST {target} HTTP/1.1\r\nHost: {{h}}\r\n{fields}\r\n" + body


def corpus():
    """Texts with {i} for their number, {h} for the host."""
    codings = ["chunked", "Chunked", " chunked", "\tchunked", "chunked ", "chunked\t", "\x0bchunked", "chunked\x00",
               "x, chunked", "chunked, identity", "chunked,chunked", "identity", "xchunked", '"chunked"', "chunked;q=1",
               "cow", "", ",chunked", "chunked\r\n x", "\r\n chunked", "chunked\rX: y", "chunked\nX: y"]
    names = ["Transfer-Encoding:", "transfer-encoding:", "Transfer-Encoding :", "Transfer-Encoding\t:", " Transfer-Encoding:",
             "Transfer_Encoding:", "X: y\nTransfer-Encoding:", "X: y\rTransfer-Encoding:", "Transfer-Encoding\x00:",
             "\x00Transfer-Encoding:", "Transfer\xadEncoding:"]
    hidden = "0\r\n\r\n" + HIDDEN
    for name, coding in itertools.chain(((name, coding) for coding in codings for name in names[:2]),
                                        ((name, "chunked") for name in names)):
        sep = "" if coding.startswith((" ", "\t", "\r")) else " "
        yield post(f"{name}{sep}{coding}\r\n", hidden)
        yield post(f"Content-Length: {{n}}\r\n{name}{sep}{coding}\r\n", hidden)
        yield post(f"{name}{sep}{coding}\r\nContent-Length: 4\r\n", hidden)
    for length in ("+{n}", "-{n}", "0x{x}", "{n}, {n}", "{n},0", "0,{n}", "{n} 0", "0 {n}", "{n}.0", "{n}e0", "{n}\x0b",
                   "\x00{n}", "00{n}", "{n}\r\n 0", "", "18446744073709551616", "9223372036854775808", "{n};x"):
        yield post(f"Content-Length: {length}\r\n", HIDDEN)
        yield post(f"Content-Length: 0\r\nContent-Length: {length}\r\n", HIDDEN)
        yield post(f"Content-Length: {length}\r\nContent-Length: 0\r\n", HIDDEN)
    for field in ("Content-Length : {n}", " Content-Length: {n}", "Content_Length: {n}", "X: y\nContent-Length: {n}",
                  "X: y\rContent-Length: {n}", "Content-Length\x00: {n}", "X:\r\n Content-Length: {n}", "Content-Length\r\n: {n}"):
        yield post(f"{field}\r\n", HIDDEN)
        yield post(f"{field}\r\nContent-Length: 0\r\n", HIDDEN)
    for size in ("0", "00000000000000000000", "0 ", " 0", "0;x", "0;\r", "0\t", "0x0", "+0", "-0", "0\n", "\r\n0", "g", "", "0;x\ny",
                 "0;x\ry", "10000000000000000", "ffffffffffffffff", "8000000000000000", "0.", "0,1"):
        yield post("Transfer-Encoding: chunked\r\n", f"{size}\r\n\r\n" + HIDDEN)
        yield post("Transfer-Encoding: chunked\r\n", f"3\r\nabc\r\n{size}\r\n\r\n" + HIDDEN)
    for data in ("3\nabc\r\n0\r\n\r\n", "3\r\nabc\n0\r\n\r\n", "3\r\nabcX\r\n0\r\n\r\n", "3\r\nab\r\n0\r\n\r\n", "3\r\nabc\r\n0\n\n",
                 "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", "3\r\nabc\r\n0\r\nX : y\r\n\r\n", "3\r\nabc\r\n0\r\n X: y\r\n\r\n",
                 "3\r\nabc\r\n0\r\n\n", "3\r\nabc0\r\n\r\n", "3\r\nabc\r\n0\r\nX: y\n\r\n", "3\r\nabc\r\n\r\n0\r\n\r\n"):
        yield post("Transfer-Encoding: chunked\r\n", data + HIDDEN)
    for line in ("POST /m{i} HTTP/1.1\n", "POST /m{i} HTTP/1.0\r\n", "POST /m{i}  HTTP/1.1\r\n", "POST  /m{i} HTTP/1.1\r\n",
                 "POST\t/m{i} HTTP/1.1\r\n", "POST /m{i}\tHTTP/1.1\r\n", "POST /m{i} HTTP/1.2\r\n", "POST /m{i} HTTP/2.0\r\n",
                 "POST /m{i} HTTP/1.1 \r\n", "POST /m{i}\r\n", "\r\nPOST /m{i} HTTP/1.1\r\n", "\nPOST /m{i} HTTP/1.1\r\n",
                 "POST /m{i} http/1.1\r\n", "POST /m{i} HTTP/1.1\r\r\n", "POST /m{i}\x00 HTTP/1.1\r\n", "POST /m{i} HTTP/1.1\x0b\r\n",
                 "GET /m{i} HTTP/0.9\r\n", "POST /m{i}#x HTTP/1.1\r\n", "POST http://{h}/m{i} HTTP/1.1\r\n"):
        yield line + "Host: {h}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN
        yield line + "Host: {h}\r\nContent-Length: {n}\r\n\r\n" + HIDDEN
    for method in ("GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
        yield f"{method} /m{{i}} HTTP/1.1\r\nHost: {{h}}\r\nContent-Length: {{n}}\r\n\r\n" + HIDDEN
        yield f"{method} /m{{i}} HTTP/1.1\r\nHost: {{h}}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN
    for hop in ("Content-Length", "Transfer-Encoding", "Host", "Expect", "close, Content-Length"):
        yield post(f"Connection: {hop}\r\nContent-Length: {{n}}\r\n", HIDDEN)
        yield post(f"Connection: {hop}\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + HIDDEN)
    for upgrade in ("h2c", "websocket", "TLS/1.0"):
        yield f"GET /m{{i}} HTTP/1.1\r\nHost: {{h}}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\r\n" + HIDDEN
    yield post("Expect: 100-continue\r\nContent-Length: {n}\r\n", HIDDEN)


class Backend:
    """A real server; requests() are the paths that it saw."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="matchlock-backend-")
        self.log = os.path.join(self.directory, "log")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = self.start()
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("a server does not start")

    def requests(self):
        with open(self.log, encoding="latin-1") as log:
            return [line.strip() for line in log]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class Nginx(Backend):
    name = "nginx"

    def start(self):
        config = os.path.join(self.directory, "nginx.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"""daemon off; pid {self.directory}/pid; error_log {self.directory}/error; worker_processes 1;
                events {{ }}
                http {{ log_format path '$request_uri'; access_log {self.log} path;
                    client_body_temp_path {self.directory}/body; proxy_temp_path {self.directory}/proxy;
                    fastcgi_temp_path {self.directory}/fastcgi; uwsgi_temp_path {self.directory}/uwsgi;
                    scgi_temp_path {self.directory}/scgi;
                    server {{ listen 127.0.0.1:{self.port}; location / {{ return 200 ok; }} }} }}""")
        return spawn(["nginx", "-c", config, "-p", self.directory], stderr=subprocess.DEVNULL)


class Node(Backend):
    name = "node"

    def start(self):
        program = os.path.join(self.directory, "server.js")
        with open(program, "w", encoding="ascii") as file:
            file.write(f"""const fs = require('fs');
                fs.writeFileSync({json.dumps(self.log)}, '');
                require('http').createServer((request, response) => {{
                    fs.appendFileSync({json.dumps(self.log)}, request.url + '\\n');
                    request.resume();
                    request.on('end', () => response.end('ok'));
                }}).listen({self.port}, '127.0.0.1');""")
        return spawn(["node", program], stderr=subprocess.DEVNULL)


def fill(text, number, host):
    hidden = HIDDEN.replace("{i}", str(number)).replace("{h}", host)
    length = len(hidden) + (5 if "0\r\n\r\n" + HIDDEN in text else 0)
    return (text.replace("{i}", str(number)).replace("{h}", host).replace("{n}", str(length))
            .replace("{x}", f"{length:x}").encode("latin-1"))


def send(stream, message):
    try:
        stream.sendall(message)
        stream.shutdown(socket.SHUT_WR)
        read_all(stream)
    except OSError:
        pass
    finally:
        stream.close()


def paths(lines):
    """How often each numbered path is there; other lines as they are."""
    counts = {}
    for line in lines:
        match = re.search(r"/[ms]\d+$", line)
        path = match.group() if match else line
        counts[path] = counts.get(path, 0) + 1
    return counts


def run(backend, messages):
    host = f"back.test:{backend.port}"
    for number, text in enumerate(messages[:80]):
        stream = socket.create_connection(("127.0.0.1", backend.port))
        stream.settimeout(10)
        send(stream, fill(text, number, host))
    hidden = sum(path.startswith("/s") for path in paths(backend.requests()))
    tap.ok(f"{backend.name}, without the broker, sees hidden requests", hidden > 0, backend.requests())
    open(backend.log, "w", encoding="ascii").close()

    broker = Broker([host], ["back.test"])
    for number, text in enumerate(messages):
        stream = broker.dial("back.test", backend.port)
        stream.settimeout(20)
        send(stream, fill(text, number, host))
    broker.stop()
    told = [event["path"] for event in broker.events if event["kind"] == "request" and "address" in event and
            event.get("reason") not in ("request_broken", "guest_gone", "upstream_broken")]
    begun = {event["path"] for event in broker.events if event["kind"] == "request" and "address" in event}
    backend.stop()
    got, wanted = paths(backend.requests()), paths(told)
    wrong = {path: (got.get(path, 0), wanted.get(path, 0)) for path in set(got) | set(wanted)
             if got.get(path, 0) != wanted.get(path, 0) and not (path in begun and got.get(path, 0) <= 1)}
    tap.ok(f"{backend.name} sees what the broker says, of {len(messages)} messages", not wrong,
           "\n".join(f"{path}: seen {counts[0]}, said {counts[1]}: {messages[int(path[2:])]!r}" if path[2:].isdigit() else
                     f"{path!r}: {counts}" for path, counts in wrong.items()))
    passed = sum(path.startswith("/m") for path in wanted)
    tap.ok(f"{backend.name}: most are refused, and some pass", 10 <= passed < len(messages) // 2, passed)
    shutil.rmtree(backend.directory, ignore_errors=True)


MESSAGES = list(corpus())
tap.ok("there are at least 200 messages", len(MESSAGES) >= 200, len(MESSAGES))
for kind in (Nginx, Node):
    run(kind(), MESSAGES)
tap.finish()
