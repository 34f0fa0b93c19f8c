"""What a running broker still may: its own report of the jail, and what the kernel says of it. Run by
proxy_jail.sh."""
import os
import re
import resource
import signal
import tempfile

from broker import Authority, Broker, Server, Tap, bundle, read_message, read_until

tap = Tap()
authority = Authority(tempfile.mkdtemp(prefix="matchlock-proxy-jail-"))
SECRET = b"sk-ant-api03-RealRealRealReal0123456789-abcdefghijklmnop"
NAMESPACES = {"user": "user", "mount": "mnt", "ipc": "ipc", "uts": "uts"}

# So that it is the broker that forbids core files, and not whoever runs this test.
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def serve(connection):
    while read_until(connection, b"\r\n\r\n"):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def start():
    return Broker([f"a.test:{server.port}"], ["a.test"], authority, bundle((b"API_KEY", SECRET, [(b"a.test", 0)], 1)))


def ask():
    stream = broker.tls("a.test", server.port)
    stream.sendall(f"GET / HTTP/1.1\r\nHost: a.test:{server.port}\r\n\r\n".encode())
    return read_message(stream)[0]


def of(name):
    """A file of the process's in /proc."""
    return f"/proc/{broker.process.pid}/{name}"


def contents(name):
    with open(of(name), encoding="ascii") as file:
        return file.read()


def kept(action):
    """What it gives; None where the kernel keeps that from whoever runs this test."""
    try:
        return action()
    except PermissionError:
        return None


server = Server(serve, authority.leaf("a.test"), ["http/1.1"])
broker = start()

# ---- what it says ------------------------------------------------------------------------------------
event = broker.event(kind="jail")
tap.same("the jail is in the log, before anything else", ("proxy", []), (event and event["component"], broker.events))
report, _, missing = event["detail"].partition(" missing:")
for part in ("no-new-privs", "seccomp(N calls)", "rlimits(1)", "capabilities(none)", "not-dumpable"):
    tap.ok(f"which holds {part}", f" {part} " in " " + re.sub(r"\(\d+ calls", "(N calls", report) + " ", report)
tap.ok("and Landlock with no path, or why there is none", " landlock(abi " in report and ", 0 rules)" in report or " landlock(" in missing,
       event["detail"])
tap.ok("and the empty root, or why there is none", " empty-root" in report or " empty-root(" in missing or "mount" in missing,
       event["detail"])
tap.same("it works, locked as it is", 200, ask())

# ---- what the kernel says ----------------------------------------------------------------------------
status = dict(line.split(":\t", 1) for line in contents("status").splitlines() if ":\t" in line)
for field, wanted in (("Seccomp", "2"), ("NoNewPrivs", "1"), ("Threads", "1"),
                      *((kind, "0" * 16) for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"))):
    tap.same(f"{field} in its status", wanted, status[field])
tap.same("no core file, now or later", ["0", "0"], re.search("^Max core file size +(.*)$", contents("limits"), re.M)[1].split()[:2])
tap.same("what is its own in /proc is no longer its user's", 0, os.stat(of("status")).st_uid)
taken = re.search(r"namespaces\(([^)]*)\)", report)
taken = taken[1].split(",") if taken else []
for name, link in NAMESPACES.items():
    same = kept(lambda: os.readlink(of(f"ns/{link}")) == os.readlink(f"/proc/self/ns/{link}"))
    if name in taken:
        tap.ok(f"a {name} namespace of its own", same in (False, None), same)
    else:
        # Root needs none to make the others.
        tap.ok(f"no {name} namespace of its own, and why", name in missing or (name == "user" and os.geteuid() == 0), event["detail"])
if "empty-root" in report:
    found = kept(lambda: (os.listdir(of("root")), os.statvfs(of("root")).f_flag & os.ST_RDONLY, os.readlink(of("cwd"))))
    tap.ok("its root is empty and cannot be written to", found in (None, ([], os.ST_RDONLY, "/")), found)
    found = kept(lambda: [line.split()[4] for line in contents("mountinfo").splitlines()])
    tap.ok("nothing else is mounted there", found in (None, ["/"]), found)
found = kept(lambda: [(number, os.readlink(of(f"fd/{number}"))) for number in os.listdir(of("fd")) if int(number) > 2])
tap.ok("no file is open: neither configuration, nor secrets, nor certificates", found is None or
       found and all(link.startswith(("socket:", "anon_inode:")) for _, link in found), found)
tap.same("the broker ends in order", 0, broker.stop())

# ---- an end that leaves something elsewhere ----------------------------------------------------------
broker = start()
os.kill(broker.process.pid, signal.SIGQUIT)
_, raw = os.waitpid(broker.process.pid, 0)
tap.same("a signal that dumps others ends it without a core", (signal.SIGQUIT, False), (os.WTERMSIG(raw), os.WCOREDUMP(raw)))
tap.finish()
