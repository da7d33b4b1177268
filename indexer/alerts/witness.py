"""Puts on record that a channel could not deliver: a document in the dataset ``alert``, which nobody is told of again.

Once in a while for each channel, in a thread of its own, and only if the store takes it: telling people comes first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Final

from auditship import clock
from auditship.errors import AuditshipError
from indexer.alerts.event import ALERT, OWN_RULES
from indexer.record import Access, Maker, Who, store
from indexer.settings import IndexerSettings

INTERVAL_S: Final = 300.0
RULE: Final = {"rule": {"id": f"{OWN_RULES}undelivered", "name": "An alert could not be delivered"}}

_log = logging.getLogger("auditship.alerts")


class Witness:
    """Writes into the store of a configuration."""

    def __init__(self, settings: IndexerSettings) -> None:
        self._settings = settings
        self._written: dict[str, float] = {}

    def undelivered(self, channel: str, reason: str, fallback: str | None) -> None:
        """A channel could not deliver."""
        now = time.monotonic()
        if now - self._written.get(channel, -INTERVAL_S) < INTERVAL_S:
            return
        self._written[channel] = now
        access = Access(
            "alerts.undelivered",
            Who("service", "auditship", "auditship alerts"),
            {"channel": channel, "fallback": fallback},
            "critical",
            ("configuration", "error"),
            "alert_channel",
            reason=f"channel {channel} {reason}",
            event_kind="alert",
        )
        threading.Thread(target=self._write, args=(access,), name="witness", daemon=True).start()

    def _write(self, access: Access) -> None:
        owner = self._settings.store.path if self._settings.store.kind == "embedded" else None
        try:
            if owner is not None and owner.stat().st_uid != os.geteuid():
                refused = f"{owner} is another user's"  # files of ours would shut the indexer out
            else:
                entry = Maker.of(self._settings).entry(access, clock.now_ms(), dataset=ALERT, more=RULE)
                refused = asyncio.run(store(self._settings, entry))
        except (AuditshipError, OSError) as error:
            refused = str(error)
        if refused:
            _log.warning("that a channel could not deliver is not in the store: %s", refused)
