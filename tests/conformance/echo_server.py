"""An echo server on the websockets library, with faults on request, to see that `run` reports them.

Prints its url, then serves until it is stopped. It stands in for the server and never takes part in its tests.
Even without a fault it is not strict: it may close before the echo of an earlier message is out (3.2, 4.1.3, 5.15),
checks UTF-8 at the end of a message only (6.4.*), and answers a close inside a message with 1002 (7.1.5).
"""

import argparse
import asyncio
import os
import sys

# Cases 9.3.1 and 9.4.1 send 4 MiB in fragments of 64 bytes; the library reads this bound when it is imported.
os.environ["WEBSOCKETS_MAX_FRAGMENTS"] = "131072"

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

FAULTS = {
    "none": "echo as the library does",
    "wrong-type": "echo a text message as binary",
    "wrong-close": "close with 1011 after the first message",
    "silent": "never answer a message",
    "dies": "stop listening after the third connection",
}


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=FAULTS, default="none", help="; ".join(map(": ".join, FAULTS.items())))
    parser.add_argument("--deflate", action="store_true", help="negotiate permessage-deflate")
    options = parser.parse_args()
    stop = asyncio.Event()
    connections = 0

    async def echo(connection):
        nonlocal connections
        connections += 1
        if options.fault == "dies" and connections == 3:
            stop.set()
        try:
            async for message in connection:
                if options.fault == "silent":
                    continue
                if options.fault == "wrong-type" and isinstance(message, str):
                    message = message.encode()
                await connection.send(message)
                if options.fault == "wrong-close":
                    await connection.close(1011)
        except ConnectionClosed:
            pass

    compression = "deflate" if options.deflate else None
    async with serve(echo, "127.0.0.1", 0, compression=compression, max_size=64 << 20, ping_interval=None) as server:
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
