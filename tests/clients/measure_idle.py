#!/usr/bin/env python3
"""Measures the server at rest: start time, resident memory without connections, and per idle subscribed connection.

Prints one line, which says how it was measured. Usage: measure_idle.py [--connections N] [--channels N] [--shards N]
"""

import argparse
import statistics
from dataclasses import dataclass

from crowd import Crowd, command, confirmation
from server import Server, raise_open_files

CONNECTIONS = 15_000


@dataclass
class Idle:
    connections: int
    channels: int
    shards: int
    # Median of the starts: from exec to the banner, which is printed when the address is taken.
    start_seconds: float
    empty_bytes: int
    loaded_bytes: int

    def bytes_per_connection(self):
        return (self.loaded_bytes - self.empty_bytes) / self.connections

    def __str__(self):
        return (
            f"{self.bytes_per_connection() / 1024:.3f} KiB per idle subscribed connection "
            f"(resident {self.empty_bytes / 2**20:.2f} MiB with none, {self.loaded_bytes / 2**20:.2f} MiB with "
            f"{self.connections} connections, each subscribed to one of {self.channels} channels; "
            f"{self.shards} shards; Rss of smaps_rollup); start {self.start_seconds * 1000:.1f} ms"
        )


def measure(connections=CONNECTIONS, channels=1, shards=2, starts=5):
    raise_open_files(connections + 100)
    options = ("--shards", str(shards))
    times = []
    for _ in range(starts - 1):
        server = Server(*options)
        times.append(server.start_seconds)
        server.stop()
    server = Server(*options)
    times.append(server.start_seconds)
    try:
        empty = server.resident_bytes()
        with Crowd(server.port) as crowd:
            members = crowd.join(connections)
            names = [f"channel:{number % channels}" for number in range(connections)]
            for member, name in zip(members, names):
                member.send(command(action="subscribe", channel=name))
            crowd.run_until(
                lambda: all(member.stream == confirmation(name) for member, name in zip(members, names)),
                "the confirmations",
            )
            loaded = server.resident_bytes()
    finally:
        server.stop()
    return Idle(connections, channels, shards, statistics.median(times), empty, loaded)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--channels", type=int, default=1, help="the connections are spread over that many")
    parser.add_argument("--shards", type=int, default=2)
    options = parser.parse_args()
    print(measure(options.connections, options.channels, options.shards))


if __name__ == "__main__":
    main()
