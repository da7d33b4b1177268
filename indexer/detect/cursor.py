"""How far a detector has come: the arrival up to which everything was looked at, in a file that is whole or absent.

Written last, after the alerts are stored: a crash repeats the run, and the alerts' ids see to it that none is stored twice.
While it is held, no other process on this machine runs the detections.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from auditship.errors import AuditshipError, ConfigurationError
from auditship.lock import lock
from indexer.store.contract import Unavailable

VERSION: Final = 1
HINT: Final = "Set cursor_file under [detections]."


class Busy(AuditshipError):  # noqa: N818 - a state of the machine, not a defect
    """Another process runs the detections here."""


class Cursor:
    """One detector's place.

    Raises:
        Busy: another process holds it.
        ConfigurationError: its folder cannot be written, or the file is not one of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock(path.with_name(f"{path.name}.lock"))
        except BlockingIOError:
            raise Busy(f"{path}: another process runs the detections", "One is enough: end the other one.") from None
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}", HINT) from None
        try:
            self.arrived_ms = self._read()
        except BaseException:
            os.close(self._lock)
            raise

    def move(self, arrived_ms: int) -> None:
        """Everything that arrived before then was looked at: durable when this returns.

        Raises:
            Unavailable: the file cannot be written now.
        """
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            with beside.open("w", encoding="ascii") as file:
                json.dump({"version": VERSION, "arrived_ms": arrived_ms}, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise Unavailable(f"{self._path}: {error.strerror}") from None
        self.arrived_ms = arrived_ms

    def close(self) -> None:
        """Lets another process take over."""
        os.close(self._lock)

    def _read(self) -> int | None:
        try:
            found = json.loads(self._path.read_bytes())
            if found["version"] == VERSION and type(found["arrived_ms"]) is int:
                return int(found["arrived_ms"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}", HINT) from None
        except (ValueError, KeyError, TypeError):
            pass
        raise ConfigurationError(
            f"{self._path}: not a cursor of version {VERSION}", "Remove it: the detections then begin with what arrives next."
        )
