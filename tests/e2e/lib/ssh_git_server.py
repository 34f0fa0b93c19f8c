"""A server of git over ssh on a port of 127.0.0.1 that the kernel chooses:

    ssh_git_server.py DIRECTORY HOST-KEY AUTHORIZED-KEYS PORT-FILE

git-upload-pack and git-receive-pack on the repositories in DIRECTORY, for whoever has a key of
AUTHORIZED-KEYS.
"""
import asyncio
import os
import shlex
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")  # of the ciphers that asyncssh still knows
import asyncssh  # noqa: E402

directory, host_key, authorized_keys, port_file = sys.argv[1:]


async def serve(process):
    words = shlex.split(process.command or "")
    if len(words) != 2 or words[0] not in ("git-upload-pack", "git-receive-pack"):
        process.stderr.write(b"only git is served here\n")
        process.exit(1)
        return
    path = os.path.join(directory, os.path.basename(words[1]))
    git = await asyncio.create_subprocess_exec(words[0], path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                               stderr=subprocess.PIPE)
    await process.redirect(stdin=git.stdin, stdout=git.stdout, stderr=git.stderr)
    status = await git.wait()
    await process.stdout.drain()
    process.exit(status)


async def main():
    listener = await asyncssh.listen("127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=authorized_keys,
                                     process_factory=serve, encoding=None)
    with open(port_file + ".new", "w", encoding="ascii") as file:
        file.write(f"{listener.sockets[0].getsockname()[1]}\n")
    os.rename(port_file + ".new", port_file)
    await listener.wait_closed()


asyncio.run(main())
