"""A real HTTP server in an indexer's place: checks every block, keeps what it takes, and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import zstandard

from auditship.block import PATH, BlockHeader, digest

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Receiver:
    """Blocks that came, and what is answered to the next ones.

    ``decide`` is asked about each block: None takes it; an answer is sent instead, and ``"reset"`` cuts the connection.
    """

    decide: Callable[[BlockHeader, bytes], Answer | str | None] = lambda header, data: None
    taken: list[tuple[BlockHeader, bytes]] = field(default_factory=list)
    seen: list[BlockHeader] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    """What the agent says of itself."""

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.lock = threading.Lock()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_address[1]

    def lines(self) -> list[bytes]:
        """Every line that was taken, once by its stream and offset, in that order for each stream."""
        with self.lock:
            blocks = sorted({(header.stream, header.offset, data) for header, data in self.taken})
        found: dict[tuple[str, int], bytes] = {}
        for stream, offset, data in blocks:
            at = offset
            for line in data.splitlines(keepends=True):
                assert found.setdefault((stream, at), line) == line, "one place holds two different lines"
                at += len(line)
        return list(found.values())


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            assert self.path == PATH
            header = BlockHeader.from_headers(self.headers)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if len(body) < int(self.headers["Content-Length"]):
                self.close_connection = True  # the agent died in the middle
                return
            data = zstandard.decompress(body)
            assert len(data) == header.length
            assert digest(data) == header.digest
            assert data.count(b"\n") == header.lines
            assert data.endswith(b"\n")
            if header.gateway == "agent":
                receiver.events += map(json.loads, data.splitlines())
                self.reply(200, {}, {"documents": header.lines, "duplicates": 0, "rejected": 0})
                return
            with receiver.lock:
                receiver.seen.append(header)
                receiver.authorizations.append(self.headers.get("Authorization"))
                answer = receiver.decide(header, data)
                if answer is None:
                    receiver.taken.append((header, data))
            if answer == "reset":
                self.close_connection = True
                return
            receipt = {"documents": header.lines, "duplicates": 0, "rejected": 0}
            self.reply(*(answer if isinstance(answer, tuple) else (200, {}, receipt)))

        def reply(self, status: int, headers: dict[str, str], answer: bytes | dict[str, int]) -> None:
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's name
            del format, arguments

    return Handler
