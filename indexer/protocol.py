"""The HTTP connection: uvicorn's, bounded in bytes and in time, whoever it is that sends.

uvicorn keeps whatever comes as a URL, as headers and as trailers, and waits for ever for a client that has begun something and
does not go on. Here a request line with headers is at most :data:`HEAD_BYTES_MAX` long (beyond it the answer is 431), trailers
end the connection, and so does it when

* a request's head is not whole :data:`HEAD_TIMEOUT_S` after its first byte, or no byte came so long after connecting;
* no further request has begun :data:`KEEP_ALIVE_S` after everything was answered, whatever else may have come;
* nothing of an answer was read for :data:`UNREAD_TIMEOUT_S`.

The time for a body is :class:`~indexer.server.Indexer`'s. One timer for each connection looks at these every :data:`LOOK_S`.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from struct import Struct
from typing import Final, NoReturn

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES_MAX: Final = 64 * 1024
"""Twice what an agent may say of a block: its host and its path are 12 KiB each at most."""
HEADERS_MAX: Final = 200
PIPELINE_MAX: Final = 100
"""Requests that may wait behind the one that is being answered."""
HEAD_TIMEOUT_S: Final = 15.0
KEEP_ALIVE_S: Final = 75.0
UNREAD_TIMEOUT_S: Final = 60.0
LOOK_S: Final = 5.0
_INT: Final = Struct("i")
_LONG: Final = Struct("Q")
_BYTES_ACKED_AT: Final = 120
"""Where ``tcpi_bytes_acked`` stands in Linux' ``struct tcp_info``."""

_TOO_LARGE: Final = b'{"error":"a request line with headers of more than %d bytes, or more than %d headers"}' % (
    HEAD_BYTES_MAX,
    HEADERS_MAX,
)


class _EndedError(Exception):
    """Ends the parser's work."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    _timer: asyncio.TimerHandle
    _due: float | None
    """By when the client has to go on; none while it is not its turn."""
    _is_head = False
    """Between a request's first byte and the end of its headers."""
    _head_bytes = 0
    """Of this request's URL and whole headers."""
    _run_bytes = 0
    """What came in a row that was no body: a header, a trailer or anything else that the parser may be piling up."""
    _received = 0
    _received_at: float
    """How much of all answers had got to the client by the last look, and when it last was more, or all there was."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request has to begin soon."""
        super().connection_made(transport)
        self._received_at = self.loop.time()
        self._due = self._received_at + HEAD_TIMEOUT_S
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of requests."""
        self._run_bytes += len(data)
        super().data_received(data)
        if self._run_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """A request's first byte has come."""
        super().on_message_begin()
        self._is_head = True
        self._head_bytes = self._run_bytes = 0
        self._due = self.loop.time() + HEAD_TIMEOUT_S

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or a trailer."""
        if not self._is_head:
            self._end()
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request's head is whole: it is not the client's turn, but for a body."""
        self._is_head = False
        self._run_bytes = 0
        self._due = None
        if len(self.pipeline) >= PIPELINE_MAX:
            self._end()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._run_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """A request was answered; if none is under way, the next one has to begin in time."""
        super().on_response_complete()
        if self.cycle.response_complete and not self._is_head:
            self._due = self.loop.time() + KEEP_ALIVE_S

    def timeout_keep_alive_handler(self) -> None:
        """The timer that any byte stops decides nothing here."""

    def send_400_response(self, msg: str) -> None:
        """What the parser does not take."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX or len(self.headers) >= HEADERS_MAX:
            self._refuse()
            self._end()

    def _end(self) -> NoReturn:
        self.transport.close()
        raise _EndedError

    def _refuse(self) -> None:
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(_TOO_LARGE)
        self.transport.write(STATUS_LINE[431] + head + _TOO_LARGE)
        self.transport.close()

    def _look(self) -> None:
        """Ends the connection if its client lets it wait for too long."""
        self._timer = self.loop.call_later(LOOK_S, self._look)
        now = self.loop.time()
        on_its_way, received = _answers(self.transport)
        if not on_its_way or received != self._received:
            self._received_at = now
        self._received = received
        if now - self._received_at >= UNREAD_TIMEOUT_S:
            self.transport.abort()
        elif not on_its_way and self._due is not None and now >= self._due:
            self.transport.close()


if sys.platform == "linux":

    def _answers(transport: asyncio.Transport) -> tuple[int, int]:
        """How many bytes of answers have yet to come to a client, and a number that changes when some have.

        The system is asked: below TLS there is a transport whose buffer cannot be seen.
        """
        below = transport.get_extra_info("socket")
        if below is None:  # over TLS the connection is lost a moment before that is told
            return 0, 0
        number = below.fileno()
        try:
            (on_its_way,) = _INT.unpack(fcntl.ioctl(number, termios.TIOCOUTQ, bytes(_INT.size)))
        except OSError:  # it has been closed just now
            return 0, 0
        if not on_its_way:
            return 0, 0
        connection = socket.socket(fileno=number)
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED_AT + _LONG.size)
        finally:
            connection.detach()  # it stays the transport's
        return on_its_way, _LONG.unpack_from(info, _BYTES_ACKED_AT)[0]

else:

    def _answers(transport: asyncio.Transport) -> tuple[int, int]:
        """As above, as far as the transport can tell: over TLS it knows less than all."""
        size = transport.get_write_buffer_size()
        return size, size
