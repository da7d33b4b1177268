"""What an indexer does now and then, beside taking blocks: reads replaced databases again, deletes what is past its time.

A failure is logged and tried again at the next turn; it never touches the flow of blocks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

RELOAD_INTERVAL_S: Final = 60.0
EXPIRE_INTERVAL_S: Final = 3600.0

_log = logging.getLogger("auditship.indexer")


class Chore(NamedTuple):
    """Something to be done at once and then at every interval, in a thread."""

    name: str
    interval_s: float
    work: Callable[[], object]


class Upkeep:
    """The chores of one worker."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = chores

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._repeat(chore))

    async def _repeat(self, chore: Chore) -> None:
        while True:
            try:
                if done := await asyncio.to_thread(chore.work):
                    _log.info("%s: %s", chore.name, done)
            except Exception:  # noqa: BLE001 - a chore never ends the others
                _log.exception("%s failed; tried again in %.0f s", chore.name, chore.interval_s)
            await asyncio.sleep(chore.interval_s)
