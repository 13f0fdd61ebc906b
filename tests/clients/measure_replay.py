#!/usr/bin/env python3
"""Measures what others notice of one reader that replays a durable channel. Prints one line, which says how.

Usage: measure_replay.py [--publications N] [--size BYTES] [--windows N] [--servers N] [--patience SECONDS]
           [--subscribers N] [--load N]
"""

import argparse
import pathlib
import statistics
import tempfile
import time

from bystanders import Comparison, Load, bystanders
from connection import Connection, receive
from server import Server

CHANNEL = "durable:replayed"
CONFIG = """
[store]
directory = "{}"
[namespaces.durable]
level = "durable"
history_size = {}
history_bytes = "4GiB"
"""
ASKED = 1000


def fill(port, publications, size):
    """Publishes, with an acknowledgement for every thousandth."""
    connection = Connection(port)
    data = "x" * (size - 2)
    plain = f'{{"action":"publish","channel":"{CHANNEL}","data":"{data}"}}'
    asked = f'{{"action":"publish","channel":"{CHANNEL}","id":1,"data":"{data}"}}'
    block = [plain] * (ASKED - 1) + [asked]
    for _ in range(publications // ASKED):
        connection.send(*block)
        heard = b""
        while b'{"type":"ack"' not in heard:
            heard += receive(connection.socket, 1 << 16)
            assert b'"error"' not in heard, heard
    connection.close()


class Reader(Load):
    """Reads the channel from its beginning, and must not come to its end, where nothing more comes."""

    def __init__(self, port, bytes_each):
        super().__init__()
        self.port, self.bytes_each = port, bytes_each

    def work(self):
        connection = Connection(self.port)
        connection.send(f'{{"action":"subscribe","channel":"{CHANNEL}","since":"start"}}')
        buffer = bytearray(1 << 20)
        total, begin = 0, time.monotonic()
        while not self.stopped.is_set():
            received = connection.socket.recv_into(buffer)
            assert received > 0, "the server has closed the connection"
            total += received
        connection.close()
        return total / self.bytes_each / (time.monotonic() - begin)


def measure(publications, size, windows, servers, patience, subscribers, load):
    comparison = Comparison()
    bytes_each = size + len(f'{{"channel":"{CHANNEL}","offset":500000,"data":}}') + 4

    for _ in range(servers):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "stentor.toml"
            config.write_text(CONFIG.format(pathlib.Path(folder) / "log", publications + 1))
            server = Server("--shards", "1", "--admin", "127.0.0.1:0", "--config", str(config))
            try:
                fill(server.port, publications, size)
                port = server.admin_port()
                with bystanders(server, load, subscribers) as others:
                    comparison.measure(port, others, lambda: Reader(server.port, bytes_each), windows, patience)
            finally:
                server.stop()
    return (
        f"a replay of {statistics.median(comparison.rates):.0f} publications of {size} bytes a second, beside {load} "
        f"publications of clients a second to {subscribers} subscribers: {comparison}; {servers} servers, 1 shard"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publications", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--windows", type=int, default=50)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--patience", type=int, default=60)
    parser.add_argument("--subscribers", type=int, default=10)
    parser.add_argument("--load", type=int, default=2_000)
    print(measure(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
