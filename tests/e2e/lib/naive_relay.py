"""What a proxy would be that swaps placeholders for secrets wherever a server could read them, and looks
no further: each attack on secrets is first shown to work against it."""
import base64
import binascii
import re
import socket
import ssl
import urllib.parse

from broker import TIMEOUT


def _in_percent(text, swap):
    return re.sub(rb"(?:%[0-9a-fA-F]{2}){8,}",
                  lambda run: b"".join(b"%%%02x" % byte for byte in swap(urllib.parse.unquote_to_bytes(run[0]))), text)


def _in_json(text, swap):
    def one(run):
        plain = bytes(int(code, 16) for code in run[0].replace(b"\\u", b" ").split())
        return b"".join(b"\\u%04x" % byte for byte in swap(plain))

    return re.sub(rb"(?:\\u00[0-9a-fA-F]{2}){8,}", one, text)


def _in_hex(text, swap):
    return re.sub(rb"(?:[0-9a-f]{2}){16,}", lambda run: swap(bytes.fromhex(run[0].decode())).hex().encode(), text)


def _in_base64(text, swap):
    """Wherever in a run of its characters it begins."""

    def one(run):
        for skip in range(4):
            body = run[0][skip:]
            whole = len(body) // 4 * 4
            try:
                plain = base64.b64decode(body[:whole])
            except binascii.Error:
                continue
            if swap(plain) != plain:
                return run[0][:skip] + base64.b64encode(swap(plain)) + body[whole:]
        return run[0]

    return re.sub(rb"[A-Za-z0-9+/]{24,}={0,2}", one, text)


def swapped(text, pairs):
    """With the first of each pair replaced by the second, in every form; they are equally long."""

    def swap(plain):
        for old, new in pairs:
            plain = plain.replace(old, new)
        return plain

    text = swap(text)
    for form in (_in_percent, _in_json, _in_hex, _in_base64):
        text = form(text, swap)
    return text


def holds(text, wanted):
    """Whether it is in there, in any form."""
    return swapped(text, [(wanted, wanted[::-1])]) != text


class _Stream:
    def __init__(self, stream, pairs):
        self._stream = stream
        self._pairs = pairs

    def sendall(self, data):
        self._stream.sendall(swapped(data, self._pairs))

    def recv(self, size):
        return self._stream.recv(size)

    def close(self):
        self._stream.close()


class NaiveRelay:
    """In the place of a Broker; every name is a server on loopback."""

    def __init__(self, authority, pairs):
        self._context = ssl.create_default_context(cafile=authority.certificate)
        self._pairs = pairs

    def dial(self, _name, port):
        return _Stream(socket.create_connection(("127.0.0.1", port), TIMEOUT), self._pairs)

    def tls(self, name, port):
        stream = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        return _Stream(self._context.wrap_socket(stream, server_hostname=name), self._pairs)
