#!/usr/bin/env bash
# What is in force on a running matchlock-vmm, read from outside: system calls, privileges, limits,
# namespaces and root, of each of its threads; with a real virtual machine where /dev/kvm is, and
# with an engine that is another process.
set -u
build=$(realpath "${MATCHLOCK_BUILD:-build/release}")

work=$(mktemp -d /tmp/matchlock-vmm-lock-XXXXXX)
trap 'rm -rf "$work"' EXIT

# shellcheck source=tests/e2e/lib/payload_kernel.sh
. "$(dirname "$0")/lib/payload_kernel.sh"
kernel_tick
mkdir "$work/path"
printf '#!/bin/sh\nexec sleep 120\n' >"$work/path/qemu-system-x86_64"
chmod +x "$work/path/qemu-system-x86_64"

export PYTHONPATH=${0%/*}/lib
python3 - "$build/matchlock-vmm" "$work" <<'PYTHON'
import ctypes, errno, os, resource, subprocess, time

from machine import LIMIT, Machine, finish, ok, skip, work

CPUS = 2
DESCRIPTORS = 16384 + 64  # VSOCK_CONNECTIONS_MAX, and to spare
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER = 17, 0x4206, 0x4207, 0x420C
WALL = 0x40000000
KVM_RUN = 0xAE80
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def read(path):
    with open(path) as file:
        return file.read()


def status(process, thread):
    lines = read(f"/proc/{process}/task/{thread}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def threads(process):
    """But for the kernel's worker for large pages, which it makes a thread of the process."""
    found = sorted(int(name) for name in os.listdir(f"/proc/{process}/task"))
    return [one for one in found if not read(f"/proc/{process}/task/{one}/comm").startswith("kvm-nx-")]


def privileges(name, process, filters):
    for index, thread in enumerate(threads(process)):
        what, now = f"{name}, thread {index}", status(process, thread)
        ok(f"{what}: system calls are filtered", now["Seccomp"] == "2", now["Seccomp"])
        if "Seccomp_filters" in now:
            ok(f"{what}: by as many filters as are meant for it",
               now["Seccomp_filters"] == str(filters), now["Seccomp_filters"])
        else:
            skip(f"{what}: by as many filters as are meant for it",
                 "this kernel does not count filters")
        ok(f"{what}: no privilege can be gained", now["NoNewPrivs"] == "1", now["NoNewPrivs"])
        sets = {key: now[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        ok(f"{what}: no capability is left", all(int(value, 16) == 0 for value in sets.values()), sets)


def limits(name, process):
    want = {resource.RLIMIT_CORE: "no core file", resource.RLIMIT_MEMLOCK: "no locked memory"}
    for limit, what in want.items():
        got = resource.prlimit(process, limit)
        ok(f"{name}: {what}", got == (0, 0), got)
    soft, hard = resource.prlimit(process, resource.RLIMIT_NOFILE)
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    what = f"{name}: no more descriptors than its streams need"
    if mine != resource.RLIM_INFINITY and mine <= DESCRIPTORS:
        skip(what, f"a limit of {mine} stands already")
    else:
        ok(what, (soft, hard) == (DESCRIPTORS, DESCRIPTORS), f"{soft} {hard}")


def surroundings(name, process):
    kinds = ["mnt", "net", "ipc", "uts"]
    whats = [f"{name}: its own namespace: {kind}" for kind in kinds]
    whats += [f"{name}: its root is empty", f"{name}: and cannot be written to"]
    allowed = subprocess.run(["unshare", "-m", "-n", "-i", "-u", "true"], stderr=subprocess.DEVNULL)
    if os.geteuid() != 0 or allowed.returncode != 0:
        for what in whats:
            skip(what, "only root may look" if os.geteuid() else "namespaces are not allowed here")
        return
    for kind, what in zip(kinds, whats):
        got = os.readlink(f"/proc/{process}/ns/{kind}")
        ok(what, got != os.readlink(f"/proc/self/ns/{kind}"), got)
    listed = os.listdir(f"/proc/{process}/root/")
    ok(whats[-2], listed == [], listed)
    mounts = read(f"/proc/{process}/mountinfo").splitlines()
    ok(whats[-1], len(mounts) == 1 and mounts[0].split()[5].split(",")[0] == "ro", mounts)


def own_filter(thread):
    """The instructions of the filter that a thread added to its process's, or an error."""
    if libc.ptrace(PTRACE_SEIZE, thread, None, None) < 0:
        return None, ctypes.get_errno()
    libc.ptrace(PTRACE_INTERRUPT, thread, None, None)
    os.waitpid(thread, WALL)
    space = (ctypes.c_uint64 * 4096)()
    size = libc.ptrace(PTRACE_SECCOMP_GET_FILTER, thread, ctypes.c_void_p(1), space)
    error = ctypes.get_errno()
    libc.ptrace(PTRACE_DETACH, thread, None, None)
    return (list(space[:size]), 0) if size > 0 else (None, error)


def filters_differ(process):
    """sock_filter has its constant in the upper half."""
    whats = ("kvm: the device's thread may not run processors", "kvm: a processor's thread may",
             "kvm: all processors have one filter, and it is not the device's")
    found = [own_filter(thread) for thread in threads(process)]
    if found[0][1] in (errno.EINVAL, errno.EACCES, errno.EPERM):
        for what in whats:
            skip(what, f"filters cannot be read here: {os.strerror(found[0][1])}")
        return
    runs = [bool(instructions) and any(one >> 32 == KVM_RUN for one in instructions)
            for instructions, _ in found]
    errors = [os.strerror(error) for _, error in found]
    ok(whats[0], found[0][0] is not None and not runs[0], errors)
    ok(whats[1], all(runs[1:]), errors)
    ok(whats[2], all(one[0] == found[1][0] != found[0][0] for one in found[1:]), errors)


def wait_for_lock(process):
    end = time.monotonic() + LIMIT
    while status(process, process)["Seccomp"] != "2" and time.monotonic() < end:
        time.sleep(0.02)


def stop(name, machine):
    machine.control.send(b"stop")
    heard = machine.hear()
    ok(f"{name}: ends when asked", heard == "end stopped: as asked", heard)
    ok(f"{name}: with status 0", machine.end() == 0, machine.said)


if os.path.exists("/dev/kvm"):
    machine = Machine("tick", cpus=CPUS)
    process = machine.process.pid
    ok("kvm: a guest at work", machine.grows())
    found = threads(process)
    ok("kvm: a thread for the devices and one for each processor", len(found) == 1 + CPUS, found)
    privileges("kvm", process, 2)
    limits("kvm", process)
    surroundings("kvm", process)
    filters_differ(process)
    ok("kvm: the guest has gone on", machine.grows())
    stop("kvm", machine)
else:
    skip("kvm: a guest at work", "there is no /dev/kvm")

path = f"{work}/path:{os.environ['PATH']}"
machine = Machine("tick", extra=("--engine", "qemu"), env={**os.environ, "PATH": path})
process = machine.process.pid
wait_for_lock(process)
ok("child: one thread", len(threads(process)) == 1)
privileges("child", process, 1)
limits("child", process)
surroundings("child", process)
stop("child", machine)
finish()
PYTHON
