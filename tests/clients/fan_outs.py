"""How long fan-outs of a server take: from a publication's arrival to the sockets of its last subscriber, by the
shards' own histogram, in short windows.

Windows in which the host took time from this machine (`steal` in /proc/stat) tell of the host, and do not count.
"""

import os
import pathlib
import re
import subprocess
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager

from server import binary

WINDOW = 0.25
# Behind a change of the load, which is part of no window.
PAUSE = 0.05
BUCKET = re.compile(r'stentor_fanout_seconds_bucket\{shard="\d+",le="([^"]+)"\} (\d+)')


class Windows:
    """Windows under the same load."""

    def __init__(self):
        # Of each: how many fan-outs took at most so many seconds.
        self.counts = []

    def p99(self, step=slice(None)):
        """The 99th percentile of all together, in milliseconds."""
        counts = sum((Counter(window) for window in self.counts[step]), Counter())
        return percentile(counts, 0.99)

    def control(self):
        """One half of the windows by the other: 1, if they were enough."""
        return self.p99(slice(0, None, 2)) / self.p99(slice(1, None, 2))


class Comparison:
    """Windows without and with another load, in turns, so that what else the machine does falls on both alike."""

    def __init__(self):
        self.alone, self.meanwhile, self.thrown = Windows(), Windows(), 0

    def measure(self, port, load, windows, patience):
        """Adds so many windows of each, or as many as come in so many seconds. `load` makes a context in which the
        load is there."""
        end = time.monotonic() + patience
        enough = [len(side.counts) + windows for side in (self.alone, self.meanwhile)]
        while time.monotonic() < end and any(
            len(side.counts) < least for side, least in zip((self.alone, self.meanwhile), enough)
        ):
            self._add(self.alone, window(port))
            with load():
                counts = window(port)
            self._add(self.meanwhile, counts)

    def _add(self, side, counts):
        if counts is None:
            self.thrown += 1
        else:
            side.counts.append(counts)

    def __str__(self):
        return (
            f"{self.alone.p99():.3f} ms without, {self.meanwhile.p99():.3f} ms meanwhile, "
            f"ratio {self.meanwhile.p99() / self.alone.p99():.2f}, without ÷ without {self.alone.control():.2f}, "
            f"meanwhile ÷ meanwhile {self.meanwhile.control():.2f}; {len(self.alone.counts)} and "
            f"{len(self.meanwhile.counts)} windows of {WINDOW} s, {self.thrown} left out in which the host took time"
        )


@contextmanager
def clients(url, rate, subscribers):
    """Clients that publish all the time. They leave the first core, on which the first shard runs, alone, as does
    this process from now on: they stand for other machines."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {0})
    command = [str(binary()), "bench", "--url", url, "fanout", "--duration", "1h"]
    command += ["--subscribers", str(subscribers), "--rate", str(rate)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(2)
        yield
    finally:
        os.sched_setaffinity(0, cores)
        process.kill()
        process.wait()


def fan_outs(port):
    """How many took at most so many seconds, of all shards and since the start."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode()
    counts = Counter()
    for bound, count in BUCKET.findall(lines):
        counts[float(bound.replace("+Inf", "inf"))] += int(count)
    return counts


def percentile(counts, part):
    """In milliseconds, taken to be even within its bucket."""
    wanted = part * counts[float("inf")]
    below, before = 0.0, 0
    for bound, count in sorted(counts.items()):
        if count >= wanted and count > before:
            assert bound != float("inf"), counts
            return 1e3 * (below + (bound - below) * (wanted - before) / (count - before))
        below, before = bound, count
    raise AssertionError(f"no publication was delivered: {counts}")


def stolen():
    """Time that the host took from this machine, in ticks of 10 ms."""
    return int(pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[8])


def window(port):
    """What was fanned out in it; None: the host took time."""
    time.sleep(PAUSE)
    ticks, before = stolen(), fan_outs(port)
    time.sleep(WINDOW)
    after = fan_outs(port)
    return None if stolen() != ticks else {bound: count - before[bound] for bound, count in after.items()}
