"""Thousands of WebSocket clients on plain sockets, in one thread: what they receive is kept as bytes, or only compared.

It knows as much of RFC 6455 as they need: unfragmented text frames and Close from the server, nothing compressed.
"""

import base64
import json
import os
import re
import select
import socket
import struct
import time

PATIENCE = 30
# Connects at a time: fewer than a listener's backlog, so that none waits for a second try.
CONNECTS_MAX = 500
# No secret is masked here, and a key of 0 leaves the payload readable.
MASK = b"\0\0\0\0"
TEXT, CLOSE, PING = 0x81, 0x88, 0x89


def client_frame(payload, first_byte=TEXT):
    length = len(payload)
    if length < 126:
        header = struct.pack("!BB", first_byte, 0x80 | length)
    elif length < 1 << 16:
        header = struct.pack("!BBH", first_byte, 0x80 | 126, length)
    else:
        header = struct.pack("!BBQ", first_byte, 0x80 | 127, length)
    return header + MASK + payload


def server_frame(payload):
    """A text frame as the server sends it."""
    frame = client_frame(payload)
    header = frame[: len(frame) - len(payload) - len(MASK)]
    return bytes([header[0], header[1] & 0x7F]) + header[2:] + payload


def command(**message):
    return client_frame(json.dumps(message, separators=(",", ":")).encode())


def publication(channel, data):
    """The frame in which a subscriber receives it. `data` is JSON already."""
    return server_frame(f'{{"channel":"{channel}","data":{data}}}'.encode())


def confirmation(channel):
    text = f'{{"channel":"system","data":{{"type":"subscription_confirm","channel":"{channel}"}}}}'
    return server_frame(text.encode())


def frames(stream):
    """The complete frames of a server's stream as (first byte, payload), and the bytes of one that is not."""
    taken, at = [], 0
    while len(stream) - at >= 2:
        length, start = stream[at + 1], at + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(stream) - start < size:
                break
            length, start = int.from_bytes(stream[start : start + size], "big"), start + size
        if len(stream) - start < length:
            break
        taken.append((stream[at], bytes(stream[start : start + length])))
        at = start + length
    return taken, bytes(stream[at:])


def upgrade_request(port, path="/"):
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Member:
    """One connection."""

    __slots__ = ("stream", "socket", "ended")

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = bytearray()
        # The server has ended its side, and so has the member.
        self.ended = False

    def send(self, data):
        """Requests are small and few: the kernel takes each at once."""
        sent = self.socket.send(data)
        assert sent == len(data), "the kernel took a part of a request only"


class Crowd:
    """Members that one thread serves. They are closed with it: `with Crowd(port) as crowd`."""

    def __init__(self, port):
        self.port = port
        self.members = []
        self.by_descriptor = {}
        self.poll = select.epoll()
        # Told of what has come: a member, and the bytes. By default the member keeps them.
        self.on_bytes = lambda member, data: member.stream.extend(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.socket.close()
        self.poll.close()

    def join(self, count, *, receive_buffer=None):
        """Connects that many, and returns them when the server has upgraded all."""
        joined = []
        for start in range(0, count, CONNECTS_MAX):
            batch = [Member(self.port, receive_buffer) for _ in range(min(CONNECTS_MAX, count - start))]
            for member in batch:
                self.watch(member)
                self.members.append(member)
                member.send(upgrade_request(self.port))
            self.run_until(lambda: all(member.stream.endswith(b"\r\n\r\n") for member in batch), "the upgrades")
            for member in batch:
                assert re.match(rb"HTTP/1\.1 101 ", member.stream), bytes(member.stream)
                member.stream.clear()
            joined += batch
        return joined

    def subscribe(self, members, channel):
        """Returns when all of them are confirmed."""
        request, answer = command(action="subscribe", channel=channel), confirmation(channel)
        for member in members:
            member.send(request)
        self.run_until(lambda: all(len(member.stream) >= len(answer) for member in members), "the confirmations")
        for member in members:
            assert member.stream == answer, bytes(member.stream)
            member.stream.clear()

    def watch(self, member):
        self.by_descriptor[member.socket.fileno()] = member
        self.poll.register(member.socket, select.EPOLLIN)

    def unwatch(self, member):
        """A member that is not watched reads nothing."""
        self.poll.unregister(member.socket)

    def run_until(self, done, what, patience=PATIENCE):
        """Receives until `done` says so; it is asked after every turn."""
        deadline = time.monotonic() + patience
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come in {patience} s")
            self.turn()

    def turn(self):
        for descriptor, _ in self.poll.poll(0.1, 4096):
            self.receive(self.by_descriptor[descriptor])

    def receive(self, member):
        try:
            data = member.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self.on_bytes(member, data)
        else:
            member.ended = True
            member.socket.close()
