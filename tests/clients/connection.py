"""A WebSocket without ceremony, for measuring: little is sent, and what comes is not looked at."""

import base64
import os
import socket

PATIENCE = 10


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        self.socket.sendall(f"{head}Sec-WebSocket-Version: 13\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += receive(self.socket, 1)
        assert answer.startswith(b"HTTP/1.1 101"), answer

    def send(self, *texts):
        self.socket.sendall(b"".join(map(frame, texts)))

    def close(self):
        self.socket.close()


def receive(connection, size):
    """What has come, at least a byte. An error: nothing came for a while, or the peer has closed."""
    received = connection.recv(size)
    if not received:
        raise ConnectionError("the server has closed the connection")
    return received


def frame(text):
    """Masked with zeros, which leaves the text as it is."""
    payload = text.encode()
    assert len(payload) <= 0xFFFF, text
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload
