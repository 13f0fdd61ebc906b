"""Thousands of connections, from plain sockets: one order for all, an end under load, a reader that stopped."""

import itertools
import json
import time

import measure_idle
import pytest
from crowd import CLOSE, PATIENCE, TEXT, Crowd, client_frame, command, frames, publication, server_frame
from server import raise_open_files

# Close frames of the server: 1001 and 4002.
GOODBYE = b"\x88\x0a\x03\xe9shutdown"
GOODBYE_SLOW = b"\x88\x0f\x0f\xa2slow_consumer"
PONG = server_frame(b'{"type":"pong"}')
# A crowd answers no pings: the server shall send none while a test runs.
QUIET = ("--shards", "2", "--heartbeat", "10m")


@pytest.fixture(autouse=True, scope="module")
def open_files():
    raise_open_files(16000)


def data_of(frame):
    first_byte, payload = frame
    assert first_byte == TEXT, frame
    return json.loads(payload)["data"]


def test_publications_reach_5000_subscribers_in_one_order(start_server):
    server = start_server(*QUIET)
    publishers, publications = 4, 5
    with Crowd(server.port) as crowd:
        members = crowd.join(5000)
        crowd.subscribe(members, "all")
        expected = {(number, count) for number in range(publishers) for count in range(publications)}
        size = sum(len(publication("all", json.dumps(list(pair)).replace(" ", ""))) for pair in expected)
        for number, publisher in enumerate(crowd.join(publishers)):
            for count in range(publications):
                publisher.send(command(action="publish", channel="all", data=[number, count]))
        crowd.run_until(lambda: all(len(member.stream) >= size for member in members), "the publications")
        orders = {bytes(member.stream) for member in members}
        assert len(orders) == 1
        taken, rest = frames(orders.pop())
        order = [tuple(data_of(frame)) for frame in taken]
        assert rest == b"" and len(order) == len(expected) and set(order) == expected
        for number in range(publishers):
            assert [count for publisher, count in order if publisher == number] == list(range(publications))
        assert server.counters()["deliveries"] == 5000 * len(expected)


def test_sigterm_under_load(start_server):
    server = start_server(*QUIET)
    with Crowd(server.port) as crowd:
        members = crowd.join(5000)
        crowd.subscribe(members, "load")
        publishers = crowd.join(4)
        size = len(publication("load", json.dumps("x" * 100 + "000000")))
        numbers = itertools.count()
        received = published = 0
        goodbyes = set()

        def on_bytes(member, data):
            nonlocal received
            received += len(data)
            member.stream += data
            if member.stream.endswith(GOODBYE) and member not in goodbyes:
                goodbyes.add(member)
                member.send(client_frame(GOODBYE[2:4], CLOSE))

        def publish():
            """Keeps so much on its way that nobody's send queue runs dry, and none overflows."""
            nonlocal published
            while published < received // (size * len(members)) + 50:
                publisher = publishers[published % len(publishers)]
                if publisher.ended or publisher in goodbyes:
                    return
                data = "x" * 100 + f"{next(numbers):06}"
                publisher.send(command(action="publish", channel="load", data=data))
                published += 1

        crowd.on_bytes = on_bytes

        def loaded():
            publish()
            return published >= 300

        crowd.run_until(loaded, "300 publications")
        assert received < published * size * len(members), "nothing was on its way"
        server.terminate()
        since = time.monotonic()

        def ended():
            publish()
            return all(member.ended for member in members + publishers)

        crowd.run_until(ended, "the end of all connections")
        assert server.stop() == 0
        seconds = time.monotonic() - since
        assert seconds < 10
        assert len(goodbyes) == len(members) + len(publishers)
        streams = [bytes(member.stream.removesuffix(GOODBYE)) for member in members]
        longest = max(streams, key=len)
        # Whatever the moment of a member's end: it saw the same publications as all others until then.
        assert all(longest.startswith(stream) and len(stream) % size == 0 for stream in streams)
        seen = [data_of(frame) for frame in frames(longest)[0]]
        assert len(seen) == len(set(seen)) > 200
        print(f"{published} published, {min(map(len, streams)) // size} to {len(seen)} seen, ended in {seconds:.2f} s")


class Audience:
    """Subscribers of one channel and one publisher: each receives exactly what was published, in that order."""

    def __init__(self, crowd, channel, members):
        self.crowd = crowd
        self.channel = channel
        self.members = members
        self.publisher = crowd.join(1)[0]
        self.expected = bytearray()
        self.positions = dict.fromkeys(members, 0)
        self.behind = set()
        crowd.subscribe(members, channel)
        crowd.on_bytes = self.compare

    def compare(self, member, data):
        position = self.positions[member]
        assert self.expected.startswith(data, position), "a subscriber received something else"
        self.positions[member] = position + len(data)
        if position + len(data) == len(self.expected):
            self.behind.discard(member)

    def publish(self, count):
        """Returns when everybody has them all."""
        self.behind = set(self.members)
        for _ in range(count):
            data = f"{len(self.expected):010}" + "x" * 1000
            self.publisher.send(command(action="publish", channel=self.channel, data=data))
            self.expected += publication(self.channel, json.dumps(data))
        self.crowd.run_until(lambda: not self.behind, "the publications")


# Of one reader, as `limits.send_queue_size` has it by default.
SEND_QUEUE_BYTES = 1 << 20
# For what the bytes of a queue do not count: the frames' bookkeeping, and the publications under way.
SLACK_BYTES = 2 << 20


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest"])
def test_a_stopped_reader_among_10000_harms_itself_only(start_server, policy):
    server = start_server(*QUIET, "--slow-consumer", policy, "--set", "limits.close_timeout=1m")
    with Crowd(server.port) as crowd:
        members = crowd.join(10_000)
        # The kernel shall hold little for it, so that the server soon has to.
        stopped = crowd.join(1, receive_buffer=4096)[0]
        crowd.subscribe([stopped], "live")
        crowd.subscribe([stopped], "own")
        crowd.unwatch(stopped)
        # A channel for it alone fills its queue; through the channel of all, that would take 40 GB.
        flood = crowd.join(1)[0]
        flood.socket.setblocking(True)
        audience = Audience(crowd, "live", members)
        warm_up, rounds, floods = 20, 30, 2000
        audience.publish(warm_up)
        before = server.resident_bytes()
        server.reset_resident_bytes_peak()
        for number in range(rounds):
            flood.socket.sendall(
                b"".join(
                    command(action="publish", channel="own", data=f"{number * floods + count:06}" + "y" * 100)
                    for count in range(floods)
                )
            )
            audience.publish(1)
        flood.send(command(action="publish", channel="own", data="end"))
        # A publication that drives an older one out counts as delivered.
        published_to_stopped = warm_up + rounds + rounds * floods + 1
        if policy == "disconnect":
            counters = server.wait_for_counter("slow_consumer", 1)
        else:
            deliveries = (warm_up + rounds) * len(members) + published_to_stopped
            counters = server.wait_for_counter("deliveries", deliveries)
        growth = server.resident_bytes_peak() - before
        print(f"{policy}: {before >> 10} KiB resident, grown by {growth >> 10} KiB at most; {dict(counters)}")
        assert growth <= SEND_QUEUE_BYTES + SLACK_BYTES

        # It reads on, and learns what became of it. The answer to a ping comes behind all that waits.
        stopped.socket.settimeout(PATIENCE)
        if policy == "drop_oldest":
            stopped.send(command(type="ping"))
        last = GOODBYE_SLOW if policy == "disconnect" else PONG
        while not stopped.stream.endswith(last):
            data = stopped.socket.recv(1 << 20)
            assert data, f"ended after {bytes(stopped.stream[-100:])}"
            stopped.stream += data
        taken, rest = frames(stopped.stream)
        assert rest == b""
        first_byte, _ = taken.pop()
        if policy == "disconnect":
            assert first_byte == CLOSE
            assert (counters["slow_consumer"], counters["dropped_oldest"]) == (1, 0)
        else:
            assert counters["slow_consumer"] == 0
            # Each was delivered or counted as dropped.
            assert len(taken) + counters["dropped_oldest"] == published_to_stopped
        own = [data_of(frame) for frame in taken if frame[1].startswith(b'{"channel":"own"')]
        live = [data_of(frame) for frame in taken if frame[1].startswith(b'{"channel":"live"')]
        assert own == sorted(own, key=lambda data: (data == "end", data)) and len(set(own)) == len(own)
        assert live == sorted(live) and len(set(live)) == len(live)


def test_the_server_at_rest_is_small_and_starts_at_once():
    idle = measure_idle.measure(connections=15_000)
    print(idle)
    assert idle.bytes_per_connection() <= 0.6 * 1024
    assert idle.empty_bytes <= 8 << 20
    assert idle.start_seconds <= 0.1
