"""A WebSocket client that listens until the server closes: run in the guest by streams.sh. It answers
each push, pings with every second one, and writes down what it hears and how it ended."""
import asyncio
import os
import sys

import websockets
from websockets.legacy.client import WebSocketClientProtocol
from websockets.legacy.protocol import State


class Counted(WebSocketClientProtocol):
    """Knows how many bytes of frames came."""
    received = 0

    def data_received(self, data):
        if self.state is not State.CONNECTING:
            self.received += len(data)
        super().data_received(data)


async def main():
    headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}
    async with websockets.connect(sys.argv[1], extra_headers=headers, ping_interval=None, open_timeout=60,
                                  create_protocol=Counted) as socket:
        async for message in socket:
            print(message, flush=True)
            kind, number, *_ = message.split()
            if kind != "push":
                continue
            # Of both lengths that a frame's head has for messages of a usual size.
            await socket.send(f"answer {number} " + "x" * (300 if int(number) % 3 == 0 else 20))
            if int(number) % 2 == 0:
                await asyncio.wait_for(await socket.ping(b"pong %s" % number.encode()), 60)
                print("pong", number, flush=True)
    print("closed", socket.close_code, socket.close_reason, socket.received, flush=True)


asyncio.run(main())
