"""E-mail, by SMTP with TLS. Messages of a cause are one thread; a repeat has the same ``Message-ID``.

What a gateway wrote is in one header alone, the subject, which is encoded whole: the library would decode what looks encoded in
it, line ends too, and write that. The text is UTF-8, quoted-printable, so that no line of it is more than mail allows or ends
the mail.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime
from typing import Final, Literal

from indexer.alerts.channel import Delivered, Later, Outcome, Refused
from indexer.alerts.channel.http import cut_off, said
from indexer.alerts.message import Message, harmless

Tls = Literal["starttls", "implicit", "none"]
_PERMANENT: Final = range(500, 600)
_LOGGED_IN: Final = 235
_LOGIN_NEEDED: Final = frozenset({530, 534, 535, 538})


class Smtp:
    """A mail server, and from whom to whom.

    Args:
        host: the server.
        port: its port.
        tls: how it is spoken to; ``context`` verifies it.
        login: a user's name and password; none: without.
        sender: the address that mails come from.
        recipients: the addresses they go to.
        timeout_s: for everything.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Tls,
        context: ssl.SSLContext,
        login: tuple[str, str] | None,
        sender: str,
        recipients: Sequence[str],
        timeout_s: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._host, self._port, self._tls, self._context = host, port, tls, context
        self._login, self._sender, self._recipients = login, sender, tuple(recipients)
        self._timeout_s = timeout_s
        self._clock = clock

    def send(self, message: Message) -> Outcome:
        """Sends the mail; delivered when the server has taken it for at least one recipient."""
        refused: dict[str, tuple[int, bytes]] | None = None
        try:
            mail = mail_of(message, self._sender, self._recipients, self._clock())
            with self._connected() as server:
                if self._login is not None:
                    _log_in(server, *self._login)
                refused = server.send_message(mail, self._sender, self._recipients)
        except MessageError as error:
            return Refused(said(error))
        except (smtplib.SMTPException, OSError) as error:
            if refused is None:  # else it has been taken: a server that only hangs up badly would get it again and again
                return _failed(error)
        if refused:
            return Delivered(f"not to {len(refused)} of {len(self._recipients)}: {_said(next(iter(refused.values()))[1])}")
        return Delivered()

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        connection = socket.create_connection((self._host, self._port), timeout=self._timeout_s)
        try:
            with cut_off(connection, self._timeout_s):
                if self._tls == "implicit":
                    connection = self._context.wrap_socket(connection, server_hostname=self._host)
                server = _Server(self._host, self._port, connection)
                try:
                    if self._tls == "starttls":
                        server.starttls(context=self._context)
                    yield server
                    with suppress(smtplib.SMTPException, OSError):  # it has been taken by now
                        server.quit()
                finally:
                    server.close()  # TLS has taken the connection over
        finally:
            connection.close()


def _log_in(server: smtplib.SMTP, user: str, password: str) -> None:
    """Logs in; with UTF-8 where it takes more than ASCII, which is all that the library can (RFC 4616)."""
    if user.isascii() and password.isascii():
        server.login(user, password)
        return
    server.ehlo_or_helo_if_needed()
    if "PLAIN" not in server.esmtp_features.get("auth", "").upper().split():
        raise smtplib.SMTPNotSupportedError(
            "the password is not ASCII, which needs AUTH PLAIN, and the server does not offer it"
        )
    response = b64encode(f"\0{user}\0{password}".encode("utf-8", "surrogateescape")).decode()
    code, answer = server.docmd("AUTH", f"PLAIN {response}")
    if code != _LOGGED_IN:
        raise smtplib.SMTPAuthenticationError(code, answer)


def _failed(error: smtplib.SMTPException | OSError) -> Outcome:
    """What it means that a mail was not taken."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            codes = [code for code, _ in error.recipients.values()]
            reason = f"no recipient was accepted: {_said(next(iter(error.recipients.values()))[1])}"
            return Refused(reason) if all(code in _PERMANENT for code in codes) else Later(reason)
        case smtplib.SMTPResponseException():
            reason = f"answered {error.smtp_code}: {_said(error.smtp_error)}"
            if error.smtp_code in _LOGIN_NEEDED:
                return Later(reason, needs_help=True)
            return Refused(reason) if error.smtp_code in _PERMANENT else Later(reason)
        case smtplib.SMTPNotSupportedError():
            return Later(harmless(str(error)), needs_help=True)
    return Later(said(error))


class _Server(smtplib.SMTP):
    """The library's client on a connection that is there already, so that the greeting too has a deadline."""

    def __init__(self, host: str, port: int, connection: socket.socket) -> None:
        self._connection = connection
        super().__init__(host, port)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        del host, port, timeout
        return self._connection


class _Subject(str):
    """A subject to the letter: for the library a header that is parsed already, and folds itself."""

    __slots__ = ()
    name = "Subject"

    def fold(self, *, policy: EmailPolicy) -> str:
        """The header's lines."""
        text = Header(self, "utf-8", header_name=self.name).encode(linesep=policy.linesep)
        return f"{self.name}: {text}{policy.linesep}"


def mail_of(message: Message, sender: str, recipients: Sequence[str], now: datetime) -> EmailMessage:
    """The mail."""
    domain = sender.rpartition("@")[2]
    mail = EmailMessage(policy=SMTP.clone(max_line_length=78))
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = _Subject(f"[auditship {message.severity}] {message.title}")
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{message.id}@{domain}>"
    if not message.id.endswith(".1"):
        mail["In-Reply-To"] = mail["References"] = f"<{message.cause}.1@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    lines = [message.title, "", *(f"{name + ':':<14}{value}" for name, value in message.lines())]
    if message.link:
        lines += ["", message.link]
    mail.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return mail


def _said(text: bytes | str) -> str:
    return harmless(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text), 200)
