"""A webhook: the message as JSON, signed.

=======================  =================================================================================
``Auditship-Id``         the message's id: a repeat has the same, so that a receiver can drop it
``Auditship-Timestamp``  when it was sent, seconds since 1970
``Auditship-Signature``  ``sha256=`` and the hexadecimal HMAC-SHA-256, with the shared secret, over the timestamp, a
                         full stop and the body's bytes; only where a secret is configured
=======================  =================================================================================
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from msgspec.json import Encoder

from indexer.alerts.channel import Outcome
from indexer.alerts.channel.http import Http
from indexer.alerts.message import Message

_encode: Final = Encoder().encode


class Webhook:
    """A webhook.

    Args:
        http: its address.
        secret: what messages are signed with; none: they are not.
        clock_s: seconds since 1970.
    """

    def __init__(self, http: Http, secret: str | None, clock_s: Callable[[], float]) -> None:
        self._http = http
        self._secret = secret
        self._clock_s = clock_s

    def send(self, message: Message) -> Outcome:
        """Posts the message."""
        body = _encode(message)
        timestamp = str(int(self._clock_s()))
        headers = {"Content-Type": "application/json", "Auditship-Id": message.id, "Auditship-Timestamp": timestamp}
        if self._secret is not None:
            headers["Auditship-Signature"] = f"sha256={signature(self._secret, timestamp, body)}"
        return self._http.post(body, headers)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The signature of a body that was sent then."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
