"""A TCP proxy on loopback that misbehaves on demand, between an agent and an indexer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Final, Self

MODES: Final = ("refuse", "hole", "cut", "slow", "lie")
"""What it can do to connections: reset them at once; swallow everything; deliver a request and cut its answer; be slow; answer
200 with a page of its own. Anything else passes."""

_LIE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<h1>Hello</h1>\n"
_CHUNK: Final = 65_536


class Proxy:
    """Forwards connections to a port until it is left; ``mode`` may be changed at any time."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.mode = "pass"
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.drop_all()

    def drop_all(self) -> None:
        """Cuts every connection."""
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            _cut(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.mode == "refuse":
            _cut(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            _cut(client)
            return
        with self._lock:
            self._connections.add(server)
        back = threading.Thread(target=self._pump, args=(server, client, True), daemon=True)
        back.start()
        self._pump(client, server, False)

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                mode = self.mode
                if mode == "hole":
                    continue
                if mode == "refuse" or (mode == "cut" and is_answer):
                    break
                if mode == "lie" and is_answer:
                    sink.sendall(_LIE)
                    continue
                if mode == "slow":
                    time.sleep(0.05)
                sink.sendall(data)
        for each in (source, sink):
            _cut(each)


def _cut(connection: socket.socket) -> None:
    """Closes with a reset, as a machine that has died does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        connection.close()
