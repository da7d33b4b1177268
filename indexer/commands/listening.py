"""The socket that an indexer listens with.

It outlives the program that takes its own place: connections wait in its backlog meanwhile, and none is refused.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from auditship.errors import ConfigurationError
from indexer.settings import IndexerSettings

SOCKET_VARIABLE: Final = "AUDITSHIP_LISTENING_SOCKET"
"""Tells a program that takes its own place which descriptor listens already, and where."""


class Listening:
    """Where this program listens, and where the one that takes its place is to.

    Raises:
        ConfigurationError: nobody can listen there.
    """

    def __init__(self, settings: IndexerSettings) -> None:
        self._listen = settings.listen
        self.socket = _inherited(settings.listen) or _bound(settings)
        self._kept = self.socket.dup()  # a server closes the one that it is given
        self._next: tuple[str, socket.socket] | None = None

    def prepare(self, settings: IndexerSettings) -> None:
        """Takes the address of another configuration, beside this program's own, for the program that is to come.

        Raises:
            ConfigurationError: nobody can listen there.
        """
        if self._next is not None:
            self._next[1].close()
            self._next = None
        if settings.listen != self._listen:
            self._next = settings.listen, _bound(settings)

    def hand_on(self) -> None:
        """Leaves the socket to the program that takes this one's place at once."""
        listen, kept = self._next or (self._listen, self._kept)
        kept.set_inheritable(True)
        os.environ[SOCKET_VARIABLE] = f"{kept.fileno()} {listen}"


def _inherited(listen: str) -> socket.socket | None:
    """The socket that the program before us left, if it listens where we are to listen."""
    number, _, where = os.environ.pop(SOCKET_VARIABLE, "").partition(" ")
    if not number:
        return None
    listening = socket.socket(fileno=int(number))
    listening.set_inheritable(False)
    if where == listen:
        return listening
    listening.close()
    return None


def _bound(settings: IndexerSettings) -> socket.socket:
    host, port = settings.host_port
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"listen: {settings.listen}: {error.strerror or error}",
            "It must be an address of this machine, and free. Another address with the port in use takes a restart.",
        ) from None
    return listening
