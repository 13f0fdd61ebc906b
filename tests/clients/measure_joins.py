#!/usr/bin/env python3
"""Measures a crowd that joins one room whose members are told who comes: how long until everybody is in and has heard
of all, how many notices that took, and whether all have the same list of members afterwards.

Prints one line, which says how it was measured. Usage: measure_joins.py [--users N] [--shards N] [--interval TIME]
"""

import argparse
import json
import time
from dataclasses import dataclass

from crowd import Crowd, command, frames
from server import Server, raise_open_files

USERS = 10_000
ROOM = "room:lobby"
# Of the end of a stream: a notice says last how many there are.
TAIL = 256
# Members whose whole list is looked at.
ASKED = 20
PATIENCE = 120


@dataclass
class Joins:
    users: int
    shards: int
    interval: str
    # From the first request to join until the last answer, and until the last member had heard of all.
    joined_seconds: float
    told_seconds: float
    notices: int
    dropped: int
    received_bytes: int

    def __str__(self):
        return (
            f"{self.users} joined one room in {self.joined_seconds:.2f} s, and all had heard of all after "
            f"{self.told_seconds:.2f} s: {self.notices} notices for all together ({self.dropped} deliveries left out at slow "
            f"readers), {self.received_bytes / 2**20:.0f} MiB received; {self.shards} shards, "
            f"join_leave_interval {self.interval}; {ASKED} members have the same list"
        )


def ask(crowd, member, **message):
    """The answer to a request; nothing else comes meanwhile."""
    member.stream.clear()
    member.send(command(**message))
    answers = []

    def answered():
        taken, _ = frames(member.stream)
        answers[:] = [answer for _, answer in taken if b'"requestId":7' in answer]
        return answers

    crowd.run_until(answered, "an answer", PATIENCE)
    return json.loads(answers[0])["payload"]


def members_of_room(crowd, member):
    listed, after = [], 0
    while after is not None:
        parameters = {"channel": ROOM, "limit": 1000, "after": after}
        page = ask(crowd, member, type="query", id=7, payload={"resource": "presence", "parameters": parameters})
        listed += [entry["connectionId"] for entry in page["members"]]
        after = page.get("next")
    return listed


def measure(users=USERS, shards=2, interval="100ms"):
    raise_open_files(users + 100)
    options = ["--shards", str(shards), "--heartbeat", "10m", "--set", "channels.rooms=true"]
    server = Server(*options, "--set", "channels.join_leave=true", "--set", f"channels.join_leave_interval={interval}")
    received = 0

    def note(member, data):
        nonlocal received
        received += len(data)
        member.stream.extend(data)
        if member in unanswered and b'"type":"response"' in member.stream:
            unanswered.discard(member)
        del member.stream[:-TAIL]

    try:
        with Crowd(server.port) as crowd:
            members = crowd.join(users)
            payload = {"action": "create_room", "parameters": {"room": ROOM, "maxUsers": users}}
            ask(crowd, members[0], type="command", id=7, payload=payload)
            members[0].stream.clear()
            keep, crowd.on_bytes = crowd.on_bytes, note
            unanswered = set(members)
            join = command(type="command", payload={"action": "join", "parameters": {"room": ROOM}})
            begin = time.monotonic()
            for number, member in enumerate(members):
                member.send(join)
                if number % 100 == 0:
                    crowd.turn()
            crowd.run_until(lambda: not unanswered, "the joins", PATIENCE)
            joined = time.monotonic() - begin
            everybody = f'"clients":{users},'.encode()
            waiting = list(members)

            def all_told():
                waiting[:] = [member for member in waiting if everybody not in member.stream]
                return not waiting

            crowd.run_until(all_told, "the notices", PATIENCE)
            told = time.monotonic() - begin
            counters = server.counters()
            crowd.on_bytes = keep
            lists = [members_of_room(crowd, member) for member in members[:: users // ASKED]]
            assert len(set(lists[0])) == users and all(other == lists[0] for other in lists)
    finally:
        server.stop()
    notices, dropped = counters["presence_notices"], counters["presence_dropped"]
    return Joins(users, shards, interval, joined, told, notices, dropped, received)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--interval", default="100ms", help="of channels.join_leave_interval")
    options = parser.parse_args()
    print(measure(options.users, options.shards, options.interval))


if __name__ == "__main__":
    main()
