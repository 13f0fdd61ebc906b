#!/usr/bin/env python3
"""Measures what publishing through the server API costs everybody else: round trips of clients that ping, without it
and meanwhile, in turns.

Prints one line, which says how it was measured. Usage: measure_api.py [--rate N] [--batch N] [--rounds N] [--seconds N]
"""

import argparse
import http.client
import json
import re
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
        ratios = [after / before for before, after in zip(self.alone, self.meanwhile)]
        return (
            f"{self.rate:.0f} publications a second through the server API, {self.batch} to a request: p99 of "
            f"{PROBE_RATE} pings a second {statistics.median(self.alone):.3f} ms without, "
            f"{statistics.median(self.meanwhile):.3f} ms meanwhile, ratio {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f} … {max(ratios):.2f}] of {len(ratios)} rounds; {self.shards} shards"
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        commands = [{"publish": {"channel": f"api:{number % 10}", "data": "x" * 64}} for number in range(self.batch)]
        body = json.dumps({"commands": commands})
        begin = due = time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            connection.request("POST", "/api/batch", body, {"Content-Type": "application/json"})
            replies = json.loads(connection.getresponse().read())["result"]["replies"]
            assert len(replies) == self.batch and all("result" in reply for reply in replies), replies
            self.published += self.batch
            due += self.pause
        self.seconds = time.monotonic() - begin


def round_trips(url, seconds):
    """The 99th percentile of pings, in milliseconds."""
    load = ["--subscribers", "10", "--rate", "100", "--probes", str(PROBES), "--probe-rate", str(PROBE_RATE)]
    command = [str(binary()), "bench", "--url", url, "fanout", *load, "--duration", f"{seconds}s", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return p99_of_probes(report)


def p99_of_probes(report):
    pings = next(latency for latency in report["latencies"] if latency["name"] == "ping")
    return dict(map(tuple, pings["percentiles"]))[99.0] / 1e6


def measure(rate=10_000, batch=100, rounds=5, seconds=5, shards=1):
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=1)
    print(measure(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
