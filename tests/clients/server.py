"""A Stentor server as a child process: started on a free port, asked through signals, ended by its own pid."""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import threading
import time
from collections import Counter

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BANNER = re.compile(r"stentor \S+ listening on http://127\.0\.0\.1:(\d+) ")
PATIENCE = 10


def binary():
    """STENTOR_BIN, or the release build of this repository."""
    path = pathlib.Path(os.environ.get("STENTOR_BIN") or REPOSITORY / "target" / "release" / "stentor")
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"no server to test at {path}: run `cargo build --release`, or set STENTOR_BIN")
    return path


def raise_open_files(wanted):
    """Raises the open-file limit of this process, and of its children, to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{wanted} open files are needed and the hard limit is {hard}: raise it with `ulimit -Hn`")


class Server:
    """Serves from the moment that the constructor returns."""

    def __init__(self, *options, port=0):
        command = [str(binary()), "serve", "--listen", f"127.0.0.1:{port}", "--log-format", "json", *options]
        # The configuration is what the test says, whatever the environment holds.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STENTOR_")}
        environment.pop("PORT", None)
        # Log lines in the order they came. `changed` guards it, and is notified of each.
        self.log = []
        self.log_has_ended = False
        self.is_told_to_stop = False
        self.changed = threading.Condition()
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read_log, daemon=True).start()
        self.banner = [self.process.stdout.readline()]
        self.start_seconds = time.perf_counter() - started
        match = BANNER.match(self.banner[0])
        if match is None:
            self.process.kill()
            self.process.wait()
            with self.changed:
                self.changed.wait_for(lambda: self.log_has_ended, PATIENCE)
            raise RuntimeError(f"{' '.join(command)}: no banner but {self.banner[0]!r}; log: {self.log}")
        self.banner += [self.process.stdout.readline() for _ in range(2)]
        self.port = int(match[1])
        self.pid = self.process.pid

    def url(self, path="/", scheme="ws"):
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def admin_port(self):
        """Where the server API is, which follows the banner; asked once, of a server with `--admin`."""
        line = self.process.stdout.readline()
        return int(re.fullmatch(r"server API on http://127\.0\.0\.1:(\d+)\n", line)[1])

    def _read_log(self):
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                # A panic, say: not one of the server's own lines.
                entry = {"level": "ERROR", "message": line.rstrip("\n")}
            with self.changed:
                self.log.append(entry)
                self.changed.notify_all()
        with self.changed:
            self.log_has_ended = True
            self.changed.notify_all()

    def wait_for_log(self, message, after=0):
        """The first line with this message behind the first `after` lines."""

        def found():
            return next((entry for entry in self.log[after:] if entry.get("message") == message), None)

        with self.changed:
            if not self.changed.wait_for(lambda: found() or self.log_has_ended, PATIENCE) or not found():
                raise TimeoutError(f"the server never logged {message!r}; it logged {self.log}")
            return found()

    def counters(self):
        """What the server has counted so far; what it does not name is 0."""
        with self.changed:
            after = len(self.log)
        self.process.send_signal(signal.SIGUSR1)
        pairs = self.wait_for_log("counters", after)["counters"].split()
        return Counter({name: int(value) for name, value in (pair.split("=") for pair in pairs)})

    def wait_for_counter(self, name, least, patience=PATIENCE):
        """Asks until the counter is at least that; returns all counters."""
        deadline = time.monotonic() + patience
        while True:
            counters = self.counters()
            if counters[name] >= least:
                return counters
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is {counters[name]} after {patience} s, not {least}: {counters}")
            time.sleep(0.02)

    def resident_bytes(self):
        """Exact, unlike the estimate in `statm`: the kernel walks the pages for it."""
        for line in pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise ValueError("smaps_rollup has no Rss")

    def reset_resident_bytes_peak(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def resident_bytes_peak(self):
        """The most that was resident since the start, or since the reset."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024

    def terminate(self, number=signal.SIGTERM):
        """Once: a second signal would end the server without its goodbyes."""
        if not self.is_told_to_stop:
            self.is_told_to_stop = True
            self.process.send_signal(number)

    def stop(self, patience=15):
        """Ends the server as an operator would, and tells its exit code."""
        self.terminate()
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()

    def errors(self):
        """Log lines that no client may be able to cause."""
        with self.changed:
            self.changed.wait_for(lambda: self.log_has_ended, PATIENCE)
            return [entry for entry in self.log if entry.get("level") == "ERROR"]
