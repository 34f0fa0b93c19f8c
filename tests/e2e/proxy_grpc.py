"""gRPC's own server and client through the broker: run by proxy_grpc.sh."""
import concurrent.futures
import os
import shutil
import socket
import tempfile
import threading

import grpc
from broker import TIMEOUT, Authority, Broker, Server, Tap, bundle, pump, read_message, read_until

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-proxy-grpc-")
authority = Authority(directory)
SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"
cancelled = threading.Event()
reached = []


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Echo(grpc.GenericRpcHandler):
    """Messages are bytes; the method says what becomes of them."""

    def service(self, details):
        method = details.method.rpartition("/")[2]
        reached.append(details.method)
        kind = {"Unary": grpc.unary_unary_rpc_method_handler, "Fail": grpc.unary_unary_rpc_method_handler,
                "Who": grpc.unary_unary_rpc_method_handler, "Down": grpc.unary_stream_rpc_method_handler,
                "Wait": grpc.unary_stream_rpc_method_handler, "Up": grpc.stream_unary_rpc_method_handler,
                "Both": grpc.stream_stream_rpc_method_handler}.get(method)
        return kind(getattr(self, method.lower())) if kind else None

    def unary(self, request, context):
        context.set_trailing_metadata((("x-length", str(len(request))), ("x-binary-bin", bytes(range(256)))))
        return request

    def fail(self, request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing like \u00e4 % here\nat all")

    def who(self, request, context):
        told = dict(context.invocation_metadata()).get("authorization", "")
        context.set_trailing_metadata((("x-told", told),))
        seen.append(told)
        return told.encode()

    def down(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number
            if number == 0:
                go_on.wait(TIMEOUT)

    def wait(self, request, context):
        context.add_callback(cancelled.set)
        yield b"begun"
        cancelled.wait(TIMEOUT)

    def up(self, requests, context):
        return b"%d" % sum(len(request) for request in requests)

    def both(self, requests, context):
        for request in requests:
            yield request[::-1]


seen = []
go_on = threading.Event()
pem = contents(authority.leaf("grpc.test"))
key = pem[pem.index(b"-----BEGIN PRIVATE"):]
server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), handlers=(Echo(),))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, pem[:len(pem) - len(key)])]))
server.start()


def serve_http1(connection):
    reached.append(read_until(connection, b"\r\n\r\n"))
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")


old = Server(serve_http1, authority.leaf("old.test"), ["http/1.1"])
broker = Broker([f"grpc.test:{port}", f"old.test:{old.port}"], ["grpc.test", "old.test", "rule.test"], authority,
                bundle((b"API_KEY", SECRET, [(b"grpc.test", port)], 1), (b"DECOY", b"ghp_0123456789abcdefghijABCDEFGHIJ012345", [], 5)),
                rules=[{"where": "p:1", "host": "rule.test", "ports": [port], "paths": ["/echo.Echo/Unary"]}])
placeholder = broker.placeholders["API_KEY"]


def relay(address, name, to):
    def accept():
        while True:
            client, _ = listener.accept()
            stream = broker.dial(name, to)
            stream.settimeout(None)
            for ends in ((client, stream), (stream, client)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    listener = socket.create_server((address, to), backlog=64)
    threading.Thread(target=accept, daemon=True).start()


def channel(address, name, to):
    relay(address, name, to)
    return grpc.secure_channel(f"{address}:{to}", grpc.ssl_channel_credentials(broker.certificate.encode()),
                               options=[("grpc.ssl_target_name_override", name), ("grpc.default_authority", f"{name}:{to}"),
                                        ("grpc.enable_http_proxy", 0)])


def call(on, kind, method, request, **options):
    return getattr(on, kind)("/echo.Echo/" + method)(request, timeout=TIMEOUT, **options)


def failure(make):
    try:
        make()
        return None
    except grpc.RpcError as error:
        return error


# ---- calls of each kind --------------------------------------------------------------------------
main = channel("127.0.0.2", "grpc.test", port)
answer, rpc = main.unary_unary("/echo.Echo/Unary").with_call(b"hello", timeout=TIMEOUT)
trailers = dict(rpc.trailing_metadata())
tap.same("a call, with its trailers", (b"hello", "5", bytes(range(256)), grpc.StatusCode.OK),
         (answer, trailers.get("x-length"), trailers.get("x-binary-bin"), rpc.code()))
event = broker.event(kind="request", path="/echo.Echo/Unary")
tap.ok("the log has it", event and event["protocol"] == "h2" and event["method"] == "POST" and event["sent"] == 10, event)
data = os.urandom(3 << 20)
tap.ok("a message of three megabytes comes back whole", call(main, "unary_unary", "Unary", data) == data)
tap.same("and one of nothing", b"", call(main, "unary_unary", "Unary", b""))
error = failure(lambda: call(main, "unary_unary", "Fail", b""))
tap.same("a failure has its status and text", (grpc.StatusCode.NOT_FOUND, "nothing like \u00e4 % here\nat all"),
         error and (error.code(), error.details()))
error = failure(lambda: call(main, "unary_unary", "Missing", b""))
tap.same("as has one without any message", grpc.StatusCode.UNIMPLEMENTED, error and error.code())
answers = call(main, "unary_stream", "Down", b"200")
first = next(answers)
go_on.set()
tap.same("a stream's first message comes before there is a second", b"0", first)
tap.same("then the others, in their order", [b"%d" % number for number in range(1, 200)], list(answers))
tap.same("a stream of requests", b"300000", call(main, "stream_unary", "Up", iter([b"x" * 3000] * 100)))

turn = threading.Semaphore(0)


def requests():
    for number in range(100):
        turn.acquire(timeout=TIMEOUT)
        yield b"%d" % number


turn.release()
got = []
for answer in call(main, "stream_stream", "Both", requests()):
    got.append(answer)
    turn.release()
tap.same("both ways at once, each message waiting for the answer to the one before",
         [b"%d"[:2] % number if number < 10 else (b"%d" % number)[::-1] for number in range(100)], got)
with concurrent.futures.ThreadPoolExecutor(50) as pool:
    texts = [b"%d" % number * 1000 for number in range(200)]
    tap.ok("two hundred calls on one connection", list(pool.map(lambda text: call(main, "unary_unary", "Unary", text), texts)) == texts)
waiting = call(main, "unary_stream", "Wait", b"")
next(waiting)
waiting.cancel()
tap.ok("a call that its client gives up ends at the server", cancelled.wait(TIMEOUT))
cancelled.clear()
error = failure(lambda: list(main.unary_stream("/echo.Echo/Wait")(b"", timeout=1)))
tap.same("as does one whose time is up", grpc.StatusCode.DEADLINE_EXCEEDED, error and error.code())
tap.ok("there, too", cancelled.wait(TIMEOUT))

# Messages whose last byte may begin a placeholder, which is kept back within a message.
decoy = broker.placeholders["DECOY"]
ends = [placeholder[:size] for size in range(1, 40)] + [decoy[:size] for size in range(1, 30)] + ["%", "%7", "\\", "\\u00"]
turn = threading.Semaphore(1)


def likely():
    for text in ends:
        turn.acquire(timeout=TIMEOUT)
        yield text.encode()


got = []
for answer in call(main, "stream_stream", "Both", likely()):
    got.append(answer)
    turn.release()
tap.same("a message that ends like the beginning of a secret is not kept back", [text.encode()[::-1] for text in ends], got)

# ---- secrets ----------------------------------------------------------------------------------------
credential = (("authorization", "Bearer " + placeholder),)
answer, rpc = main.unary_unary("/echo.Echo/Who").with_call(b"", timeout=TIMEOUT, metadata=credential)
tap.same("the server gets the secret", ["Bearer " + SECRET.decode()], seen)
tap.same("and its message and trailers come back without",
         (b"Bearer " + placeholder.encode(), "Bearer " + placeholder), (answer, dict(rpc.trailing_metadata()).get("x-told")))
error = failure(lambda: call(main, "unary_unary", "Unary", b"x" * 1000 + broker.placeholders["DECOY"].encode()))
tap.ok("a decoy in a message ends the call", error and error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNKNOWN),
       error)
tap.ok("and the log has it", broker.event(kind="denial", reason="canary"))

error = failure(lambda: call(main, "unary_unary", "Unary", b"x" * 1000, compression=grpc.Compression.Gzip))
tap.ok("a message that is compressed is refused, because nobody reads it", error and
       error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNKNOWN), error)
tap.ok("which the log has", broker.event(kind="denial", reason="coded_request"))

# ---- what is refused -----------------------------------------------------------------------------------
limited = channel("127.0.0.3", "rule.test", port)
error = failure(lambda: call(limited, "unary_unary", "Unary", b"x"))
tap.ok("a rule's host has another certificate, so nothing is reached", error and error.code() != grpc.StatusCode.OK, error)
before = len(reached)
error = failure(lambda: call(limited, "unary_unary", "Fail", b"x"))
tap.same("a method that the rules do not allow", grpc.StatusCode.PERMISSION_DENIED, error and error.code())
tap.ok("does not reach the server", len(reached) == before and broker.event(kind="denial", reason="path_not_allowed"))
modern = channel("127.0.0.4", "old.test", old.port)
error = failure(lambda: call(modern, "unary_unary", "Unary", b"x"))
tap.same("where the server has no HTTP/2 there is no gRPC", grpc.StatusCode.UNAVAILABLE, error and error.code())
stream = broker.tls("old.test", old.port)
stream.sendall(b"POST /echo.Echo/Unary HTTP/1.1\r\nHost: old.test:%d\r\nContent-Type: application/grpc+proto\r\n"
               b"TE: trailers\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0" % old.port)
status, fields, _, _ = read_message(stream)
tap.same("nor over HTTP/1.1", (502, "grpc_needs_http2"), (status, fields.get("matchlock-error")))
tap.ok("and none of it reached that server", not any(isinstance(item, bytes) and item for item in reached), reached[-3:])
for each in (main, limited, modern):
    each.close()
server.stop(0)
tap.same("the broker ends in order", 0, broker.stop())
shutil.rmtree(directory, ignore_errors=True)
tap.finish()
