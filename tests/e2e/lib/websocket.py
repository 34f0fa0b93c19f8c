"""WebSocket frames by hand (RFC 6455), for servers and clients that do what no library would."""
import base64
import hashlib
import os
import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def accept(connection, head, extra=b""):
    """Answers an opening handshake."""
    key = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")][0]
    answer = base64.b64encode(hashlib.sha1(key + GUID).digest())
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: " + answer + b"\r\n" + extra + b"\r\n")


def opening(host, path=b"/", extra=b""):
    return (b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: %s\r\n%s\r\n" % (path, host, KEY, extra))


def frame(opcode, payload=b"", final=True, mask=None, first=None):
    """`mask` is four bytes for a client's frame."""
    length = len(payload)
    second = 0x80 if mask else 0
    head = bytes([(0x80 if final else 0) | opcode if first is None else first])
    if length < 126:
        head += bytes([second | length])
    elif length < 65536:
        head += bytes([second | 126]) + struct.pack(">H", length)
    else:
        head += bytes([second | 127]) + struct.pack(">Q", length)
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        head += mask
    return head + payload


class Reader:
    """Reads frames and messages; `masked` is what they must be."""

    def __init__(self, connection, data=b"", masked=False):
        self.connection = connection
        self.data = data
        self.masked = masked
        self.problem = None
        self.opcode = 0
        self.message = b""

    def _take(self, count):
        while len(self.data) < count:
            try:
                more = self.connection.recv(65536)
            except OSError as error:
                self.problem = repr(error)
                more = b""
            if not more:
                return None
            self.data += more
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def frame(self):
        """(opcode, final, payload); None at the end."""
        head = self._take(2)
        if not head:
            return None
        if head[0] & 0x70 or bool(head[1] & 0x80) != self.masked:
            self.problem = f"a frame that is none: {head!r}"
            return None
        length = head[1] & 0x7f
        if length >= 126:
            (length,) = struct.unpack(">H" if length == 126 else ">Q", self._take(2 if length == 126 else 8) or bytes(8))
        mask = self._take(4) if self.masked else None
        payload = self._take(length)
        if payload is None or (self.masked and not mask):
            self.problem = "an end in a frame"
            return None
        if mask:
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        return head[0] & 0x0f, bool(head[0] & 0x80), payload

    def next(self):
        """The next whole message or control frame, as (opcode, payload)."""
        while got := self.frame():
            if got[0] >= CLOSE:
                return got[0], got[2]
            self.opcode = got[0] or self.opcode
            self.message += got[2]
            if got[1]:
                message, self.message = self.message, b""
                return self.opcode, message
        return None


def client(opcode, payload=b"", final=True):
    return frame(opcode, payload, final, os.urandom(4))
