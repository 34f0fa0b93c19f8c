"""What the tests of the egress broker share: the broker itself, started as matchlock starts it, a
guest that speaks raw bytes to it, certificates of the test's own, and TAP."""
import atexit
import json
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading

TIMEOUT = 30
FIELDS = {7: "path", 17: "duration_ns", 15: "status", 18: "operation", 24: "rule", 25: "reason", 26: "hint",
          11: "component", 12: "detail", 32: "host", 33: "port", 34: "address", 35: "protocol", 36: "method",
          19: "bytes", 37: "sent", 38: "received", 39: "secrets"}
KINDS = {3: "jail", 7: "denial", 8: "violation", 12: "request", 13: "connection", 15: "canary"}

# Guests here have more connections than what an ordinary user's processes may have open by default.
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, what, good, detail=""):
        self.count += 1
        print(f"{'ok' if good else 'not ok'} {self.count} - {what}", flush=True)
        if not good:
            self.failed = 1
            for line in str(detail).splitlines() or [""]:
                print(f"# {line}", flush=True)

    def same(self, what, wanted, got):
        self.ok(what, wanted == got, f"wanted: {wanted!r}\ngot:    {got!r}")

    def finish(self):
        print(f"1..{self.count}")
        sys.exit(self.failed)


def pump(source, sink):
    """Passes on all that comes, and the end."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def spawn(command, **options):
    """A program that ends with the test, however that ends."""
    process = subprocess.Popen(command, **options)
    atexit.register(process.terminate)
    return process


class Authority:
    """A certificate authority of the test's, by the openssl program."""

    def __init__(self, directory):
        self.directory = directory
        self.serial = 0
        self.chain = b""  # what a server shows besides its own certificate
        self.certificate = os.path.join(directory, "ca.pem")
        self.key = os.path.join(directory, "ca.key")
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                  self.key, "-out", self.certificate, "-subj", "/CN=Test CA", "-days", "30")

    def _run(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def intermediate(self, extensions):
        """Another authority, which this one certifies with those extensions."""
        other = Authority.__new__(Authority)
        other.directory = tempfile.mkdtemp(dir=self.directory)
        other.serial = 0
        other.certificate = os.path.join(other.directory, "ca.pem")
        other.key = os.path.join(other.directory, "ca.key")
        file = os.path.join(other.directory, "ca.ext")
        with open(file, "w", encoding="ascii") as text:
            text.write(extensions)
        self._run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", other.key,
                  "-out", f"{file}.csr", "-subj", "/CN=Test intermediate")
        self._run("x509", "-req", "-in", f"{file}.csr", "-out", other.certificate, "-days", "30", "-extfile", file, "-CA",
                  self.certificate, "-CAkey", self.key, "-CAcreateserial")
        with open(other.certificate, "rb") as certificate:
            other.chain = certificate.read() + self.chain
        return other

    def leaf(self, name, usage="serverAuth", days=("-1", "30"), self_signed=False, algorithm="ec"):
        """A file with certificate and key for that name; days as offsets from now."""
        self.serial += 1
        base = os.path.join(self.directory, f"leaf{self.serial}")
        extensions = f"{base}.ext"
        with open(extensions, "w", encoding="ascii") as file:
            file.write(f"subjectAltName=DNS:{name}\nextendedKeyUsage={usage}\nbasicConstraints=critical,CA:FALSE\n")
        options = ["-pkeyopt", "ec_paramgen_curve:P-256"] if algorithm == "ec" else []
        self._run("req", "-new", "-newkey", algorithm, *options, "-nodes", "-keyout",
                  f"{base}.key", "-out", f"{base}.csr", "-subj", "/CN=leaf")
        signer = ["-signkey", f"{base}.key"] if self_signed else ["-CA", self.certificate, "-CAkey", self.key,
                                                                    "-CAcreateserial"]
        if days[1].startswith("-"):
            self._sign_in_the_past(base, extensions)
        else:
            self._run("x509", "-req", "-in", f"{base}.csr", "-out", f"{base}.crt", "-days", days[1], "-extfile",
                      extensions, *signer)
        with open(f"{base}.pem", "wb") as file:
            for part in (f"{base}.crt", f"{base}.key"):
                with open(part, "rb") as source:
                    file.write(source.read())
            file.write(self.chain)
        return f"{base}.pem"

    def _sign_in_the_past(self, base, extensions):
        database = f"{base}.index"
        with open(database, "w", encoding="ascii"):
            pass
        config = f"{base}.cnf"
        with open(config, "w", encoding="ascii") as file:
            file.write("[ca]\ndefault_ca=c\n[c]\npolicy=p\ndefault_md=sha256\nrand_serial=yes\nunique_subject=no\n"
                       f"database={database}\nnew_certs_dir={self.directory}\n[p]\nCN=supplied\n")
        self._run("ca", "-batch", "-config", config, "-in", f"{base}.csr", "-out", f"{base}.crt", "-cert",
                  self.certificate, "-keyfile", self.key, "-startdate", "20200101000000Z", "-enddate",
                  "20200201000000Z", "-extfile", extensions, "-notext")


class Server:
    """A server on loopback: `serve(connection)` in a thread for each connection, which is TLS when a
    certificate is given."""

    def __init__(self, serve, certificate=None, protocols=None, minimum=None):
        self.serve = serve
        self.context = None
        self.accepted = 0
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
            if protocols:
                self.context.set_alpn_protocols(protocols)
            if minimum:
                self.context.minimum_version = self.context.maximum_version = minimum
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.socket.accept()
            self.accepted += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        connection.settimeout(TIMEOUT)
        try:
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            self.serve(connection)
        except (OSError, ValueError):
            pass
        finally:
            connection.close()


def read_until(connection, end, data=b""):
    while end not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def read_all(connection, data=b""):
    try:
        while more := connection.recv(1 << 20):
            data += more
    except ConnectionResetError:
        data += b"<reset>"
    except ssl.SSLEOFError:
        data += b"<cut>"
    except ssl.SSLError as error:
        data += f"<{error.reason}>".encode()
    return data


def read_message(connection, data=b"", to_head=False):
    """One HTTP/1 response: status, fields (lower case), body, and what follows."""
    data = read_until(connection, b"\r\n\r\n", data)
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1."):
        return None, {}, data, b""
    status = int(lines[0].split(" ")[1])
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    if to_head or status < 200 or status in (204, 304):
        return status, fields, b"", rest
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            rest = read_until(connection, b"\r\n", rest)
            size, end, rest = rest.partition(b"\r\n")
            if not end:
                return status, fields, body, b"<cut>"
            length = int(size, 16)
            if length == 0:
                rest = read_until(connection, b"\r\n", rest)
                while not rest.startswith(b"\r\n"):
                    rest = read_until(connection, b"\r\n\r\n", rest)
                    trailer, _, rest = rest.partition(b"\r\n")
                    name, _, value = trailer.decode().partition(":")
                    fields["trailer " + name.lower()] = value.strip()
                return status, fields, body, rest[2:]
            while len(rest) < length + 2:
                more = connection.recv(65536)
                if not more:
                    return status, fields, body + rest, b"<cut>"
                rest += more
            body += rest[:length]
            rest = rest[length + 2:]
    if "content-length" not in fields:
        return status, fields, read_all(connection, rest), b""
    length = int(fields["content-length"])
    rest = bytearray(rest)
    while len(rest) < length:
        more = connection.recv(1 << 20)
        if not more:
            break
        rest += more
    return status, fields, bytes(rest[:length]), bytes(rest[length:])


def bundle(*secrets):
    """What carries secrets to the broker; each is a name, a value, (host, port) pairs, a kind, and perhaps flags."""
    data = struct.pack("<IHH", 0x3173634d, 1, len(secrets))
    for name, value, hosts, kind, *flags in secrets:
        data += struct.pack("<BBBBBBBBHH", kind, *(flags or [0]), 0, 0, len(name), len(hosts), 0, 0, len(value), 0)
        data += name + value
        for host, port in hosts:
            data += struct.pack("<HB", port, len(host)) + host
    return data


class Broker:
    """matchlock-proxy as matchlock starts it. Its audit events are read here, or go to `audit`, a socket; what
    it says goes to `errors`, a file, or where the test's own goes. `files` is how many it may have open; with `debug`
    it says more."""

    def __init__(self, allow=(), names=(), authority=None, secrets=None, audit=None, errors=None, files=None, debug=False, **config):
        self.directory = tempfile.mkdtemp(prefix="matchlock-proxy-")
        build = os.environ.get("MATCHLOCK_BUILD", "build/release")
        config = {"session": "test", "allow": list(allow),
                  "add_host": [{"name": name, "address": "127.0.0.1"} for name in names], **config}
        listeners = []
        for name in ("v_1027", "v_1028"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(os.path.join(self.directory, name))
            listener.listen(1024)
            listeners.append(listener)
        config_fd = self._memory(json.dumps(config).encode())
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.audit = None
        if not audit:
            self.audit, audit = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = {"--config-fd": config_fd, "--listen-fd": listeners[0].fileno(),
                       "--dns-fd": listeners[1].fileno(), "--control-fd": control.fileno(),
                       "--audit-fd": audit.fileno()}
        opened = [config_fd]
        if secrets:
            descriptors["--secrets-fd"] = self._memory(secrets)
            opened.append(descriptors["--secrets-fd"])
        if authority:
            descriptors["--upstream-ca-fd"] = os.open(authority.certificate, os.O_RDONLY)
            opened.append(descriptors["--upstream-ca-fd"])
        arguments = ["prlimit", f"--nofile={files}:{files}"] if files else []
        arguments.append(os.path.join(build, "matchlock-proxy"))
        arguments += ["--debug"] if debug else []
        for option, descriptor in descriptors.items():
            arguments += [option, str(descriptor)]
        self.process = subprocess.Popen(arguments, pass_fds=list(descriptors.values()), stderr=errors)
        for descriptor in opened:
            os.close(descriptor)
        for end in (*listeners, control, audit):
            end.close()
        self.events = []
        self.condition = threading.Condition()
        self.auditor = threading.Thread(target=self._read_audit, daemon=True)
        self.auditor.start()
        self.placeholders = {}
        self.certificate = self._read_ready()
        self.addresses = {}

    @staticmethod
    def _memory(data):
        descriptor = os.memfd_create("test")
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def _read_ready(self):
        self.control.settimeout(TIMEOUT)
        while True:
            data = self.control.recv(65536)
            if not data:
                raise RuntimeError("the broker did not start")
            kind, _, _, name_length = struct.unpack_from("<HHII", data)
            name = data[12:12 + name_length].decode()
            at = 12 + name_length + 1
            (length,) = struct.unpack_from("<I", data, at)
            text = data[at + 4:at + 4 + length].decode()
            if kind == 2:
                return text
            self.placeholders[name] = text

    def control_call(self, kind, text):
        raw = text.encode()
        self.control.send(struct.pack("<HHI", kind, 0, 0) + struct.pack("<I", 0) + b"\0" +
                          struct.pack("<I", len(raw)) + raw + b"\0")
        data = self.control.recv(65536)
        (error,) = struct.unpack_from("<I", data, 4)
        return error, data[17:-1].decode()

    def _read_audit(self):
        while data := self.audit.recv(65536) if self.audit else b"":
            _, kind, count, _ = struct.unpack_from("<HHHH", data)
            event = {"kind": KINDS.get(kind, kind)}
            at = 8
            for _ in range(count):
                field, form, length = struct.unpack_from("<HHI", data, at)
                value = data[at + 8:at + 8 + length]
                event[FIELDS.get(field, field)] = (struct.unpack("<Q", value)[0] if form == 1 else
                                                   value.decode("utf-8", "replace"))
                at += 8 + length
            with self.condition:
                self.events.append(event)
                self.condition.notify_all()

    def event(self, **wanted):
        """The next event not seen before that has those fields; None when none comes."""

        def find():
            for event in self.events:
                if all(event.get(key) == value for key, value in wanted.items()):
                    return event
            return None

        with self.condition:
            found = self.condition.wait_for(find, TIMEOUT)
            if found:
                self.events.remove(found)
            return found

    def dns(self, message):
        with socket.socket(socket.AF_UNIX) as query:
            query.settimeout(TIMEOUT)
            query.connect(os.path.join(self.directory, "v_1028"))
            query.sendall(struct.pack(">H", len(message)) + message)
            data = query.recv(65536)
            while len(data) < 2 + struct.unpack(">H", data[:2])[0]:
                data += query.recv(65536)
            return data[2:]

    def resolve(self, name):
        """The name's synthetic IPv4 address."""
        if name not in self.addresses:
            question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
            answer = self.dns(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + question + struct.pack(">HH", 1, 1))
            self.addresses[name] = answer[-4:]
        return self.addresses[name]

    def dial(self, address, port, hello=None):
        """A raw connection; address is a name, or bytes as the guest would claim them."""
        if isinstance(address, str):
            address = self.resolve(address)
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(TIMEOUT)
        stream.connect(os.path.join(self.directory, "v_1027"))
        if hello is None:
            hello = struct.pack("<IBBH", 0x30654c4d, 4 if len(address) == 4 else 6, 0, port) + address.ljust(16, b"\0")
        stream.sendall(hello)
        return stream

    def tls(self, name, port, server_name=None, protocols=("http/1.1",), address=None):
        context = ssl.create_default_context(cadata=self.certificate)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        stream = self.dial(address or name, port)
        return context.wrap_socket(stream, server_hostname=server_name or name)

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS"):
                    return int(line.split()[1])
        return 0

    def processor_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """The broker's exit status, after its control socket was closed."""
        self.control.close()
        status = self.process.wait(TIMEOUT)
        self.auditor.join(TIMEOUT)
        return status
