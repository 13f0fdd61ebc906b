#!/usr/bin/env python3
"""Measures what others notice of publications through the server API. Prints one line, which says how.

Usage: measure_api.py [--rate N] [--batch N] [--windows N] [--servers N] [--patience SECONDS] [--shards N]
           [--subscribers N] [--load N]
"""

import argparse
import json
import re
import socket
import statistics
import time

from bystanders import Comparison, Load, bystanders
from connection import PATIENCE, receive
from server import Server


class Publisher(Load):
    """Sends batches at a steady pace on one connection."""

    def __init__(self, port, rate, batch):
        super().__init__()
        self.port, self.pause, self.batch = port, batch / rate, batch

    def work(self):
        commands = [{"publish": {"channel": f"api:{number % 10}", "data": "x" * 64}} for number in range(self.batch)]
        body = json.dumps({"commands": commands}).encode()
        head = f"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        # The same bytes every time: who publishes takes little of a core that others need.
        request = head.encode() + body
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        published = 0
        begin = due = time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            connection.sendall(request)
            answer = read_answer(connection)
            assert answer.count(b'"result":{') == self.batch + 1 and b'"error"' not in answer, answer
            published += self.batch
            due += self.pause
        return published / (time.monotonic() - begin)


def read_answer(connection):
    """A whole answer of the server API, head and all."""
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]):
            return answer
        answer += receive(connection, 1 << 16)


def measure(rate, batch, windows, servers, patience, shards, subscribers, load):
    comparison = Comparison()
    # One server's shard may be slower than another's, by where its memory is.
    for _ in range(servers):
        server = Server("--shards", str(shards), "--admin", "127.0.0.1:0")
        try:
            port = server.admin_port()
            with bystanders(server, load, subscribers) as others:
                comparison.measure(port, others, lambda: Publisher(port, rate, batch), windows, patience)
        finally:
            server.stop()
    return (
        f"{statistics.median(comparison.rates):.0f} publications a second through the server API, {batch} to a request, "
        f"beside {load} publications of clients a second to {subscribers} subscribers: {comparison}; "
        f"{servers} servers, {shards} shards"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--windows", type=int, default=50)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--patience", type=int, default=60)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--subscribers", type=int, default=10)
    parser.add_argument("--load", type=int, default=2_000)
    print(measure(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
