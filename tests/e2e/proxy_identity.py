"""Client certificates by rule: run by proxy_identity.sh."""
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

from broker import Authority, Broker, Server, Tap, bundle, pump, read_message, read_until, spawn

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-proxy-identity-")
authority = Authority(directory)
CERTIFICATE = 6  # SECRET_CLIENT_CERTIFICATE


def contents(path):
    """Nothing where the kernel keeps it even from the process's own user."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except PermissionError:
        return b""


def serve(connection):
    """Says who the server takes the client for, and whether this is an earlier session."""
    data = b""
    while True:
        data = read_until(connection, b"\r\n\r\n", data)
        if not data:
            return
        head, _, data = data.partition(b"\r\n\r\n")
        shown = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        name = shown["subjectAltName"][0][1] if shown else "nobody"
        resumed = isinstance(connection, ssl.SSLSocket) and connection.session_reused
        heads.append(head)
        body = f"{name} {'again' if resumed else 'new'}".encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        return


heads = []


def server(name, wants, version=None, self_signed=False):
    made = Server(serve, authority.leaf(name, self_signed=self_signed), ["http/1.1"], version)
    made.context.verify_mode = wants
    made.context.load_verify_locations(authority.certificate)
    return made


def start_nginx(certificate):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = os.path.join(directory, "nginx.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write(f"""daemon off; pid {directory}/pid; error_log {directory}/error; worker_processes 1; user root;
        events {{ }}
        http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {certificate};
                ssl_client_certificate {authority.certificate}; ssl_verify_client on;
                location / {{ return 200 "$server_protocol $ssl_client_verify $ssl_client_s_dn"; }} }} }}""")
    process = spawn(["nginx", "-c", config, "-p", directory], stderr=subprocess.DEVNULL)
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except OSError:
            threading.Event().wait(0.05)
    raise RuntimeError("nginx does not start")


agent = contents(authority.leaf("agent.client", usage="clientAuth"))
other = contents(authority.leaf("other.client", usage="clientAuth"))
rsa = contents(authority.leaf("rsa.client", usage="clientAuth", algorithm="rsa:3072"))
required = server("a.test", ssl.CERT_REQUIRED)
required12 = server("a.test", ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2)
optional = server("a.test", ssl.CERT_OPTIONAL)
elsewhere = server("b.test", ssl.CERT_OPTIONAL)
strict = server("b.test", ssl.CERT_REQUIRED)
second = server("c.test", ssl.CERT_REQUIRED)
third = server("c.test", ssl.CERT_REQUIRED)
false = server("a.test", ssl.CERT_OPTIONAL, self_signed=True)
plain = Server(serve)
nginx, nginx_port = start_nginx(authority.leaf("x.d.test"))
rules = [
    {"where": "p:1", "host": "a.test", "ports": [required.port, required12.port, false.port, plain.port],
     "methods": ["GET"], "client_certificate": "AGENT"},
    {"where": "p:2", "host": "a.test", "ports": [required.port], "methods": ["POST"], "client_certificate": "AGENT"},
    {"where": "p:3", "host": "a.test", "ports": [optional.port]},
    {"where": "p:4", "host": "c.test", "ports": [second.port], "client_certificate": "OTHER"},
    {"where": "p:6", "host": "c.test", "ports": [third.port], "client_certificate": "RSA"},
    {"where": "p:5", "host": "*.d.test", "ports": [nginx_port], "client_certificate": "AGENT"},
]
certificates = bundle((b"AGENT", agent, [], CERTIFICATE), (b"OTHER", other, [], CERTIFICATE),
                      (b"RSA", rsa, [], CERTIFICATE))
NAMES = ["a.test", "b.test", "c.test", "x.d.test"]
broker = Broker([f"b.test:{elsewhere.port}", f"b.test:{strict.port}"], NAMES, authority, certificates, rules=rules)


def ask(name, port, method=b"GET", tls=True):
    stream = broker.tls(name, port) if tls else broker.dial(name, port)
    stream.sendall(b"%s / HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: 0\r\n\r\n" % (method, name.encode(), port))
    status, fields, body, _ = read_message(stream)
    return status, fields.get("matchlock-denied") or body.decode()


tap.same("a server that wants a certificate gets the rule's", (200, "agent.client new"), ask("a.test", required.port))
tap.same("so does one of TLS 1.2", (200, "agent.client new"), ask("a.test", required12.port))
tap.same("another rule for that host has the same", (200, "agent.client new"), ask("a.test", required.port, b"POST"))
tap.same("one of RSA is shown, too", (200, "rsa.client new"), ask("c.test", third.port))
tap.same("a second host gets its own", (200, "other.client new"), ask("c.test", second.port))
for _ in range(2):
    status, body = ask("a.test", optional.port)
    tap.same("the same host at a port of another rule gets none, nor a session with one", (200, "nobody"),
             (status, body.split()[0]))
for _ in range(2):
    tap.same("nor is a session without one taken for one with", (200, "agent.client new"), ask("a.test", required.port))
status, body = ask("b.test", elsewhere.port)
tap.same("a host that no rule names gets none", (200, "nobody"), (status, body.split()[0]))
status, body = ask("b.test", strict.port)
tap.ok("even when it insists", status == 502, (status, body))
before = len(heads)
status, body = ask("a.test", false.port)
event = broker.event(kind="request", host="a.test", status=502)
tap.ok("a server whose own certificate is not good gets none", event and event["reason"] == "upstream_certificate" and
       len(heads) == before, (status, body, event))
tap.same("nothing is shown without TLS", (200, "nobody new"), ask("a.test", plain.port, tls=False))
tap.same("what the rules do not allow is refused as ever", (403, "method_not_allowed"), ask("a.test", required.port, b"PUT"))

trusted = os.path.join(directory, "session.pem")
with open(trusted, "w", encoding="ascii") as file:
    file.write(broker.certificate)


def relay():
    """Lets curl reach the broker: at 127.0.0.2, nginx's port."""
    while True:
        client, _ = listener.accept()
        stream = broker.dial("x.d.test", nginx_port)
        for ends in ((client, stream), (stream, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


listener = socket.create_server(("127.0.0.2", nginx_port), backlog=16)
threading.Thread(target=relay, daemon=True).start()
result = subprocess.run(["curl", "-sS", "--max-time", "30", "--cacert", trusted, "--resolve", f"x.d.test:{nginx_port}:127.0.0.2",
                         f"https://x.d.test:{nginx_port}/", f"https://x.d.test:{nginx_port}/again"],
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
tap.same("nginx over HTTP/2 gets it, by a rule for all names below one", b"HTTP/2.0 SUCCESS CN=leaf" * 2, result.stdout)

# ---- where the key is not ------------------------------------------------------------------------
key = agent[agent.index(b"-----BEGIN PRIVATE"):].splitlines()[1]
process = f"/proc/{broker.process.pid}"
for what in ("cmdline", "environ"):
    tap.ok(f"the key is not in the broker's {what}", key not in contents(f"{process}/{what}"))


def numbers(pem):
    """The private key's numbers by name, in the order of the certificate's text and in the library's."""
    text = subprocess.run(["openssl", "pkey", "-noout", "-text"], input=pem, check=True, stdout=subprocess.PIPE).stdout.decode()
    found = {}
    for match in re.finditer(r"^(priv|privateExponent|prime1|prime2|exponent1|exponent2|coefficient):\n((?:    .*\n)+)", text, re.M):
        number = bytes.fromhex(re.sub(r"[\s:]", "", match[2])).lstrip(b"\0")
        found[match[1]] = number
        found[match[1] + ", reversed"] = number[::-1]
    return found


def mappings(process):
    """Start, end and flags of each mapping that can be read."""
    span = None
    with open(f"{process}/smaps", encoding="ascii") as file:
        for line in file:
            if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) (r?)", line):
                span = (int(match[1], 16), int(match[2], 16)) if match[3] else None
            elif line.startswith("VmFlags:") and span:
                yield *span, line.split()[1:]


def find_in_memory(process, wanted):
    """Of each text: whether it lies in locked memory that no core dump has, and how often elsewhere."""
    where = {name: [False, 0] for name in wanted}
    with open(f"{process}/mem", "rb", buffering=0) as memory:
        for start, end, flags in mappings(process):
            # What a sanitizer sets aside is larger.
            if end - start > 1 << 30:
                continue
            try:
                content = os.pread(memory.fileno(), end - start, start)
            except OSError:
                continue
            for name, text in wanted.items():
                # 32 bytes are none by chance.
                count = content.count(text[:32])
                if {"lo", "dd"} <= set(flags):
                    where[name][0] |= count > 0
                else:
                    where[name][1] += count
    return where


wanted = {f"{name} of {whose}": number for whose, pem in (("AGENT", agent), ("OTHER", other), ("RSA", rsa))
          for name, number in numbers(pem).items()}
wanted |= {f"line {at} of {whose}": line for whose, pem in (("AGENT", agent), ("OTHER", other), ("RSA", rsa))
           for at, line in enumerate(pem[pem.index(b"-----BEGIN PRIVATE"):].splitlines()[1:-1]) if len(line) >= 32}
try:
    found = find_in_memory(process, wanted)
except PermissionError:
    tap.ok("the broker's memory is not for its own user to read # SKIP what is in it, root can see", True)
    found = {}
for name, (is_locked, elsewhere) in found.items():
    tap.same(f"{name} is in locked memory alone", 0, elsewhere)
if found:
    tap.ok("and was looked for where it is", found["priv, reversed of AGENT"][0] and found["prime1, reversed of RSA"][0],
           found)
told = repr(broker.events)
tap.ok("nor in what it told the log", key.decode() not in told and "PRIVATE" not in told)
tap.same("the broker ends in order", 0, broker.stop())

# ---- what is not taken ---------------------------------------------------------------------------


def start(certificates, rules):
    """What the broker says when it does not start."""
    with tempfile.TemporaryFile() as errors:
        try:
            Broker([], NAMES, authority, certificates, errors=errors, rules=rules).stop()
            return "it started"
        except (RuntimeError, ConnectionResetError):
            errors.seek(0)
            return errors.read().decode()


def certificate_of(pem):
    return pem[:pem.index(b"-----BEGIN PRIVATE")]


def key_of(pem):
    return pem[pem.index(b"-----BEGIN PRIVATE"):]


encrypted = subprocess.run(["openssl", "pkey", "-aes128", "-passout", "pass:secret"], input=key_of(agent), check=True,
                           stdout=subprocess.PIPE).stdout
short = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x", "-keyout", "-"],
                       check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
rule = {"where": "policy.yaml:7", "host": "a.test", "client_certificate": "AGENT"}
for what, pem, wanted in (
        ("a key of another certificate", certificate_of(agent) + key_of(other), "does not belong"),
        ("a key that is encrypted", certificate_of(agent) + encrypted, "openssl pkey"),
        ("no key", certificate_of(agent), "no private key"), ("no certificate", key_of(agent), "no certificate"),
        ("a key that is too short", short, "too weak"), ("a text that is none", b"x", "no certificate")):
    said = start(bundle((b"AGENT", pem, [], CERTIFICATE)), [rule])
    tap.ok(f"refused at the start: {what}", "policy.yaml:7: client_certificate: " in said and wanted in said, said)
said = start(certificates, [{**rule, "client_certificate": "NOBODY"}])
tap.ok("refused: one that is not there", "policy.yaml:7" in said and "NOBODY" in said, said)
said = start(certificates, [rule, {"where": "policy.yaml:9", "host": "a.test", "methods": ["PUT"]}])
tap.ok("refused: two rules for a host that do not agree", "policy.yaml:9" in said and "policy.yaml:7" in said, said)
said = start(certificates, [{**rule, "host": "tcp://a.test:5432"}])
tap.ok("refused: one for bytes that nobody looks into", "client_certificate" in said, said)
# ---- the broker's own certificates ---------------------------------------------------------------
with open(os.path.join(directory, "said"), "wb+") as errors:
    broker = Broker(["a.test", "b.test:8443", "*.c.test", "tcp://d.test:22", "a.test:444"], [], errors=errors, debug=True,
                    rules=[{"where": "policy.yaml:7", "host": "e.test", "methods": ["GET"]}])
    broker.tls("a.test", 443).close()
    broker.stop()
    errors.seek(0)
    said = errors.read().decode()
tap.ok("the names that are allowed as they are have theirs before anybody asks", "4 certificates made ahead" in said, said)
nginx.terminate()
nginx.wait(20)
shutil.rmtree(directory, ignore_errors=True)
tap.finish()
