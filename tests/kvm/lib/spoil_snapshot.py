#!/usr/bin/env python3
"""Spoils a snapshot in a named way (vmm/snapshot.h has its layout).

    spoil_snapshot.py HOW FILE
"""
import os
import struct
import sys

MAGIC, CPUS, DEVICES, LOW, RUNS, BYTES, IDENTITY = 0, 8, 12, 16, 48, 56, 64


def put(file, offset, value, form="<Q"):
    file.seek(offset)
    file.write(struct.pack(form, value))


def get(file, offset, form="<Q"):
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def main():
    how, path = sys.argv[1:]
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if how == "empty":
            file.truncate(0)
        elif how == "cut":
            file.truncate(size - 4096)
        elif how == "longer":
            file.truncate(size + 4096)
        elif how == "magic":
            put(file, MAGIC, 0)
        elif how == "processors":
            put(file, CPUS, 33, "<I")
        elif how == "devices":
            put(file, DEVICES, 0xffffffff, "<I")
        elif how == "runs":
            put(file, RUNS, 1 << 60)
        elif how == "bytes":
            put(file, BYTES, (1 << 64) - 4096)
        elif how == "memory":
            put(file, LOW, get(file, LOW) + 4096)
        elif how == "identity":
            file.seek(IDENTITY)
            file.write(b"boot of another")
        elif how == "noise":
            file.seek(0)
            file.write(os.urandom(1 << 20))
        elif how == "wrecked":
            # All of the memory that is stored: the processors find nothing of what they were at.
            length = get(file, BYTES)
            file.seek(size - length)
            file.write(b"\xff" * length)
        else:
            sys.exit(f"no way called {how}")


main()
