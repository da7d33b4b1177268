"""Syslog: RFC 5424, over UDP, TCP or TLS (RFC 6587's and 5425's counting of octets: no byte of a value ends a message).

UDP gives no answer: a message counts as delivered when it has been sent. Over TCP and TLS it counts when the other side's
system has acknowledged its bytes: syslog itself has no receipt.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from typing import Final, Literal

from indexer.alerts.channel import Delivered, Later, Outcome
from indexer.alerts.channel.http import connected, said
from indexer.alerts.message import Message

FACILITY_AUDIT: Final = 13
SEVERITIES: Final = {"critical": 2, "warning": 4, "info": 6}
DATAGRAM_BYTES_MAX: Final = 8192
ELEMENT: Final = "auditship@32473"
"""The structured data's name, with the number that is reserved for documentation: we have none of our own."""
_LOOK_S: Final = 0.005
Transport = Literal["udp", "tcp", "tls"]


class Syslog:
    """A syslog receiver.

    Args:
        host: where it is.
        port: its port.
        transport: how it is spoken to; ``context`` verifies it where that is ``tls``.
        timeout_s: for everything.
    """

    def __init__(self, host: str, port: int, *, transport: Transport, context: ssl.SSLContext | None, timeout_s: float) -> None:
        self._host, self._port, self._transport, self._context = host, port, transport, context
        self._timeout_s = timeout_s

    def send(self, message: Message) -> Outcome:
        """Sends one message."""
        data = packed(message, socket.gethostname(), os.getpid())
        try:
            if self._transport == "udp":
                self._datagram(data[:DATAGRAM_BYTES_MAX])
            else:
                self._stream(b"%d %s" % (len(data), data))
        except OSError as error:
            return Later(said(error))
        return Delivered("sent; UDP has no receipt" if self._transport == "udp" else "")

    def _datagram(self, data: bytes) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as datagrams:
            datagrams.settimeout(self._timeout_s)
            datagrams.connect(address)
            datagrams.send(data)

    def _stream(self, data: bytes) -> None:
        deadline = time.monotonic() + self._timeout_s
        with connected(self._host, self._port, self._timeout_s, self._context) as connection:
            connection.sendall(data)
            while _unacknowledged(connection):
                if time.monotonic() > deadline:
                    raise TimeoutError("the other side has not acknowledged it in time")
                time.sleep(_LOOK_S)
            if error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))


def packed(message: Message, host: str, process: int) -> bytes:
    """The message in the form of RFC 5424, without framing."""
    priority = FACILITY_AUDIT * 8 + SEVERITIES.get(message.severity, SEVERITIES["info"])
    names = {name.lower(): value for name, value in message.lines()}
    values = {"id": message.id, "cause": message.cause, "kind": message.kind, "count": str(message.count), **names}
    elements = "".join(f' {name}="{_escaped(value)}"' for name, value in values.items())
    host = "".join(each for each in host if "!" <= each <= "~")[:255] or "-"
    text = f"{message.title} {message.link}".rstrip()
    head = f"<{priority}>1 {message.timestamp or '-'} {host} auditship {process} {message.kind} [{ELEMENT}{elements}] "
    return head.encode() + b"\xef\xbb\xbf" + text.encode()


def _escaped(value: str) -> str:
    """A parameter's value."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes that the other side's system has not acknowledged yet."""
    found: int = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    return found
