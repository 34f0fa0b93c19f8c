"""What bench/proxy measures with: the broker, started as matchlock does it, with an audit process, and
a server of events. Prints what a shell needs to know of them, and ends with its standard input.

    proxy_servers.py DIRECTORY SERVER-PORT

DIRECTORY gets ca.pem, ca.key and leaf.pem (for bench.test) first, and audit/.
"""
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

from broker import Authority, Broker, bundle, read_until

NAME = "bench.test"
EVENT_SIZE = 128  # also in http_load.c
EVENTS = 300
INTERVAL = 0.01

directory, port = sys.argv[1], int(sys.argv[2])


def send_events(connection):
    """No length and no chunks: until the end of the connection."""
    read_until(connection, b"\r\n\r\n")
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    for _ in range(EVENTS):
        time.sleep(INTERVAL)
        event = b"event %d " % time.monotonic_ns()
        connection.sendall(event + b"." * (EVENT_SIZE - 2 - len(event)) + b"\n\n")


def serve(context, listener):
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with context.wrap_socket(connection, server_side=True) as stream:
                send_events(stream)
                stream.unwrap()
        except OSError:
            pass


def start_events(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(context, listener), daemon=True).start()
    return listener.getsockname()[1]


def start_audit():
    """The end of the broker, and the process."""
    ours, source = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.mkdir(os.path.join(directory, "audit"), 0o700)
    log = os.open(os.path.join(directory, "audit"), os.O_RDONLY | os.O_DIRECTORY)
    program = os.path.join(os.environ.get("MATCHLOCK_BUILD", "build/release"), "matchlock-audit")
    process = subprocess.Popen([program, "serve", "--max-bytes", str(16 << 30), "--directory-fd", str(log),
                                "--source-fd", str(source.fileno())], pass_fds=[log, source.fileno()])
    source.close()
    return ours, process


authority = Authority(directory)
os.replace(authority.leaf(NAME), os.path.join(directory, "leaf.pem"))
events = start_events(os.path.join(directory, "leaf.pem"))
audit, auditor = start_audit()
rules = [{"where": "bench:1", "host": NAME, "ports": [port, events], "methods": ["GET", "HEAD", "POST"]}]
secret = bundle((b"BENCH_KEY", b"sk-proj-0123456789abcdefABCDEF0123456789", [(NAME.encode(), 0)], 1))
broker = Broker([], [NAME], authority, secret, rules=rules, audit=audit)
with open(os.path.join(directory, "session.pem"), "w", encoding="ascii") as file:
    file.write(broker.certificate)
print(f"events={events}")
print(f"broker={broker.process.pid}")
print(f"auditor={auditor.pid}")
print(f"address={socket.inet_ntoa(broker.resolve(NAME))}")
print(f"stream={os.path.join(broker.directory, 'v_1027')}")
print(f"placeholder={broker.placeholders['BENCH_KEY']}")
print("ready=1", flush=True)
sys.stdin.read()
sys.exit(broker.stop())
