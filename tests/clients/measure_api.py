#!/usr/bin/env python3
"""Measures what publishing through the server API costs everybody else: round trips of clients that ping, without it
and meanwhile, in turns.

Many short rounds, so that what else the machine does falls on both alike. Prints one line, which says how it was measured.

Usage: measure_api.py [--rate N] [--batch N] [--rounds N] [--seconds N]
"""

import argparse
import json
import re
import socket
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass

from server import Server, binary

PROBES = 10
PROBE_RATE = 500


@dataclass
class Impact:
    rate: float
    batch: int
    shards: int
    # Of each round, in milliseconds: the 99th percentile of the round trips.
    alone: list
    meanwhile: list

    def __str__(self):
        alone, meanwhile = statistics.median(self.alone), statistics.median(self.meanwhile)
        control = statistics.median(self.alone[::2]) / statistics.median(self.alone[1::2])
        return (
            f"{self.rate:.0f} publications a second through the server API, {self.batch} to a request: p99 of "
            f"{PROBE_RATE} pings a second {alone:.3f} ms without, {meanwhile:.3f} ms meanwhile (medians of "
            f"{len(self.alone)} rounds each), ratio {meanwhile / alone:.2f}, without ÷ without {control:.2f}; "
            f"{self.shards} shards"
        )


class Publisher(threading.Thread):
    """Sends batches at a steady pace on one connection."""

    def __init__(self, port, rate, batch):
        super().__init__(daemon=True)
        self.port, self.pause, self.batch = port, batch / rate, batch
        self.stopped = threading.Event()
        self.published = 0
        self.seconds = 0.0

    def run(self):
        commands = [{"publish": {"channel": f"api:{number % 10}", "data": "x" * 64}} for number in range(self.batch)]
        body = json.dumps({"commands": commands}).encode()
        head = f"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        # The same bytes every time: who publishes takes little of a core that others need.
        request = head.encode() + body
        connection = socket.create_connection(("127.0.0.1", self.port))
        begin = due = time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            connection.sendall(request)
            answer = read_answer(connection)
            assert answer.count(b'"result":{') == self.batch + 1 and b'"error"' not in answer, answer
            self.published += self.batch
            due += self.pause
        self.seconds = time.monotonic() - begin


def read_answer(connection):
    """A whole answer of the server API, head and all."""
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]):
            return answer
        answer += connection.recv(1 << 16)


def round_trips(url, seconds):
    """The 99th percentile of pings, in milliseconds."""
    load = ["--subscribers", "10", "--rate", "100", "--probes", str(PROBES), "--probe-rate", str(PROBE_RATE)]
    command = [str(binary()), "bench", "--url", url, "fanout", *load, "--duration", f"{seconds}s", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return p99_of_probes(report)


def p99_of_probes(report):
    pings = next(latency for latency in report["latencies"] if latency["name"] == "ping")
    return dict(map(tuple, pings["percentiles"]))[99.0] / 1e6


def measure(rate=10_000, batch=100, rounds=40, seconds=1, shards=1):
    server = Server("--shards", str(shards), "--admin", "127.0.0.1:0")
    try:
        port = int(re.search(r"server API on http://127\.0\.0\.1:(\d+)", server.process.stdout.readline())[1])
        alone, meanwhile, rates = [], [], []
        for _ in range(rounds):
            alone.append(round_trips(server.url(), seconds))
            publisher = Publisher(port, rate, batch)
            publisher.start()
            meanwhile.append(round_trips(server.url(), seconds))
            publisher.stopped.set()
            publisher.join()
            rates.append(publisher.published / publisher.seconds)
    finally:
        server.stop()
    return Impact(min(rates), batch, shards, alone, meanwhile)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--shards", type=int, default=1)
    print(measure(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
