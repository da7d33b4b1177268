"""Stands between an agent and an indexer, passes everything on, and notes when each block was acknowledged.

    python bench/relay.py PORT TARGET_PORT NOTES

Notes, written at SIGTERM: JSON, ``{"blocks": [[offset, end, lines, acknowledged_at_s], ...], "bytes": N}`` for the ``web``
gateway's blocks that were answered with 200, times monotonic; bytes in both directions, headers included. What it costs (some
0.1 ms a block) counts as the product's.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

HEAD_BYTES_MAX = 1 << 20
ENDS = (signal.SIGTERM, signal.SIGINT)
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_GATEWAY = re.compile(rb"(?im)^auditship-gateway: *(\w+)")
_SPAN = re.compile(rb"(?ims)^auditship-offset: *(\d+).*?^auditship-length: *(\d+).*?^auditship-lines: *(\d+)")


class Relay:
    """What has passed."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.blocks: list[tuple[int, int, int, float]] = []
        self.bytes = 0

    def serve(self, port: int) -> None:
        """Takes connections until the process ends."""
        with socket.create_server(("127.0.0.1", port)) as server:
            while True:
                client, _ = server.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        """One connection's requests and answers, one after another."""
        with client, socket.create_connection(("127.0.0.1", self._target)) as indexer:
            for each in (client, indexer):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while request := _message(client):
                indexer.sendall(request)
                answer = _message(indexer)
                now = time.monotonic()
                self._note(request, answer, now)
                client.sendall(answer)

    def _note(self, request: bytes, answer: bytes, now: float) -> None:
        head = request[: request.find(b"\r\n\r\n")]
        gateway = _GATEWAY.search(head)
        if gateway is None or gateway[1] != b"web":
            return
        self.bytes += len(request) + len(answer)
        if answer.startswith(b"HTTP/1.1 200") and (span := _SPAN.search(head)):
            offset, length, lines = map(int, span.groups())
            self.blocks.append((offset, offset + length, lines, now))


def _message(connection: socket.socket) -> bytes:
    """The next request or answer, whole; empty at the end."""
    data = bytearray()
    while (head := data.find(b"\r\n\r\n")) < 0:
        if len(data) > HEAD_BYTES_MAX or not (got := connection.recv(1 << 16)):
            return b""
        data += got
    found = _LENGTH.search(data, 0, head)
    missing = head + 4 + (int(found[1]) if found else 0) - len(data)
    while missing > 0:
        if not (got := connection.recv(min(missing, 1 << 20))):
            return b""
        data += got
        missing -= len(got)
    return bytes(data)


if __name__ == "__main__":
    listen, target, notes = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    relay = Relay(int(target))
    threading.Thread(target=relay.serve, args=(int(listen),), daemon=True).start()
    signal.sigwait(ENDS)
    Path(notes).write_text(json.dumps({"blocks": relay.blocks, "bytes": relay.bytes}))
