#!/usr/bin/env python3
"""Measures what others notice of one reader that replays a durable channel. Prints one line, which says how.

Usage: measure_replay.py [--publications N] [--size BYTES] [--windows N] [--servers N] [--patience SECONDS]
           [--subscribers N] [--load N]
"""

import argparse
import pathlib
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager

from bystanders import Comparison, bystanders
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


class Reader(threading.Thread):
    """Reads the channel from its beginning."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.stopped = threading.Event()
        self.received = 0
        self.seconds = 0.0
        self.failure = None

    def run(self):
        try:
            self.read()
        except Exception as failure:
            self.failure = failure

    def read(self):
        connection = Connection(self.port)
        connection.send(f'{{"action":"subscribe","channel":"{CHANNEL}","since":"start"}}')
        buffer = bytearray(1 << 20)
        begin = time.monotonic()
        while not self.stopped.is_set():
            received = connection.socket.recv_into(buffer)
            assert received > 0, "the server has closed the connection"
            self.received += received
        self.seconds = time.monotonic() - begin
        connection.close()

    def end(self):
        """Bytes a second. It must not have come to the end of the channel, where nothing more comes."""
        self.stopped.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        return self.received / self.seconds


def measure(publications, size, windows, servers, patience, subscribers, load):
    comparison, rates = Comparison(), []
    bytes_each = size + len(f'{{"channel":"{CHANNEL}","offset":500000,"data":}}') + 4

    @contextmanager
    def replaying():
        reader = Reader(server.port)
        reader.start()
        try:
            yield
        finally:
            rates.append(reader.end() / bytes_each)

    for _ in range(servers):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "stentor.toml"
            config.write_text(CONFIG.format(pathlib.Path(folder) / "log", publications + 1))
            server = Server("--shards", "1", "--admin", "127.0.0.1:0", "--config", str(config))
            try:
                fill(server.port, publications, size)
                port = server.admin_port()
                with bystanders(server, load, subscribers) as others:
                    comparison.measure(port, others, replaying, windows, patience)
            finally:
                server.stop()
    return (
        f"a replay of {statistics.median(rates):.0f} publications of {size} bytes a second, beside {load} "
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
