"""A few pages over HTTP for those who watch a program: metrics, and whether it is well.

One request at a time, each with a deadline for the whole of it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

from auditship.errors import ConfigurationError

REQUEST_TIMEOUT_S: Final = 2.0


class Pages:
    """The server, in a thread of its own.

    Args:
        listen: an address and a port, as ``metrics_listen`` has it.
        pages: by path, what makes the status and the body.

    Raises:
        ConfigurationError: it cannot listen there.
    """

    def __init__(self, listen: str, pages: Mapping[str, Callable[[], tuple[int, bytes]]]) -> None:
        host, _, port = listen.rpartition(":")
        try:
            server = _Server6 if host.startswith("[") else HTTPServer
            self._server = server((host.strip("[]"), int(port)), _handler(pages))
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "ports end at 65535"
            raise ConfigurationError(f"metrics_listen = {listen!r}: {why}", "Choose another port.") from None
        threading.Thread(target=self._server.serve_forever, args=(1.0,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server6(HTTPServer):
    address_family = socket.AF_INET6


def _handler(pages: Mapping[str, Callable[[], tuple[int, bytes]]]) -> type[BaseHTTPRequestHandler]:
    known = ", ".join(pages)

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            deadline = threading.Timer(REQUEST_TIMEOUT_S, _hang_up, (self.connection,))
            deadline.daemon = True
            deadline.start()
            try:
                with suppress(ConnectionError):  # whoever asked has gone, or was too slow
                    super().handle()
            finally:
                deadline.cancel()

        def do_GET(self) -> None:
            status, body = pages.get(self.path, lambda: (404, f"{known}\n".encode()))()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's name
            del format, arguments

    return Handler


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        connection.shutdown(socket.SHUT_RDWR)
