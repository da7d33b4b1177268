"""Every way to people, against the real thing at the other end: HTTP, SMTP, syslog servers on loopback, and programs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import quopri
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.errors import HeaderParseError
from email.policy import default
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from authority import Authority

from indexer.alerts.channel import Channel, Delivered, Later, Outcome, Refused
from indexer.alerts.channel.http import tls_of, wait_of
from indexer.alerts.channels import channel_of
from indexer.alerts.message import Message, made
from indexer.alerts.settings import (
    CommandSettings,
    EmailSettings,
    PagerDutySettings,
    SlackSettings,
    SyslogSettings,
    WebhookSettings,
)

MESSAGE = made(
    id="c0ffee.1",
    cause="c0ffee",
    kind="alert",
    severity="critical",
    title="secret.read by Zoë",
    timestamp="2026-11-25T08:00:00.000Z",
    actor="Zoë · Chrome on macOS",
    reason="no",
    count=3,
)
Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """An HTTP server that answers as it is told, and remembers what came."""

    def __init__(self, answer: Answer) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                web.got.append((self.path, dict(self.headers), body))
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[Web]:
    web = Web(answer)
    if context is not None:
        web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
        web.url = web.url.replace("http://127.0.0.1", "https://localhost")
    thread = threading.Thread(target=web.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        thread.join()
        web.server.server_close()


def answering(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def webhook(url: str, **more: Any) -> Channel:
    return channel_of(WebhookSettings(name="w", kind="webhook", url=url, **more))


def test_a_webhook_is_signed_over_its_time_and_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "s3cret")
    with serving(answering(204)) as web:
        assert isinstance(webhook(f"{web.url}/hooks/audit?team=1", secret_env="HOOK").send(MESSAGE), Delivered)
    ((path, headers, body),) = web.got
    assert path == "/hooks/audit?team=1"
    assert headers["Auditship-Id"] == "c0ffee.1"
    assert abs(int(headers["Auditship-Timestamp"]) - time.time()) < 60
    signed = headers["Auditship-Timestamp"].encode() + b"." + body
    assert headers["Auditship-Signature"] == "sha256=" + hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert json.loads(body)["actor"] == "Zoë · Chrome on macOS"
    assert json.loads(body)["count"] == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Delivered("200")),
        (202, Delivered("202")),
        (400, Refused("answered 400: no such thing")),
        (404, Refused("answered 404: no such thing")),
        (410, Refused("answered 410: no such thing")),
        (413, Refused("answered 413: no such thing")),
        (401, Later("answered 401: no such thing", needs_help=True)),
        (403, Later("answered 403: no such thing", needs_help=True)),
        (408, Later("answered 408: no such thing")),
        (429, Later("answered 429: no such thing")),
        (500, Later("answered 500: no such thing")),
        (503, Later("answered 503: no such thing")),
    ],
)
def test_what_an_answer_means(status: int, expected: Outcome) -> None:
    with serving(answering(status, b"no such thing\n")) as web:
        assert webhook(web.url).send(MESSAGE) == expected


def test_retry_after_is_heard_in_both_its_forms_and_has_a_ceiling() -> None:
    with serving(answering(429, Retry_After="7")) as web:
        assert webhook(web.url).send(MESSAGE) == Later("answered 429", wait_s=7.0)
    assert 50 < (wait_of(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)) or 0) <= 60
    assert wait_of("999999") == 3600
    assert [wait_of(text) for text in ("-5", "soon", "", None, "9" * 400, "Wed, 99 Nov 2026 99:00:00 GMT")] == [None] * 6


def test_a_redirect_is_not_followed() -> None:
    with serving(answering(200)) as other, serving(answering(307, Location=other.url)) as web:
        outcome = webhook(web.url).send(MESSAGE)
        assert isinstance(outcome, Later)
        assert outcome.needs_help
        assert not other.got


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(500)
        handler.end_headers()
        with suppress(OSError):  # the other side hangs up
            while True:
                handler.wfile.write(b"x" * 65_536)

    with serving(endless) as web:
        outcome = webhook(web.url).send(MESSAGE)
    assert isinstance(outcome, Later)
    assert len(outcome.reason) < 300


@pytest.mark.parametrize("drip", [b"H", b"HTTP/1.1 200 OK\r\nX-A: "])
def test_a_byte_a_moment_does_not_hold_a_channel_beyond_its_time(drip: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(drip)
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=run)
        thread.start()
        assert isinstance(webhook(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.5).send(MESSAGE), Later)
        thread.join()


def test_nobody_there_and_hanging_up_are_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert isinstance(webhook(f"http://127.0.0.1:{port}").send(MESSAGE), Later)
        thread.join()
    assert webhook(f"http://127.0.0.1:{port}").send(MESSAGE) == Later("ConnectionRefusedError: Connection refused")


def test_slack_and_pagerduty_get_their_own_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering(200, b"ok")) as web:
        monkeypatch.setenv("SLACK", f"{web.url}/services/T0/B0/secret")
        monkeypatch.setenv("PAGER", "routing-key")
        assert channel_of(SlackSettings(name="s", kind="slack", secret_env="SLACK")).send(MESSAGE) == Delivered("200")
        pager = channel_of(PagerDutySettings(name="p", kind="pagerduty", url=web.url, secret_env="PAGER"))
        assert pager.send(MESSAGE) == Delivered("200")
        assert pager.send(changed(kind="recovery")) == Delivered("200")
        assert isinstance(pager.send(changed(kind="end")), Delivered)
    slack, trigger, resolve = (json.loads(body) for _, _, body in web.got)
    assert web.got[0][0] == "/services/T0/B0/secret"
    assert slack["text"] == "secret.read by Zoë"
    assert {"title": "Actor", "value": "Zoë · Chrome on macOS", "short": True} in slack["attachments"][0]["fields"]
    assert trigger["routing_key"] == "routing-key"
    assert (trigger["event_action"], trigger["dedup_key"]) == ("trigger", "c0ffee")
    assert trigger["payload"]["custom_details"]["Reason"] == "no"
    assert (resolve["event_action"], resolve["dedup_key"]) == ("resolve", "c0ffee")


@pytest.mark.parametrize(
    "said",
    [
        "The requested URL {path} was not found on this server.",
        "<p>The requested URL {path} was not found</p><pre>{key}</pre>",
        '{{"error": "no team B0SECRETTEAM", "key": "{key}"}}',
        '{{"path": "{escaped}"}}',
    ],
)
def test_a_secret_that_the_answer_repeats_is_told_to_nobody(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    path, key = "/services/T0/B0SECRETTEAM/s3cr3t-hook-address", "r0uting-key-of-32-characters"
    body = said.format(path=path, key=key, escaped=path.replace("/", "\\/")).encode()
    with serving(answering(404, body)) as web:
        monkeypatch.setenv("SLACK", f"{web.url}{path}")
        monkeypatch.setenv("PAGER", key)
        slack = channel_of(SlackSettings(name="s", kind="slack", secret_env="SLACK"))
        pager = channel_of(PagerDutySettings(name="p", kind="pagerduty", url=f"{web.url}{path}", secret_env="PAGER"))
        hook = webhook(f"{web.url}{path}", secret_env="PAGER")
        for channel in (slack, pager, hook):
            outcome = channel.send(MESSAGE)
            assert isinstance(outcome, Refused)
            assert "answered 404: " in outcome.reason
            assert "[secret]" in outcome.reason
            assert "SECRETTEAM" not in outcome.reason
            assert "s3cr3t" not in outcome.reason
            assert channel is slack or key not in outcome.reason


def changed(**changes: object) -> Message:
    return made(**{"id": "c0ffee.2", "cause": "c0ffee", "severity": "critical", "title": "t", "timestamp": "", **changes})  # type: ignore[arg-type]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder, "authority")


def server_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.sign("server"))
    return context


@pytest.mark.program("openssl")
def test_tls_is_verified(authority: Authority) -> None:
    with serving(answering(200), server_context(authority)) as web:
        assert webhook(web.url, ca_file=authority.certificate).send(MESSAGE) == Delivered("200")
        stranger = webhook(web.url).send(MESSAGE)
        elsewhere = webhook(web.url.replace("localhost", "127.0.0.2"), ca_file=authority.certificate).send(MESSAGE)
    assert isinstance(stranger, Later)
    assert "certificate was not accepted" in stranger.reason
    assert isinstance(elsewhere, Later)
    assert len(web.got) == 1


class Mailbox:
    """What a mail server does with what it gets."""

    def __init__(self, answer: str = "250 taken", recipient: str = "250 OK") -> None:
        self.answer, self.recipient = answer, recipient
        self.mails: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        del server, session, options
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        del server, session
        if self.answer.startswith("250"):
            self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return self.answer


@contextmanager
def mail_server(mailbox: Mailbox, *, tls: ssl.SSLContext | None = None, **more: Any) -> Iterator[int]:
    """A mail server; ``tls`` speaks TLS from the first byte."""
    loop = asyncio.new_event_loop()
    made = loop.create_server(lambda: SMTP(mailbox, loop=loop, **more), "127.0.0.1", 0, ssl=tls)
    server = loop.run_until_complete(made)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def email(port: int, **more: Any) -> Channel:
    fields = {"sender": "auditship@example.com", "recipients": ("soc@example.com", "ciso@example.com"), "tls": "none"}
    return channel_of(EmailSettings(name="m", kind="email", server=f"localhost:{port}", **{**fields, **more}))


def test_a_mail_arrives_whole() -> None:
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        assert email(port).send(MESSAGE) == Delivered()
    ((sender, recipients, content),) = mailbox.mails
    assert (sender, recipients) == ("auditship@example.com", ["soc@example.com", "ciso@example.com"])
    assert b"Message-ID: <c0ffee.1@example.com>" in content
    assert b"Actor:        Zo=C3=AB" in content


def test_what_looks_encoded_in_a_mail_is_not_decoded_on_its_way() -> None:
    mailbox = Mailbox()
    hostile = "=?utf-8?q?x=0D=0AReply-To:_evil@evil.example=0D=0A=0D=0AAll_is_well.=00=E2=80=AE?="
    with mail_server(mailbox) as port:
        assert email(port).send(changed(title=hostile, kind="alert", actor=hostile)) == Delivered()
    ((_, _, content),) = mailbox.mails
    headers, _, body = content.partition(b"\r\n\r\n")
    assert [line.split(b":")[0] for line in headers.split(b"\r\n") if not line.startswith(b" ")] == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"In-Reply-To", b"References", b"Auto-Submitted",
        b"X-Auto-Response-Suppress", b"Content-Type", b"Content-Transfer-Encoding", b"MIME-Version",
    ]  # fmt: skip
    assert message_from_bytes(content, policy=default)["Subject"] == f"[auditship critical] {hostile}"
    told = quopri.decodestring(body).decode().splitlines()
    assert told == [hostile, "", f"Actor:        {hostile}", "Severity:     critical"]


def test_a_mail_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwritable(*_: object) -> None:
        raise HeaderParseError("no header")

    with mail_server(Mailbox()) as port:
        channel = email(port)
        monkeypatch.setattr("indexer.alerts.channel.smtp.mail_of", unwritable)
        assert channel.send(MESSAGE) == Refused("HeaderParseError: no header")


@pytest.mark.parametrize(
    ("mailbox", "expected"),
    [
        (Mailbox("451 try again"), Later("answered 451: try again")),
        (Mailbox("554 not this"), Refused("answered 554: not this")),
        (Mailbox(recipient="450 busy"), Later("no recipient was accepted: busy")),
        (Mailbox(recipient="550 unknown"), Refused("no recipient was accepted: unknown")),
    ],
)
def test_what_a_mail_server_says(mailbox: Mailbox, expected: Outcome) -> None:
    with mail_server(mailbox) as port:
        assert email(port).send(MESSAGE) == expected


def test_a_mail_that_was_taken_is_delivered_however_the_conversation_ends() -> None:
    """Else a server that hangs at QUIT would get it again and again, for a day."""

    def talk(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(b"220 hi\r\n")
            while line := stream.readline():
                if line.upper().startswith(b"DATA"):
                    stream.write(b"354 go\r\n")
                    while stream.readline() != b".\r\n":
                        pass
                if not line.upper().startswith(b"QUIT"):
                    stream.write(b"250 OK\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        assert email(listener.getsockname()[1], timeout_s=2).send(MESSAGE) == Delivered()
        thread.join()


@pytest.mark.program("openssl")
def test_mail_goes_over_verified_tls_with_a_login(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL", "pa55word")
    mailbox = Mailbox()

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        del server, session, envelope, mechanism
        return AuthResult(success=data.password == b"pa55word", handled=False)

    context = server_context(authority)
    with mail_server(mailbox, tls_context=context, require_starttls=True, authenticator=check, auth_required=True) as port:
        known = {"tls": "starttls", "ca_file": authority.certificate}
        assert email(port, **known, user="auditship", secret_env="MAIL").send(MESSAGE) == Delivered()
        monkeypatch.setenv("MAIL", "wrong")
        wrong = email(port, **known, user="auditship", secret_env="MAIL").send(MESSAGE)
        stranger = email(port, tls="starttls", user="auditship", secret_env="MAIL").send(MESSAGE)
    assert isinstance(wrong, Later)
    assert wrong.needs_help
    assert "wrong" not in wrong.reason
    assert isinstance(stranger, Later)
    assert "certificate" in stranger.reason
    assert len(mailbox.mails) == 1


def test_a_password_is_utf_8_for_the_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL", "gehört mir")
    given = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
        del server, session, envelope
        given.append((mechanism, login.login.decode(), login.password.decode()))
        return AuthResult(success=len(given) == 1, handled=False)

    with mail_server(Mailbox(), authenticator=authenticate, auth_require_tls=False) as port:
        channel = email(port, user="zoë", secret_env="MAIL")
        assert channel.send(MESSAGE) == Delivered()
        refused = channel.send(MESSAGE)
    assert given == [("PLAIN", "zoë", "gehört mir")] * 2
    assert isinstance(refused, Later)
    assert refused.needs_help
    with mail_server(Mailbox(), authenticator=authenticate, auth_require_tls=False, auth_exclude_mechanism=["PLAIN"]) as port:
        outcome = email(port, user="zoë", secret_env="MAIL").send(MESSAGE)
    assert isinstance(outcome, Later)
    assert "AUTH PLAIN" in outcome.reason


@pytest.mark.program("openssl")
def test_mail_goes_over_tls_from_the_first_byte(authority: Authority) -> None:
    mailbox = Mailbox()
    with mail_server(mailbox, tls=server_context(authority)) as port:
        assert email(port, tls="implicit", ca_file=authority.certificate).send(MESSAGE) == Delivered()


def test_a_mail_server_that_offers_no_tls_gets_nothing() -> None:
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        outcome = email(port, tls="starttls").send(MESSAGE)
    assert isinstance(outcome, Later)
    assert outcome.needs_help
    assert not mailbox.mails


def test_a_greeting_that_never_comes_does_not_hold_the_channel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert isinstance(email(server.getsockname()[1], timeout_s=0.3).send(MESSAGE), Later)


def test_syslog_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        where = f"127.0.0.1:{server.getsockname()[1]}"
        channel = channel_of(SyslogSettings(name="l", kind="syslog", server=where, transport="udp"))
        assert isinstance(channel.send(MESSAGE), Delivered)
        data = server.recv(65_536)
    assert data.startswith(b"<106>1 2026-11-25T08:00:00.000Z ")
    assert data.endswith("\ufeffsecret.read by Zoë".encode())


@pytest.mark.program("openssl")
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_syslog_over_a_stream_counts_its_octets(transport: str, authority: Authority) -> None:
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                if transport == "tls":
                    connection = server_context(authority).wrap_socket(connection, server_side=True)
                connection.settimeout(10)
                with connection, connection.makefile("rb") as stream:
                    got.append(stream.read())

        thread = threading.Thread(target=run)
        thread.start()
        where = f"localhost:{server.getsockname()[1]}"
        more: dict[str, Any] = {"ca_file": authority.certificate}
        channel = channel_of(SyslogSettings(name="l", kind="syslog", server=where, transport=transport, **more))  # type: ignore[arg-type]
        assert [channel.send(MESSAGE), channel.send(changed(kind="growth", reason="x\n1 y"))] == [Delivered(), Delivered()]
        thread.join()
    for data in got:
        length, _, rest = data.partition(b" ")
        assert len(rest) == int(length)


def test_syslog_that_nobody_takes_is_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
    channel = channel_of(SyslogSettings(name="l", kind="syslog", server=where, transport="tcp"))
    assert isinstance(channel.send(MESSAGE), Later)


def command(code: str, timeout_s: float = 20) -> Outcome:
    return channel_of(
        CommandSettings(name="c", kind="command", command=(sys.executable, "-c", code), timeout_s=timeout_s)
    ).send(MESSAGE)


def test_a_command_gets_the_message_on_its_standard_input(tmp_path: Path) -> None:
    got = tmp_path / "got"
    code = f"import sys, os; open({str(got)!r}, 'w').write(os.environ['AUDITSHIP_ID'] + ' ' + sys.stdin.read())"
    assert command(code) == Delivered()
    identity, _, body = got.read_text().partition(" ")
    assert identity == "c0ffee.1"
    assert json.loads(body)["title"] == "secret.read by Zoë"


def test_a_commands_environment_has_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITSHIP_ALERTS__SECRET", "x")
    monkeypatch.setenv("HOOK", "x")
    assert command("import os, sys; sys.exit({'HOOK', 'AUDITSHIP_ALERTS__SECRET'} & set(os.environ) != set())") == Delivered()


def test_what_a_commands_status_means() -> None:
    assert command("import sys; sys.stderr.write('not\\x1b this'); sys.exit(65)") == Refused(r"status 65: not\x1b this")
    assert command("import sys; sys.exit(75)") == Later("status 75")
    assert command("import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == Later("status -9")
    missing = channel_of(CommandSettings(name="c", kind="command", command=("/nowhere/at/all",))).send(MESSAGE)
    assert missing == Later("cannot be run: No such file or directory", needs_help=True)


def test_a_command_that_talks_much_is_heard_a_little() -> None:
    assert command("import sys; sys.stderr.write('x' * 5_000_000); sys.exit(0)") == Delivered()


def test_a_command_that_does_not_end_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    assert command(code, timeout_s=2) == Later("did not end within 2 s")
    status = Path(f"/proc/{child.read_text()}/stat")
    deadline = time.monotonic() + 10
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_s_child_that_has_left_it_holds_no_channel_up(tmp_path: Path) -> None:
    """A daemon keeps the standard error that it was born with, in a session of its own: nobody's signal reaches it."""
    child = tmp_path / "child"
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        f"open({str(child)!r}, 'w').write(str(p.pid)); sys.stderr.write('started'); sys.exit(65)"
    )
    began = time.monotonic()
    try:
        assert command(code) == Refused("status 65: started")
        assert time.monotonic() - began < 20
    finally:
        os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_command_that_became_another_user_is_delivered_and_one_that_hangs_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def another_users(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("indexer.alerts.channel.command.os.killpg", another_users)
    monkeypatch.setattr("indexer.alerts.channel.command.ENDING_S", 0.1)
    assert command("") == Delivered()
    settings = CommandSettings(name="c", kind="command", command=("/bin/sleep", "600"), timeout_s=0.1)
    channel = channel_of(settings)
    assert channel.send(MESSAGE) == Later("did not end within 0.1 s")
    outcome = channel.send(MESSAGE)
    assert isinstance(outcome, Later)
    match = re.fullmatch(r"process (\d+) of an earlier attempt has not ended, and cannot be ended", outcome.reason)
    assert match
    os.kill(int(match[1]), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while channel.send(MESSAGE) == outcome:
        assert time.monotonic() < deadline
    os.kill(channel._left.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    channel._left.wait()  # type: ignore[attr-defined]


def test_a_command_runs_where_the_system_cannot_wait_without_taking_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid")
    assert command("import sys; sys.exit(65)") == Refused("status 65")
    assert command("import time; time.sleep(600)", timeout_s=0.1) == Later("did not end within 0.1 s")


def test_certificates_that_cannot_be_read_are_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"no-such\.pem"):
        tls_of(tmp_path / "no-such.pem")
