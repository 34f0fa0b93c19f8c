"""Chromium and Firefox fetch a page of a server whose certificate the session's authority issued, with
the files of guest-init's and without, and NSS's own programs with its databases: run by browser_trust.sh
in a mount namespace of its own."""
import os
import shutil
import sqlite3
import subprocess
import tempfile

from broker import Authority, Server, Tap, read_until

tap = Tap()
directory = tempfile.mkdtemp(prefix="matchlock-browser-trust-")
authority = Authority(directory)
root = os.path.join(directory, "root")
asked = []


def serve(connection):
    head = read_until(connection, b"\r\n\r\n")
    if head:
        asked.append(head.split(b" ")[1].decode())
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"
                           b"<p>hello</p>")


server = Server(serve, authority.leaf("localhost"))
build = os.environ.get("MATCHLOCK_BUILD", "build/release")


def run(*command, timeout=120, databases=False):
    """What it wrote, in a home of its own: what one has seen, another does not know."""
    home = tempfile.mkdtemp(dir=directory)
    if databases:
        make_databases(home)
    environment = dict(os.environ, HOME=home, TMPDIR=home, XDG_RUNTIME_DIR=home, MOZ_HEADLESS="1")
    try:
        return subprocess.run([part.replace("HOME", home) for part in command], env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=timeout).stdout.decode()
    except subprocess.TimeoutExpired as error:
        return f"it took too long: {error.stdout}"


def make_databases(home):
    """As a session puts them into the guest's home."""
    path = f"{home}/.pki/nssdb"
    os.makedirs(path, mode=0o700)
    subprocess.run([f"{build}/tests/e2e/nss_files", path, authority.certificate], check=True)
    return f"sql:{path}"


def chromium(path, **options):
    return run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=HOME/profile", "--dump-dom",
               f"https://localhost:{server.port}{path}", **options)


def firefox(path, **options):
    return run("firefox-esr", "--headless", "--no-remote", "--profile", "HOME", "--screenshot", "HOME/page.png",
               f"https://localhost:{server.port}{path}", **options)


def nss(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          timeout=60).stdout.decode()


def trust_of(databases, name):
    """"C,," for one that may vouch for servers; None for one that is not there."""
    for line in nss("certutil", "-L", "-d", databases).splitlines():
        if line.startswith(f"{name} "):
            return line.split()[-1]
    return None


def vfyserv(databases):
    return nss("vfyserv", "-d", databases, "-p", str(server.port), "localhost")


def nss_programs():
    if not shutil.which("certutil"):
        tap.ok("NSS's own programs # SKIP libnss3-tools is not installed", True)
        return
    empty = tempfile.mkdtemp(dir=directory)
    nss("certutil", "-N", "--empty-password", "-d", f"sql:{empty}")
    said = vfyserv(f"sql:{empty}")
    tap.ok("NSS does not trust the authority by itself", "not recognized" in said, said)
    home = tempfile.mkdtemp(dir=directory)
    databases = make_databases(home)
    tap.same("NSS reads its databases", "C,,", trust_of(databases, "matchlock"))
    said = vfyserv(databases)
    tap.ok("and believes the authority", "not recognized" not in said and "read" in said, said)
    another = os.path.join(home, "another.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    f"{another}.key", "-out", another, "-subj", "/CN=Another CA"], check=True, stderr=subprocess.PIPE)
    said = nss("certutil", "-A", "-d", databases, "-t", "CT,C,C", "-n", "another", "-i", another)
    tap.ok("another certificate can be added", (trust_of(databases, "another"), trust_of(databases, "matchlock")) == ("CT,C,C", "C,,"),
           said)
    said = nss("certutil", "-M", "-d", databases, "-t", ",,", "-n", "matchlock")
    tap.ok("and the authority's trust taken away", trust_of(databases, "matchlock") == ",,", said)
    tap.ok("and then it is not believed", "not recognized" in vfyserv(databases) or "not trusted" in vfyserv(databases))
    # What NSS checks is what we sign: with another attribute's signature it is no trust.
    databases = make_databases(tempfile.mkdtemp(dir=directory))
    with sqlite3.connect(databases.removeprefix("sql:") + "/key4.db") as keys:
        keys.execute("UPDATE metaData SET item1 = (SELECT item1 FROM metaData WHERE id LIKE '%ce536359') WHERE id LIKE '%ce536358'")
    tap.same("trust whose signature is wrong is none", ",,", trust_of(databases, "matchlock"))


def lay_over(path):
    """The files of the tree below `path`, at their places."""
    layer = f"/mnt{path}"
    for name in ("upper", "work"):
        os.makedirs(f"{layer}/{name}")
    shutil.copytree(f"{root}{path}", f"{layer}/upper", dirs_exist_ok=True)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                    f"lowerdir={path},upperdir={layer}/upper,workdir={layer}/work", path], check=True)


browsers = {name: function for name, function in (("chromium", chromium), ("firefox-esr", firefox)) if shutil.which(name)}
for name, browse in browsers.items():
    # Firefox waits at the page that says so.
    said = browse(f"/{name}/before", timeout=15)
    tap.ok(f"{name} does not trust the authority by itself", f"/{name}/before" not in asked, said[-500:])
if "chromium" in browsers:
    said = chromium("/chromium/databases", databases=True)
    tap.ok("chromium trusts it by the databases in its home", "/chromium/databases" in asked and "<p>hello</p>" in said,
           said[-2000:])
nss_programs()
for name in ("etc", "run"):
    os.makedirs(f"{root}/{name}")
subprocess.run([f"{build}/tests/e2e/trust_files", root, authority.certificate], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
lay_over("/etc")
lay_over("/run")
for name, browse in browsers.items():
    said = browse(f"/{name}/after")
    tap.ok(f"{name} trusts it by the policy that guest-init writes", f"/{name}/after" in asked, said[-2000:])
    if name == "chromium":
        tap.ok("and shows the page", "<p>hello</p>" in said, said[-2000:])
for name in ("chromium", "firefox-esr"):
    if name not in browsers:
        tap.ok(f"{name} # SKIP it is not here", True)
shutil.rmtree(directory, ignore_errors=True)
tap.finish()
