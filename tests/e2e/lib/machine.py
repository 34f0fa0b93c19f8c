"""A matchlock-vmm with a kernel of a few instructions, for tests that give the program and the
directory of the kernels (payload_kernel.sh) as their arguments; and TAP."""
import os
import socket
import subprocess
import sys
import time

program, work = sys.argv[1:]
LIMIT = 60
count = failed = 0


def ok(what, good, note=""):
    global count, failed
    count += 1
    print(("ok" if good else "not ok"), count, "-", what)
    if not good:
        failed += 1
        for line in str(note).splitlines():
            print("#", line)


def skip(what, why):
    global count
    count += 1
    print(f"ok {count} - {what} # SKIP {why}")


def finish():
    print(f"1..{count}")
    sys.exit(1 if failed else 0)


class Machine:
    """One VMM with a kernel of ours; what it says on its control socket and standard error."""

    def __init__(self, kernel, cpus=1, memory=64, extra=(), fds=(), **options):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(LIMIT)
        self.heard = ""
        self.console = os.open(f"{work}/console", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.errors = open(f"{work}/errors", "w+")
        self.process = subprocess.Popen(
            [program, "--engine", "kvm", "--kernel", f"{work}/{kernel}", "--initrd",
             f"{work}/initrd", "--cpus", str(cpus), "--memory", str(memory), "--cid", "3",
             "--socket-base", f"{work}/socket", "--control-fd", str(theirs.fileno()),
             "--console-fd", str(self.console), *extra],
            pass_fds=[theirs.fileno(), self.console, *fds], stdin=subprocess.DEVNULL,
            stderr=self.errors, **options)
        theirs.close()

    def hear(self):
        try:
            heard = self.control.recv(1000).decode()
        except TimeoutError:
            return "nothing"
        self.heard += f"{heard}\n"
        return heard

    def written(self):
        return os.fstat(self.console).st_size

    def grows(self):
        before = self.written()
        end = time.monotonic() + LIMIT
        while self.written() == before and time.monotonic() < end:
            time.sleep(0.02)
        return self.written() > before

    def rests(self):
        time.sleep(0.2)
        before = self.written()
        time.sleep(0.3)
        return self.written() == before

    def end(self):
        try:
            status = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = "hangs"
        if status != "hangs":
            while self.hear():  # what nobody has heard yet, up to its end
                pass
        self.errors.seek(0)
        self.said = self.heard + self.errors.read()
        os.lseek(self.console, 0, os.SEEK_SET)
        self.shown = os.read(self.console, 1000).decode(errors="replace")
        os.close(self.console)
        self.control.close()
        try:
            os.unlink(f"{work}/socket")
        except FileNotFoundError:
            pass
        return status


def ends(kernel, wanted, status, **how):
    machine = Machine(kernel, **how)
    heard = machine.hear()
    got = machine.end()
    ok(f"{kernel} {how or ''}: {wanted}", heard.startswith(f"end {wanted}"), heard)
    ok(f"{kernel}: status {status}", got == status, f"{got}\n{machine.said}")
    return machine, heard
