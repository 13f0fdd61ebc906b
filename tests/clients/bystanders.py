"""What others notice of a load: how long fan-outs of their publications take, by the shards' own histogram, from when
the shard takes a publication in until the sockets of its last subscriber were offered it; and round trips of pings,
which show what waits for the shard as well, and what else the clients' core does.

Both in short windows, without the load and with it in turns. Windows in which the host took time from this machine
(`steal` in /proc/stat) tell of the host, and do not count.
"""

import bisect
import os
import pathlib
import re
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress

from connection import Connection, frame, receive
from server import binary

WINDOW = 0.25
# Behind a change of the load, which is part of no window.
PAUSE = 0.05
PINGS_PER_SECOND = 500
BUCKET = re.compile(r'stentor_fanout_seconds_bucket\{shard="\d+",le="([^"]+)"\} (\d+)')
SAMPLE = struct.Struct("dd")


class Windows:
    """Windows under the same load."""

    def __init__(self):
        # Of each: how many fan-outs took at most so many seconds, and the round trips in milliseconds.
        self.fan_outs = []
        self.pings = []

    def fan_out_p99(self, step=slice(None)):
        """Of all windows together, in milliseconds."""
        return percentile(sum((Counter(counts) for counts in self.fan_outs[step]), Counter()), 0.99)

    def ping_p99(self, step=slice(None)):
        pings = sorted(ping for window in self.pings[step] for ping in window)
        return pings[int(0.99 * len(pings))]


class Load(threading.Thread):
    """What goes on while others are watched, in a `with` block. `work` goes on until `stopped` is set, and returns how
    much it did a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.rate = 0.0
        self.failure = None

    def work(self):
        raise NotImplementedError

    def run(self):
        try:
            self.rate = self.work()
        except Exception as failure:
            self.failure = failure

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()
        if self.failure is not None:
            raise self.failure


class Comparison:
    """Windows without and with a load, in turns, so that what else the machine does falls on both alike."""

    def __init__(self):
        self.alone, self.meanwhile, self.thrown = Windows(), Windows(), 0
        self.rates = []

    def measure(self, port, bystanders, load, windows, patience):
        """Adds so many windows of each, or as many as come in so many seconds. `port`: of the server API. `load`
        makes a Load."""
        end = time.monotonic() + patience
        enough = [len(side.fan_outs) + windows for side in (self.alone, self.meanwhile)]
        while time.monotonic() < end and any(
            len(side.fan_outs) < least for side, least in zip((self.alone, self.meanwhile), enough)
        ):
            self._window(self.alone, port, bystanders)
            with load() as running:
                self._window(self.meanwhile, port, bystanders)
            self.rates.append(running.rate)

    def _window(self, side, port, bystanders):
        time.sleep(PAUSE)
        begin, ticks, before = time.monotonic(), stolen(), fan_outs(port)
        time.sleep(WINDOW)
        end, after = time.monotonic(), fan_outs(port)
        if stolen() != ticks:
            self.thrown += 1
            return
        side.fan_outs.append({bound: count - before[bound] for bound, count in after.items()})
        side.pings.append(bystanders.pings(begin, end))

    def __str__(self):
        return (
            f"p99 of fan-outs {self._compared('fan_out_p99')}, of pings {self._compared('ping_p99')}; "
            f"{len(self.alone.fan_outs)} and {len(self.meanwhile.fan_outs)} windows of {WINDOW} s, {self.thrown} left "
            "out in which the host took time"
        )

    def _compared(self, name):
        """The ratio is worth as much as its control, one half of the windows without by the other, is near 1."""
        alone, meanwhile = getattr(self.alone, name), getattr(self.meanwhile, name)
        control = alone(slice(0, None, 2)) / alone(slice(1, None, 2))
        return (
            f"{alone():.3f} ms without and {meanwhile():.3f} ms meanwhile, ratio {meanwhile() / alone():.2f} "
            f"(control {control:.2f})"
        )


class Bystanders:
    """Clients that publish and ping all the time. They leave the first core, on which the first shard runs, alone, as
    does this process meanwhile: they stand for other machines."""

    def __init__(self, server, rate, subscribers):
        command = [str(binary()), "bench", "--url", server.url(), "fanout", "--duration", "1h"]
        command += ["--subscribers", str(subscribers), "--rate", str(rate)]
        self.publishing = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.pinging = subprocess.Popen([sys.executable, __file__, str(server.port)], stdout=subprocess.PIPE)
        self.samples = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while sample := self.pinging.stdout.read(SAMPLE.size):
            self.samples.append(SAMPLE.unpack(sample))

    def pings(self, begin, end):
        """The round trips of pings that were sent in this time, in milliseconds."""
        assert self.publishing.poll() is None and self.pinging.poll() is None, "a client has ended"
        samples = self.samples[bisect.bisect(self.samples, (begin,)) : bisect.bisect(self.samples, (end,))]
        return [1e3 * seconds for _, seconds in samples]

    def stop(self):
        for process in (self.publishing, self.pinging):
            process.kill()
            process.wait()


@contextmanager
def bystanders(server, rate, subscribers):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {0})
    clients = Bystanders(server, rate, subscribers)
    try:
        time.sleep(2)
        yield clients
    finally:
        clients.stop()
        os.sched_setaffinity(0, cores)


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
    raise AssertionError(f"no publication was delivered, or the host took time all the while: {counts}")


def stolen():
    """Time that the host took from this machine, in ticks of 10 ms."""
    return int(pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[8])


def ping_on(port):
    """Pings until it is killed; says when, and how long the answer took."""
    # Before what else runs on this core, where that is permitted: it is not what is measured.
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    connection, ping = Connection(port), frame('{"type":"ping"}')
    due = time.monotonic()
    while True:
        due += 1 / PINGS_PER_SECOND
        time.sleep(max(0, due - time.monotonic()))
        begin = time.monotonic()
        connection.socket.sendall(ping)
        answer = b""
        while b'"pong"' not in answer:
            answer += receive(connection.socket, 1024)
        sys.stdout.buffer.write(SAMPLE.pack(begin, time.monotonic() - begin))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    ping_on(int(sys.argv[1]))
