"""The attacker's side of the network tests: a name server and a service, on every address that
its network namespace has. Both note on standard output who came:

    attacker_network.py DNS-ADDRESS PORT ADDRESS...

"dns NAME TYPE" and "connection to ADDRESS"; "ready" goes to descriptor 3. A name's records are in
ZONE; a list of lists answers each query with the next one.
"""
import ipaddress
import os
import select
import socket
import struct
import sys

GOOD = "93.184.216.34"
A, CNAME, AAAA = 1, 5, 28
TYPES = {A: "A", CNAME: "CNAME", AAAA: "AAAA"}
ZONE = {
    ("good.test", A): [GOOD],
    ("metadata.test", A): ["169.254.169.254"],
    ("private.test", A): ["10.0.0.1"],
    ("own.test", A): ["93.184.216.1"],
    ("own6.test", AAAA): ["2606:2800:220:1::1"],
    ("mixed.test", A): [GOOD, "10.0.0.1"],
    ("mapped.test", AAAA): ["::ffff:10.0.0.1"],
    ("nat64.test", AAAA): ["64:ff9b::a00:1"],
    ("sixtofour.test", AAAA): ["2002:a00:1::1"],
    ("alias.test", CNAME): ["metadata.test"],
    ("loop.test", CNAME): ["loop.test"],
    ("truncated.test", A): [GOOD],
    ("rebind.test", A): [[GOOD], ["10.0.0.1"]],
}


def wire_name(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


turns = {}


def next_turn(name, identifier, values):
    """The next answer, but to a query that is only repeated the same."""
    if turns.get(name, (None, None))[0] != identifier:
        turns[name] = identifier, values.pop(0) if len(values) > 1 else values[0]
    return turns[name][1]


def records(name, kind, identifier):
    for depth in range(4):
        alias = ZONE.get((name, CNAME))
        if not alias:
            break
        yield name, CNAME, wire_name(alias[0])
        name = alias[0]
    values = ZONE.get((name, kind), [])
    if values and isinstance(values[0], list):
        values = next_turn(name, identifier, values)
    for value in values:
        yield name, kind, ipaddress.ip_address(value).packed


def answer(query, is_stream=False):
    position, parts = 12, []
    while query[position]:
        length = query[position]
        parts.append(query[position + 1 : position + 1 + length].decode().lower())
        position += length + 1
    name, kind = ".".join(parts), struct.unpack(">H", query[position + 1 : position + 3])[0]
    print("dns", name, TYPES.get(kind, kind), flush=True)
    found = list(records(name, kind, query[:2]))
    flags = 0x8180 if any(key[0] == name for key in ZONE) else 0x8183
    if name == "truncated.test" and not is_stream:
        found, flags = [], 0x8380
    head = struct.pack(">2s5H", query[:2], flags, 1, len(found), 0, 0)
    body = query[12 : position + 5]
    for owner, kind, data in found:
        body += wire_name(owner) + struct.pack(">HHIH", kind, 1, 0, len(data)) + data
    return head + body


def answer_stream(listener):
    connection, _ = listener.accept()
    with connection:
        length = struct.unpack(">H", connection.recv(2, socket.MSG_WAITALL))[0]
        data = answer(connection.recv(length, socket.MSG_WAITALL), is_stream=True)
        connection.sendall(struct.pack(">H", len(data)) + data)


def main():
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind((sys.argv[1], 53))
    dns_stream = socket.create_server((sys.argv[1], 53))
    listeners = []
    for address in sys.argv[3:]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(sys.argv[2])))
        listener.listen(16)
        listeners.append(listener)
    os.write(3, b"ready\n")
    os.close(3)
    while True:
        for ready in select.select([dns, dns_stream] + listeners, [], [])[0]:
            if ready is dns_stream:
                answer_stream(dns_stream)
            elif ready is dns:
                query, peer = dns.recvfrom(4096)
                dns.sendto(answer(query), peer)
            else:
                connection, _ = ready.accept()
                print("connection to", connection.getsockname()[0], flush=True)
                connection.close()


main()
