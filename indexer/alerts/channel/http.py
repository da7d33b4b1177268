"""One POST over HTTP, bounded in every way, and what its answer means.

A connection for each message: alerts are rare, and a connection that is new is not half dead. The whole exchange ends at its
deadline even if the other side sends a byte a second. Redirects are not followed: a message goes where the configuration says.
Certificates are verified. Of the answer some kilobytes are read. Neither the address nor a header is ever part of a reason,
since either may hold a secret; nor is what the answer repeats of them.
"""

from __future__ import annotations

import contextlib
import html
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from auditship import __version__
from auditship.errors import ConfigurationError
from indexer.alerts.channel import Delivered, Later, Outcome, Refused
from indexer.alerts.message import harmless

ANSWER_BYTES_MAX: Final = 4096
SECRET_MIN: Final = 8
"""Characters of a part of an address, or of a secret, from which on it is not repeated to anybody."""
RETRY_AFTER_S_MAX: Final = 3600.0
_NEEDS_HELP: Final = frozenset({401, 403, 407})
_TRANSIENT: Final = frozenset({408, 421, 423, 425, 429})


class Http:
    """Where to, and how: one address.

    Args:
        url: http or https.
        timeout_s: for connecting, and then for everything to the answer's end. The system's resolver has its own.
        ca_file: who vouches for the other side; none: whom the system trusts.
        secrets: what the other side knows and might repeat in its answer, beside the address's path.

    Raises:
        ConfigurationError: the authority's file cannot be read.
    """

    def __init__(self, url: str, *, timeout_s: float, ca_file: Path | None = None, secrets: Sequence[str] = ()) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        self._timeout_s = timeout_s
        path = parts.path.strip("/")
        self._secrets = [
            each for each in (*secrets, self._path, path, *path.split("/"), parts.query) if len(each) >= SECRET_MIN
        ]
        self._tls = tls_of(ca_file) if parts.scheme == "https" else None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Sends a JSON body."""
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            with connected(self._host, self._port, self._timeout_s, self._tls) as connection.sock:
                connection.request("POST", self._path, body, {"User-Agent": f"auditship/{__version__}", **headers})
                answer = connection.getresponse()
                text = answer.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            return Later(self._discreet(said(error)))
        finally:
            connection.close()
        told = self._discreet(text.decode("utf-8", "replace"))
        return outcome_of(answer.status, told, answer.headers.get("Retry-After"))

    def _discreet(self, text: str) -> str:
        """What the other side says, without the secrets that it repeats ("/services/T0/B0/… was not found on this server")."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            for spelt in (secret, html.escape(secret), quote(secret, safe=""), secret.replace("/", "\\/")):
                text = text.replace(spelt, "[secret]")
        return text


def tls_of(ca_file: Path | None) -> ssl.SSLContext:
    """TLS that verifies the other side.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        reason = error.strerror or "no certificates in it"
        raise ConfigurationError(f"{ca_file}: {reason}", "It should hold PEM certificates of an authority.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextlib.contextmanager
def connected(host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None) -> Iterator[socket.socket]:
    """A connection, which ends at its deadline whatever is being waited for."""
    connection = socket.create_connection((host, port), timeout=timeout_s)
    try:
        with cut_off(connection, timeout_s):
            if tls is not None:
                connection = tls.wrap_socket(connection, server_hostname=host)
            yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def cut_off(connection: socket.socket, timeout_s: float) -> Iterator[None]:
    """Shuts a connection after that time, however slowly the other side drips.

    Raises:
        TimeoutError: the time came before the end.
    """
    late = threading.Event()
    with connection.dup() as same:  # TLS may take the other one over

        def end() -> None:
            late.set()
            with contextlib.suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception:
            if not late.is_set():
                raise
        finally:
            timer.cancel()
    if late.is_set():
        raise TimeoutError(f"no whole answer within {timeout_s:g} s")


def said(error: Exception) -> str:
    """A connection's error, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return harmless(f"{type(error).__name__}: {text}" if text else type(error).__name__, 200)


def outcome_of(status: int, body: str, retry_after: str | None = None) -> Outcome:
    """What an answer means."""
    text = harmless(body.strip(), 200)
    reason = f"answered {status}{f': {text}' if text else ''}"
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP
        return Delivered(f"{status}")
    if status in _NEEDS_HELP:
        return Later(reason, needs_help=True)
    if status in _TRANSIENT or status >= 500:  # noqa: PLR2004 - HTTP
        return Later(reason, wait_s=wait_of(retry_after))
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP
        return Later(f"answered {status}: redirects are not followed; configure the address itself", needs_help=True)
    return Refused(reason)


def wait_of(retry_after: str | None) -> float | None:
    """``Retry-After`` in seconds, given as such or as a date; at most an hour."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004 - no longer than a number of seconds can be
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        moment = parsedate_to_datetime(text)
        left_s = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(left_s, 0.0), RETRY_AFTER_S_MAX)
