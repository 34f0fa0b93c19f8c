#!/usr/bin/env python3
"""A program with a control socket for a shell's test:

    controlled_vmm.py ORDERS ANSWERS PROGRAM OPTION...

runs PROGRAM with --control-fd besides. Lines from the named pipe ORDERS are messages to it; its
messages become lines of the file ANSWERS. Ends with its status.
"""
import socket
import subprocess
import sys
import threading

orders, answers, *command = sys.argv[1:]
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with theirs:
    theirs.set_inheritable(True)  # beside the descriptors that the command line names already
    process = subprocess.Popen([*command, "--control-fd", str(theirs.fileno())], close_fds=False)


def pass_orders():
    with open(orders) as lines:
        for line in lines:
            ours.send(line.strip().encode())


threading.Thread(target=pass_orders, daemon=True).start()
with open(answers, "w", buffering=1) as file:
    while message := ours.recv(4096):
        print(message.decode(errors="replace"), file=file)
sys.exit(process.wait())
