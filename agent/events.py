"""The agent's own record: its starts and stops, gaps, halted streams, and a heartbeat.

Written as audit lines to a file in the state directory that the agent tails like any other, under the gateway's name ``agent``:
so they are delivered by the same promises, and a silent agent can be noticed by whoever reads ``logs-audit.agent-*``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from auditship.gateway import AuditLog

GATEWAY: Final = "agent"
FILE_BYTES_MAX: Final = 1 << 20
"""Beyond it the file is rotated; one old file is kept."""


class Events:
    """One agent's record.

    Args:
        directory: where the file is.
        agent: the agent's id.
        host: the host's name.
    """

    def __init__(self, directory: Path, agent: str, host: str) -> None:
        self.path = directory / "events.jsonl"
        self._actor = {"type": "service", "id": agent, "name": f"auditship agent on {host}"}
        self._log = AuditLog(self.path, mode=0o600)

    def write(self, action: str, *, reason: str = "", is_failure: bool = False, **fields: Any) -> None:
        """Adds an event: ``timestamp`` and ``resource``, and ``fields``, which come into ``audit.extra``.

        Raises:
            OSError: it could not be written.
        """
        self._log.write(
            organization={"id": "auditship", "name": "auditship"},
            actor=self._actor,
            action=f"agent.{action}",
            status="failure" if is_failure else "success",
            **({"reason": reason} if reason else {}),
            **fields,
        )

    def rotate(self) -> None:
        """Begins a new file when the present one is large; the old one is read to its end all the same."""
        try:
            is_large = self.path.stat().st_size > FILE_BYTES_MAX
        except FileNotFoundError:
            return
        if is_large:
            self._log.close()
            os.replace(self.path, self.path.with_name("events.jsonl.1"))  # noqa: PTH105 - reads as what it does
