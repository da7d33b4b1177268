"""Ways to people, one file each. A channel sends one message at a time, in a thread of its own, within its time-out.

:meth:`Channel.send` never raises for what the other side does; its outcome says whether the message was taken, may be taken
later, or never will be.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from indexer.alerts.message import Message


class Delivered(NamedTuple):
    """The other side has taken it."""

    detail: str = ""


class Later(NamedTuple):
    """Not now. ``wait_s`` is what the other side asks for; ``needs_help``: only a person can make it work."""

    reason: str
    wait_s: float | None = None
    needs_help: bool = False


class Refused(NamedTuple):
    """This message will never be taken."""

    reason: str


Outcome = Delivered | Later | Refused


class Channel(Protocol):
    """A way to people."""

    def send(self, message: Message) -> Outcome:
        """Sends a message, and tells what became of it."""
