"""A proxy between an HTTP client and a server: makes the faults real stores have, at seeded random, and counts them.

Kinds: `503` (a SlowDown answer), `reset` (the connection breaks before the answer), `cut` (in the middle of it),
`slow` (the answer trickles), `stall` (no answer for `stall_s`, then a reset). One request a connection, so each is
judged alone.
"""

from __future__ import annotations

import random
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

BODY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
KINDS = ("503", "reset", "cut", "slow", "stall")


class FaultyProxy:
    """Listens on loopback and passes requests on to `upstream` (host, port); `rates`: share of requests by fault.

    Use as a context manager; `url` is where it listens, `faults` and `requests` what it did, `sent` and `received` the
    bytes that went to the server and came from it.
    """

    def __init__(
        self, upstream: tuple[str, int], rates: Mapping[str, float], seed: int = 0, stall_s: float = 3.0
    ) -> None:
        assert set(rates) <= set(KINDS), rates
        self.upstream, self.rates, self.stall_s = upstream, dict(rates), stall_s
        self.faults: Counter[str] = Counter()
        self.requests = self.sent = self.received = 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._handle(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.daemon_threads, self._server.request_queue_size = True, 256
        self._server.server_bind()
        self._server.server_activate()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _draw(self) -> str:
        with self._lock:
            self.requests += 1
            at, kind = self._random.random(), ""
            for name, rate in self.rates.items():
                if 0 <= at < rate:
                    kind = name
                at -= rate
            if kind:
                self.faults[kind] += 1
            return kind

    def _handle(self, client: socket.socket) -> None:
        try:
            request = _request(client)
            if request:
                self._answer(client, request, self._draw())
        except OSError:
            pass  # either side went away: that is what this is about

    def _answer(self, client: socket.socket, request: bytes, kind: str) -> None:
        if kind == "503":
            head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(BODY)}\r\nContent-Type: application/xml\r\n"
            is_head = request.startswith(b"HEAD")
            client.sendall(head.encode() + b"Connection: close\r\n\r\n" + (b"" if is_head else BODY))
        elif kind in ("reset", "stall"):
            time.sleep(self.stall_s if kind == "stall" else 0)
            _break(client)
        else:
            with socket.create_connection(self.upstream, timeout=30) as server:
                server.sendall(request)
                answer = b"".join(iter(lambda: server.recv(1 << 16), b""))
            with self._lock:
                self.sent, self.received = self.sent + len(request), self.received + len(answer)
            if kind == "cut":
                client.sendall(answer[: len(answer) // 2])
                _break(client)
            elif kind == "slow":
                step = max(1, len(answer) // 5)
                for start in range(0, len(answer), step):
                    client.sendall(answer[start : start + step])
                    time.sleep(0.05)
            else:
                client.sendall(answer)


def _request(client: socket.socket) -> bytes:
    """One whole request, told to end its connection."""
    client.settimeout(30)
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(1 << 16)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^expect: *100-continue", head):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")  # who sends a body waits for this
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        part = client.recv(1 << 16)
        if not part:
            return b""
        body += part
    head = re.sub(rb"(?im)^(connection|expect):.*\r\n", b"", head + b"\r\n")
    return head + b"Connection: close\r\n\r\n" + body


def _break(client: socket.socket) -> None:
    """End a connection with a reset instead of a farewell."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
