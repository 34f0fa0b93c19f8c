"""Rules for hosts through the whole broker, and ways round them: run by proxy_rules.sh."""
import os
import socket
import subprocess
import tempfile
import threading

from broker import TIMEOUT, Authority, Broker, Server, Tap, bundle, pump, read_message, read_until

tap = Tap()
work = tempfile.mkdtemp(prefix="matchlock-proxy-rules-")
authority = Authority(work)
seen = []  # head and body of each request, as the server got them
serving = threading.Condition()
connections = 0


def counted(serve):
    """So that the end of all connections can be waited for."""

    def run(connection):
        global connections
        with serving:
            connections += 1
        try:
            serve(connection)
        finally:
            with serving:
                connections -= 1
                serving.notify_all()

    return run


def read_body(connection, head, data):
    fields = head.lower()
    if b"transfer-encoding: chunked" in fields:
        body = b""
        while True:
            data = read_until(connection, b"\r\n", data)
            size, end, data = data.partition(b"\r\n")
            if not end:
                return body, None
            length = int(size, 16)
            while len(data) < length + 2:
                more = connection.recv(65536)
                if not more:
                    return body + data, None
                data += more
            body, data = body + data[:length], data[length + 2:]
            if length == 0:
                return body, data
    length = int(fields.split(b"content-length: ")[1].split(b"\r\n")[0]) if b"content-length" in fields else 0
    while len(data) < length:
        more = connection.recv(65536)
        if not more:
            return data, None
        data += more
    return data[:length], data[length:]


@counted
def serve(connection):
    data = b""
    while data is not None:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        body, data = read_body(connection, head, data)
        seen.append((head, body))
        if data is not None:
            text = b"x" * (100 if b"/large" in head else 10)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)


@counted
def serve_git(connection):
    """Any repository below `work`, by git's own program for servers."""
    data = b""
    while data is not None:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        body, data = read_body(connection, head, data)
        seen.append((head, body))
        if data is None:
            return
        method, target = head.decode().split(" ")[:2]
        path, _, query = target.partition("?")
        kind = [line.split(": ")[1] for line in head.decode().split("\r\n") if line.lower().startswith("content-type")]
        environment = {**os.environ, "GIT_PROJECT_ROOT": work, "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
                       "QUERY_STRING": query, "REQUEST_METHOD": method, "REMOTE_USER": "x",
                       "CONTENT_TYPE": kind[0] if kind else "", "CONTENT_LENGTH": str(len(body))}
        output = subprocess.run(["git", "http-backend"], input=body, env=environment, check=True,
                                stdout=subprocess.PIPE).stdout
        fields, _, text = output.partition(b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\nContent-Length: %d\r\n\r\n" % len(text) + text)


@counted
def echo(connection):
    while data := connection.recv(65536):
        echoed.append(data)
        connection.sendall(data)


echoed = []
raw = Server(echo)
api = Server(serve)
few = Server(serve)
forge = Server(serve_git)
secure = Server(serve_git, authority.leaf("git.test"))
rules = [
    {"where": "p:1", "host": "api.test", "ports": [api.port], "methods": ["GET", "POST"],
     "paths": ["/v1/**"], "deny_headers": ["X-Admin"], "body_bytes_max": 20, "response_bytes_max": 30},
    {"where": "p:2", "host": "few.test", "ports": [few.port], "requests_max": 2, "bytes_max": 1000},
    {"where": "p:3", "host": "git.test", "ports": [forge.port, secure.port], "bytes_max": 100000000,
     "git_push": [{"repository": f"/{scheme}/repo", "refs": ["refs/heads/agent/*"]} for scheme in ("http", "https")]},
    {"where": "p:4", "host": f"tcp://raw.test:{raw.port}", "requests_max": 3, "body_bytes_max": 100, "bytes_max": 250},
]
# A secret is there, so that its filter stands between those of the rules.
broker = Broker([f"api.test:{api.port}"], ["api.test", "few.test", "git.test", "raw.test"], authority,
                bundle((b"API_KEY", b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop", [(b"x.test", 0)], 1)),
                rules=rules, allow_all=True)


def request(method, path, head=b"", body=b"", host="api.test", port=None):
    port = port or api.port
    stream = broker.dial(host, port)
    stream.sendall(b"%s %s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n" % (method, path, host.encode(), port, head) + body)
    return read_message(stream)


def refused(what, reason, *arguments, **more):
    before = len(seen)
    status, fields, body, _ = request(*arguments, **more)
    tap.same(f"{what}: refused", (403, reason), (status, fields.get("matchlock-denied")))
    tap.ok(f"{what}: the answer names the rule", b"p:" in body, body)
    tap.same(f"{what}: nothing reached the server", before, len(seen))
    event = broker.event(kind="denial", reason=reason)
    tap.ok(f"{what}: the log has it", event and event["rule"].startswith("p:"), event)


status, *_ = request(b"GET", b"/v1/x?y=/../z")
tap.same("what the rule allows goes through", 200, status)
broker.event(kind="request", host="api.test")
refused("another method", "method_not_allowed", b"DELETE", b"/v1/x")
refused("another path", "path_not_allowed", b"GET", b"/v2/x")
refused("a path out of the allowed one", "path_ambiguous", b"GET", b"/v1/../v2/x")
refused("the same encoded", "path_ambiguous", b"GET", b"/v1/%2e%2e/v2/x")
refused("the same encoded twice", "path_ambiguous", b"GET", b"/v1/%252e%252e%252fv2/x")
refused("a denied header", "header_not_allowed", b"GET", b"/v1/x", b"x-ADMIN: 1\r\n")
refused("a body whose length says too much", "body_too_large", b"POST", b"/v1/x", b"Content-Length: 21\r\n")

status, *_ = request(b"POST", b"/v1/x", b"Transfer-Encoding: chunked\r\n", b"14\r\n" + b"a" * 20 + b"\r\n0\r\n\r\n")
tap.same("a body of just the limit goes through", (200, b"a" * 20), (status, seen[-1][1]))
status, fields, body, _ = request(b"POST", b"/v1/x", b"Transfer-Encoding: chunked\r\n",
                                  b"10\r\n" + b"a" * 16 + b"\r\n10\r\n" + b"b" * 16 + b"\r\n0\r\n\r\n")
tap.same("a body that turns out too long is refused", (403, "body_too_large"), (status, fields.get("matchlock-denied")))
status, fields, body, rest = request(b"GET", b"/v1/large")
tap.ok("an answer that is too long is cut", len(body) < 100, (status, body, rest))
event = broker.event(kind="denial", reason="response_too_large")
tap.ok("which the log has", event and event["rule"] == "p:1 host api.test", event)

for number in range(2):
    status, *_ = request(b"GET", b"/", host="few.test", port=few.port)
    tap.same(f"request {number + 1} of a budget of two", 200, status)
refused("the third", "requests_exhausted", b"GET", b"/", host="few.test", port=few.port)

# ---- git -------------------------------------------------------------------------------------------


def accept_for_git(listener, port):
    """What the guest's redirect does: connections to the server's port go to the broker."""
    while True:
        connection, _ = listener.accept()
        stream = broker.dial("git.test", port)
        connection.settimeout(TIMEOUT)
        for ends in ((connection, stream), (stream, connection)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


session = os.path.join(work, "session.pem")
with open(session, "w", encoding="ascii") as file:
    file.write(broker.certificate)
environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "HOME": work, "GIT_TERMINAL_PROMPT": "0",
               "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
               "GIT_COMMITTER_EMAIL": "a@b", "no_proxy": "*", "GIT_SSL_CAINFO": session}


def push(scheme, port):
    """As the rule allows it, and otherwise."""
    url = f"{scheme}://git.test:{port}/{scheme}"
    clone = os.path.join(work, f"clone-{scheme}")

    def git(*arguments, directory=clone):
        return subprocess.run(["git", "-c", f"http.curloptResolve=git.test:{port}:127.0.0.2", "-C", directory,
                               *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=60)

    def has(repository, ref):
        return git("rev-parse", "--verify", "-q", ref, directory=os.path.join(work, scheme, repository)).returncode == 0

    threading.Thread(target=accept_for_git, args=(socket.create_server(("127.0.0.2", port)), port), daemon=True).start()
    for name in ("repo.git", "other.git"):
        path = os.path.join(work, scheme, name)
        os.makedirs(path)
        git("init", "-q", "--bare", directory=path)
        git("config", "http.receivepack", "true", directory=path)
    result = git("clone", "-q", f"{url}/repo.git", clone, directory=work)
    tap.ok(f"{scheme}: git clone", result.returncode == 0, result.stdout)
    with open(os.path.join(clone, "big"), "wb") as big:
        big.write(os.urandom(3 << 20))
    git("add", "big")
    git("commit", "-q", "-m", "x")
    result = git("push", "-q", "origin", "HEAD:refs/heads/agent/x")
    tap.ok(f"{scheme}: git push of three megabytes to an allowed ref", result.returncode == 0 and
           has("repo.git", "refs/heads/agent/x"), result.stdout)
    for what, arguments in {
            "another ref": ["HEAD:refs/heads/main"],
            "another ref beside an allowed one": ["HEAD:refs/heads/agent/y", "HEAD:refs/heads/main"],
            "a deeper ref": ["HEAD:refs/heads/agent/x/y"],
            "a tag": ["HEAD:refs/tags/v1"]}.items():
        result = git("push", "origin", *arguments)
        tap.ok(f"{scheme}: git push to {what} is refused", result.returncode != 0 and b"403" in result.stdout, result.stdout)
        event = broker.event(kind="denial", reason="push_not_allowed", port=port)
        tap.ok(f"{scheme}: git push to {what}: the log has it", event and event["rule"] == "p:3 host git.test", event)
    tap.ok(f"{scheme}: none of these refs is there", not any(has("repo.git", ref) for ref in (
        "refs/heads/main", "refs/heads/agent/y", "refs/tags/v1")))
    before = len(seen)
    result = git("push", f"{url}/other.git", "HEAD:refs/heads/agent/x")
    tap.ok(f"{scheme}: git push to another repository is refused",
           result.returncode != 0 and b"403" in result.stdout, result.stdout)
    tap.same(f"{scheme}: and nothing reached the server", before, len(seen))
    result = git("push", "origin", ":refs/heads/agent/x")
    tap.ok(f"{scheme}: deleting an allowed ref", result.returncode == 0 and not has("repo.git", "refs/heads/agent/x"),
           result.stdout)


push("http", forge.port)
push("https", secure.port)

# ---- opaque connections ------------------------------------------------------------------------
def raw_connection(*pieces):
    """What comes back for each piece, until an end."""
    stream = broker.dial("raw.test", raw.port)
    answers = []
    try:
        for piece in pieces:
            stream.sendall(piece)
            answers.append(stream.recv(65536))
    except OSError:
        answers.append(b"")
    stream.close()
    return answers


tap.same("a connection within the limits of its tcp:// rule", [b"x" * 60], raw_connection(b"x" * 60))
event = broker.event(kind="connection", protocol="tcp", rule=f"p:4 host tcp://raw.test:{raw.port}")
tap.ok("which the log names", event and event["sent"] == 60 == event["received"], event)
tap.same("what is too much for one connection ends it", [b"y" * 50, b""], raw_connection(b"y" * 50, b"z" * 51))
event = broker.event(kind="denial", reason="body_too_large", protocol="tcp")
tap.ok("and is told to the log", event and event["sent"] == 50 and event["bytes"] == 51, event)
tap.same("as is what is too much for the session", [b""], raw_connection(b"z" * 40))
tap.ok("which is another reason", broker.event(kind="denial", reason="bytes_exhausted", protocol="tcp"))
tap.same("then none is opened", [b""], raw_connection(b"z"))
event = broker.event(kind="denial", operation="connect", host="raw.test")
tap.ok("for a reason that is told", event and event["reason"] == "requests_exhausted", event)
tap.same("no byte over the limits reached the server", b"x" * 60 + b"y" * 50, b"".join(echoed))
tap.same("the broker ends", 0, broker.stop())

with serving:
    tap.ok("all connections ended", serving.wait_for(lambda: connections == 0, TIMEOUT))
bodies = [body for head, body in seen if head.startswith(b"POST /v1/")]
tap.ok("not a byte over the limit reached the server", bodies and all(len(body) <= 20 for body in bodies), bodies)
bodies = [body for head, body in seen if b"git-receive-pack HTTP" in head]
tap.ok("nor a list with a ref that is not allowed", len(bodies) >= 2 and not any(
    ref in body for body in bodies for ref in (b"refs/heads/main", b"agent/y", b"agent/x/y", b"refs/tags")), bodies)
tap.finish()
