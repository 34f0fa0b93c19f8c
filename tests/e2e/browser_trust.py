"""Chromium and Firefox fetch a page of a server whose certificate the session's authority issued, with
the files of guest-init's and without: run by browser_trust.sh in a mount namespace of its own."""
import os
import shutil
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


def run(*command, timeout=120):
    """What it wrote, in a home of its own: what one has seen, another does not know."""
    home = tempfile.mkdtemp(dir=directory)
    environment = dict(os.environ, HOME=home, TMPDIR=home, XDG_RUNTIME_DIR=home, MOZ_HEADLESS="1")
    try:
        return subprocess.run([part.replace("HOME", home) for part in command], env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=timeout).stdout.decode()
    except subprocess.TimeoutExpired as error:
        return f"it took too long: {error.stdout}"


def chromium(path, **options):
    return run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=HOME/profile", "--dump-dom",
               f"https://localhost:{server.port}{path}", **options)


def firefox(path, **options):
    return run("firefox-esr", "--headless", "--no-remote", "--profile", "HOME", "--screenshot", "HOME/page.png",
               f"https://localhost:{server.port}{path}", **options)


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
for name in ("etc", "run"):
    os.makedirs(f"{root}/{name}")
build = os.environ.get("MATCHLOCK_BUILD", "build/release")
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
