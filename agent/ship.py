"""Ships: sends a block, and tells what the answer means for the reader.

:meth:`Shipper.send` never raises for what a network or an indexer does; the :class:`Outcome` says whether the lines are
stored, must be sent again (and whether something may have been stored already), or are not wanted in this form. No retries
here: they are the reader's decision.
"""

from __future__ import annotations

import logging
import ssl
import time
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import urllib3

from agent.block import Block
from agent.settings import IndexerSettings
from auditship.block import PATH, BlockError, Receipt
from auditship.errors import ConfigurationError
from auditship.settings import read_token

ANSWER_BYTES_MAX: Final = 65_536
CREDENTIALS_INTERVAL_S: Final = 5.0
"""How often the files of token and certificates are looked at; at once after a refusal."""

_log = logging.getLogger("auditship.agent")


class Verdict(Enum):
    """What an answer means."""

    STORED = "stored"
    MALFORMED = "malformed"
    """400: the indexer got other bytes than the agent sent."""
    REFUSED = "refused"
    """401, 403 and the like: nobody is wrong but the configuration."""
    TOO_LARGE = "too large"
    BUSY = "busy"
    """429, 503: later; a part may be stored."""
    UNKNOWN = "unknown"
    """No answer, or none that can be understood: it may be stored or not."""


class Outcome(NamedTuple):
    """A block's answer: ``detail`` is for people, ``wait_s`` what the indexer asks for."""

    block: Block
    verdict: Verdict
    detail: str = ""
    wait_s: float = 0.0
    receipt: Receipt | None = None


_VERDICTS: Final = {400: Verdict.MALFORMED, 413: Verdict.TOO_LARGE, 429: Verdict.BUSY, 503: Verdict.BUSY}


class Shipper:
    """One connection to an indexer, used by one thread.

    Token, certificate and authorities are read again when their files have been replaced; what cannot be read then leaves those
    in use, and is told.

    Raises:
        ConfigurationError: the token, certificate or authority cannot be read.
    """

    def __init__(self, settings: IndexerSettings, version: str) -> None:
        self._settings = settings
        self._urls = [url.rstrip("/") for url in settings.urls]
        self._at = 0
        self._headers = {
            "Content-Encoding": "zstd",
            "Content-Type": "application/x-ndjson",
            "User-Agent": f"auditship/{version}",
        }
        files = (settings.token_file, settings.ca_file, settings.client_certificate, settings.client_key)
        self._files = [each for each in files if each is not None]
        self._stamps = _stamps(self._files)
        self._look_at = time.monotonic() + CREDENTIALS_INTERVAL_S
        self._token, self._pools = _credentials(settings)

    def send(self, block: Block) -> Outcome:
        """Sends a block once."""
        self._refresh()
        url = self._urls[self._at]
        headers = {**self._headers, **block.header.to_headers()}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            answer = self._pools[self._at].urlopen(
                "POST", PATH, body=block.body, headers=headers, redirect=False, retries=False, preload_content=False
            )
            try:
                data = answer.read(ANSWER_BYTES_MAX, decode_content=True)
            finally:
                answer.drain_conn()
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._at = (self._at + 1) % len(self._urls)
            self._look_at = 0.0
            return Outcome(block, Verdict.UNKNOWN, f"{url}: {_said(error)}")
        outcome = _outcome(block, answer.status, data, answer.headers.get("Retry-After"))
        if outcome.verdict is Verdict.STORED:
            return outcome
        if answer.status == 401:  # noqa: PLR2004
            self._look_at = 0.0
        if outcome.verdict in (Verdict.UNKNOWN, Verdict.BUSY):
            self._at = (self._at + 1) % len(self._urls)
        return outcome._replace(detail=f"{url}: {outcome.detail}")

    def close(self) -> None:
        """Lets the connections go."""
        for pool in self._pools:
            pool.close()

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + CREDENTIALS_INTERVAL_S
        stamps = _stamps(self._files)
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            token, pools = _credentials(self._settings)
        except ConfigurationError as error:
            _log.error("%s; what was read before is still in use", error)
            return
        self.close()
        self._token, self._pools = token, pools


def _credentials(settings: IndexerSettings) -> tuple[str | None, list[urllib3.HTTPConnectionPool]]:
    """The token, and a connection for each address: a manager of pools would look its pool up for every block."""
    token = read_token(settings.token_file) if settings.token_file else None
    timeout = urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.answer_timeout_s)
    secure = {"ssl_context": _tls(settings)}
    try:
        return token, [
            urllib3.connection_from_url(url, maxsize=1, timeout=timeout, **(secure if url.startswith("https:") else {}))
            for url in settings.urls
        ]
    except ValueError as error:  # urllib3's LocationParseError is one
        raise ConfigurationError(f"indexer.urls: {error}", "A scheme, a host and perhaps a port are expected.") from None


def _stamps(files: list[Path]) -> list[tuple[int, ...] | None]:
    """What tells that a file was replaced, written or given to others; none of one that is not there."""
    found: list[tuple[int, ...] | None] = []
    for path in files:
        try:
            info = path.stat()
            found.append((info.st_ino, info.st_size, info.st_ctime_ns, info.st_mode, info.st_uid, info.st_gid))
        except OSError:
            found.append(None)
    return found


def _outcome(block: Block, status: int, data: bytes, retry_after: str | None) -> Outcome:
    if status == 200:  # noqa: PLR2004
        try:
            receipt = Receipt.from_json(orjson.loads(data), block.header.lines)
        except (orjson.JSONDecodeError, BlockError) as error:
            return Outcome(block, Verdict.UNKNOWN, f"200 without a receipt: {error}")
        return Outcome(block, Verdict.STORED, receipt=receipt)
    reason = f"{status} {_reason(data)}".rstrip()
    if status in _VERDICTS:
        return Outcome(block, _VERDICTS[status], reason, _seconds(retry_after))
    return Outcome(block, Verdict.REFUSED if 400 < status < 500 and status != 408 else Verdict.UNKNOWN, reason)  # noqa: PLR2004


def _reason(data: bytes) -> str:
    """What a refusal says of itself."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return ""
    return str(value.get("error", ""))[:300] if isinstance(value, dict) else ""


def _seconds(retry_after: str | None) -> float:
    return min(float(retry_after), 3600.0) if retry_after and retry_after.isascii() and retry_after.isdigit() else 0.0


def _said(error: Exception) -> str:
    """A network error in one short line, without the object that urllib3 puts before it."""
    text = str(error).rpartition(">: ")[2] or type(error).__name__
    return (
        text.rpartition("object at 0x")[2].partition(", ")[2].rstrip(")'\"").lstrip("'\"") or text
        if "object at 0x" in text
        else text
    )


def _tls(settings: IndexerSettings) -> ssl.SSLContext | None:
    """What proves the indexer to us, and us to the indexer; none where plain HTTP is all that is spoken."""
    if all(url.startswith("http:") for url in settings.urls):
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.client_certificate:
            context.load_cert_chain(settings.client_certificate, settings.client_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(each) for each in (settings.ca_file, settings.client_certificate, settings.client_key) if each)
        raise ConfigurationError(f"{files}: {error}", "PEM files are expected, readable by the agent.") from None
    return context
