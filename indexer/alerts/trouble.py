"""The store that does not answer is an alert too: nobody would be told of anything else meanwhile."""

from __future__ import annotations

import secrets

from indexer.alerts.message import Message, made, time_of
from indexer.record import ORGANIZATION


class StoreTrouble:
    """Whether the store answers. Once it has not for ``after_s``, that is told; and once it does again, that too.

    Whoever puts the messages up keeps :attr:`cause` with them, and calls :meth:`untold` where that failed.

    Args:
        after_s: how long it may not answer.
        cause: the alert that was told and is not over, by a process before this one.
    """

    def __init__(self, after_s: float, cause: str = "") -> None:
        self._after_ms = round(after_s * 1000)
        self._since_ms: int | None = None
        self.cause = cause
        self.reason = ""

    def failed(self, reason: str, now_ms: int) -> list[Message]:
        """It has not answered."""
        self.reason = reason
        if self._since_ms is None or self._since_ms > now_ms:  # else the clock was set back
            self._since_ms = now_ms
        if self.cause or now_ms - self._since_ms < self._after_ms:
            return []
        self.cause = secrets.token_hex(16)
        why = f"not since {time_of(self._since_ms)}, and until it does nobody is told of new events: {reason}"
        return [_message(self.cause, 1, "the store cannot be read", why, now_ms)]

    def untold(self) -> None:
        """The alert could not be put up: it is made again at the next failure."""
        self.cause = ""

    def answered(self, now_ms: int) -> list[Message]:
        """It has answered; :meth:`over` once that is put up."""
        return [_message(self.cause, 2, "the store can be read again", "", now_ms)] if self.cause else []

    def over(self) -> None:
        """Nothing is left to be told of it."""
        self._since_ms, self.cause, self.reason = None, "", ""


def _message(cause: str, number: int, title: str, reason: str, now_ms: int) -> Message:
    return made(
        id=f"{cause}.{number}",
        cause=cause,
        kind="alert" if number == 1 else "recovery",
        severity="critical",
        title=title,
        timestamp=time_of(now_ms),
        organization=ORGANIZATION,
        actor="auditship",
        action="store.read",
        resource="store",
        status="failure" if number == 1 else "success",
        reason=reason,
    )
