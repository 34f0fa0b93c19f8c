"""gRPC's own server, with TLS, on a port of 127.0.0.1 that the kernel chooses:

    grpc_echo_server.py CERTIFICATE KEY PORT-FILE

/echo.Echo/Both sends each message back as it comes, and says in a trailer how many there were.
"""
import concurrent.futures
import os
import sys

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(self.both) if details.method == "/echo.Echo/Both" else None

    def both(self, requests, context):
        count = 0
        for request in requests:
            count += 1
            yield request
        context.set_trailing_metadata((("x-count", str(count)),))


def contents(path):
    with open(path, "rb") as file:
        return file.read()


certificate, key, port_file = sys.argv[1:]
server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers((Echo(),))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(contents(key), contents(certificate))]))
server.start()
with open(port_file + ".new", "w", encoding="ascii") as out:
    out.write(f"{port}\n")
os.rename(port_file + ".new", port_file)
server.wait_for_termination()
