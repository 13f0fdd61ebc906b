#!/usr/bin/env python3
"""Measures what one reader that replays a durable channel costs others: how long fan-outs of clients' publications
take without it and meanwhile. Prints one line, which says how it was measured.

Usage: measure_replay.py [--publications N] [--size BYTES] [--windows N] [--servers N] [--patience SECONDS]
           [--subscribers N] [--load N]
"""

import argparse
import base64
import os
import pathlib
import socket
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager

from fan_outs import Comparison, clients
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


class Connection:
    """A WebSocket that says little and is sent much: what it receives is counted, not looked at."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        request = f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        self.socket.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head

    def send(self, *texts):
        self.socket.sendall(b"".join(map(frame, texts)))


def frame(text):
    """Masked with zeros, which leaves the text as it is."""
    payload = text.encode()
    assert len(payload) <= 0xFFFF, text
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


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
            heard += connection.socket.recv(1 << 16)
            assert heard and b'"error"' not in heard, heard
    connection.socket.close()


class Reader(threading.Thread):
    """Reads the channel from its beginning, and again."""

    def __init__(self, port, bytes_each):
        super().__init__(daemon=True)
        self.port, self.bytes_each = port, bytes_each
        self.stopped = threading.Event()
        self.received = 0
        self.seconds = 0.0

    def run(self):
        connection = Connection(self.port)
        connection.send(f'{{"action":"subscribe","channel":"{CHANNEL}","since":"start"}}')
        buffer = bytearray(1 << 20)
        begin = time.monotonic()
        while not self.stopped.is_set():
            self.received += connection.socket.recv_into(buffer)
        self.seconds = time.monotonic() - begin
        connection.socket.close()

    def rate(self):
        return self.received / self.bytes_each / self.seconds


def measure(publications, size, windows, servers, patience, subscribers, load):
    comparison, rates = Comparison(), []

    @contextmanager
    def replaying():
        reader = Reader(server.port, size + len(f'{{"channel":"{CHANNEL}","offset":500000,"data":}}') + 4)
        reader.start()
        yield
        reader.stopped.set()
        reader.join()
        assert reader.received < publications * size, "the channel was read to its end: it needs more publications"
        rates.append(reader.rate())

    for _ in range(servers):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "stentor.toml"
            config.write_text(CONFIG.format(pathlib.Path(folder) / "log", publications + 1))
            server = Server("--shards", "1", "--admin", "127.0.0.1:0", "--config", str(config))
            try:
                fill(server.port, publications, size)
                port = server.admin_port()
                with clients(server.url(), load, subscribers):
                    comparison.measure(port, replaying, windows, patience)
            finally:
                server.stop()
    return (
        f"a replay of {statistics.median(rates):.0f} publications of {size} bytes a second: p99 of {load} publications "
        f"of clients a second to {subscribers} subscribers {comparison}; {servers} servers, 1 shard"
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
