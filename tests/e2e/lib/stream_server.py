"""What tests/e2e/streams.sh has behind nginx: streams that last, over HTTP/1 on ports of 127.0.0.1 that
the kernel chooses and PORTS gets as "events socket".

    stream_server.py SECONDS SECRET-FILE PORTS TOLD

Whoever asks needs the secret as a Bearer token, or gets a 401. Every stream takes SECONDS and says one
event a second, with a pause in each cycle: of 900 s, or of SECONDS where that is less, the pause begins
after a quarter and takes 55 in a hundred, at most 330 s. In an hour that is longer than any time-out of
an idle connection.

    events  server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html):
            "NUMBER TIME", and in every third the secret behind it
    socket  a WebSocket, whose messages are "push NUMBER TIME [SECRET]"; what is answered to one is sent
            back behind "echo", and every second push comes with a ping

TOLD gets a line of JSON for each stream that ended: what was said and, of a WebSocket, what was heard.
TIME is of this machine's clock, in seconds.
"""
import asyncio
import json
import os
import sys
import time

import websockets
from websockets.legacy.protocol import State
from websockets.legacy.server import WebSocketServerProtocol

CYCLE_S = 900
PAUSE_S = 330
seconds, secret_file, ports, told = int(sys.argv[1]), *sys.argv[2:]
with open(secret_file, encoding="ascii") as file:
    secret = file.read().strip()


def schedule():
    """When each event is due, in seconds after the stream's start."""
    cycle = min(seconds, CYCLE_S)
    begin = cycle // 4
    end = begin + min(cycle * 0.55, PAUSE_S)
    return [at for at in range(1, seconds + 1) if not begin < at % cycle < end]


def tell(**what):
    with open(told, "a", encoding="ascii") as log:
        log.write(json.dumps(what) + "\n")


def text(number, every):
    return f"{number} {time.time():.6f}" + (f" {secret}" if number % every == 0 else "")


async def moments():
    """The events' numbers, each when it is due."""
    began = time.monotonic()
    for number, at in enumerate(schedule(), 1):
        await asyncio.sleep(began + at - time.monotonic())
        yield number


async def say_events(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    if fields.get("authorization") != "Bearer " + secret:
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        return
    count = length = 0
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\n")
    try:
        async for number in moments():
            body = f"id: {number}\ndata: {text(number, 3)}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(body), body))
            await writer.drain()
            count += 1
            length += len(body)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    except OSError as error:
        tell(stream=head[0].split()[1], problem=repr(error))
    tell(stream=head[0].split()[1], events=count, bytes=length)
    writer.close()


class Counted(WebSocketServerProtocol):
    """Knows how many bytes of frames came."""
    received = 0

    def data_received(self, data):
        if self.state is not State.CONNECTING:
            self.received += len(data)
        super().data_received(data)


async def check(path, headers):
    return None if headers.get("Authorization") == "Bearer " + secret else (401, [], b"")


async def converse(socket):
    pushed, delays, pongs = {}, [], 0

    async def listen():
        async for message in socket:
            delays.append(time.time() - pushed.pop(message.split()[1], 0))
            await socket.send("echo " + message)

    listener = asyncio.create_task(listen())
    try:
        async for number in moments():
            pushed[str(number)] = time.time()
            await socket.send("push " + text(number, 3))
            if number % 2 == 0:
                await asyncio.wait_for(await socket.ping(b"ping %d" % number), 60)
                pongs += 1
        await asyncio.sleep(2)
        await socket.close(1000, "over")
        await listener
    except (OSError, asyncio.TimeoutError, websockets.ConnectionClosed) as error:
        tell(stream="socket", problem=repr(error))
    tell(stream="socket", events=number, answers=len(delays), unanswered=len(pushed), delay=max(delays, default=-1),
         pongs=pongs, bytes=socket.received)


async def main():
    events = await asyncio.start_server(say_events, "127.0.0.1", 0)
    # Pings are the test's own, and the broker offers no compression.
    socket = await websockets.serve(converse, "127.0.0.1", 0, ping_interval=None, process_request=check,
                                    create_protocol=Counted)
    numbers = [server.sockets[0].getsockname()[1] for server in (events, socket)]
    with open(ports + ".new", "w", encoding="ascii") as file:
        file.write("%d %d\n" % tuple(numbers))
    os.rename(ports + ".new", ports)
    await asyncio.Event().wait()


asyncio.run(main())
