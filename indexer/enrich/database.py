"""A location database in MaxMind's format: a file that may be replaced while it is in use.

What is read is a private copy without a name, made when the file is opened: however somebody replaces the file (renaming
another over it, or writing into it), what is in use stays as it is. A new file is taken over by :meth:`Database.reload` once it
is whole; one that is being written, torn or damaged leaves the one before in place, and that is told in the log, once for each
such file. The reader, which is written in C, may take its process with it when it meets damage: so a replacement is read from
one end to the other in a process of its own (``python -m indexer.enrich.database FILE``) before it is taken over.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import maxminddb

from auditship.errors import ConfigurationError

COPY_BYTES: Final = 1 << 20
PROOF_TIMEOUT_S: Final = 900
"""How long it may take to read all of a replacement."""
_Stamp = tuple[int, int, int, int]
_PROBES: Final = tuple(f"{first}.1.1.1" for first in range(256))
_PROBES_6: Final = tuple(f"{first:x}::1" for first in range(0x2000, 0x4000, 64))
_log = logging.getLogger("auditship.indexer")


class Database:
    """A file that is read by address.

    Raises:
        ConfigurationError: it is there, and cannot be used. One that is missing is told in the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._refused: _Stamp | None = None
        self._reader: maxminddb.Reader | None = None
        self._is_damaged = False
        try:
            self._open(is_running=False)
        except FileNotFoundError:
            _log.warning("%s: missing; locations stay unknown until it is there", path)
        except OSError as error:
            raise ConfigurationError(
                f"{path}: {error.strerror or error}", f"It is copied to {tempfile.gettempdir()}."
            ) from None
        except (maxminddb.InvalidDatabaseError, ValueError) as error:
            raise ConfigurationError(f"{path}: not a database in MaxMind's format: {error}", "Fetch it again.") from None

    def reload(self) -> bool:
        """Whether a new file was taken over."""
        try:
            return self._open(is_running=True)
        except FileNotFoundError:
            return False
        except (maxminddb.InvalidDatabaseError, OSError, ValueError) as error:
            _log.warning("%s: the new file cannot be used, the one before stays: %s", self._path, error)
            return False

    def find(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Mapping[str, Any]:
        """The record of an address, or an empty one."""
        if self._reader is None or (address.version == 6 and self._reader.metadata().ip_version == 4):  # noqa: PLR2004
            return {}
        try:
            record = self._reader.get(address)
        except (maxminddb.InvalidDatabaseError, ValueError, TypeError) as error:
            if not self._is_damaged:
                _log.warning("%s: damaged, some locations stay unknown: %s", self._path, error)
            self._is_damaged = True
            return {}
        return record if isinstance(record, dict) else {}

    def _open(self, *, is_running: bool) -> bool:
        """Opens the file if it is another than before, and than the one refused last; with proof, if all runs already."""
        if (now := self._now()) is not None and now in (self._stamp, self._refused):
            return False
        with self._path.open("rb") as file, tempfile.NamedTemporaryFile(prefix="auditship-", suffix=".mmdb") as copy:
            stamp = _stamp(os.fstat(file.fileno()))
            shutil.copyfileobj(file, copy, COPY_BYTES)
            copy.flush()
            if stamp != _stamp(os.fstat(file.fileno())):
                raise BlockingIOError("it is being written")
            try:
                if is_running:
                    _prove(copy.name)
                reader = maxminddb.open_database(copy.name)
                _probe(reader)
            except (maxminddb.InvalidDatabaseError, ValueError):
                self._refused = stamp
                raise
        self._reader, self._stamp, self._is_damaged = reader, stamp, False
        return True

    def _now(self) -> _Stamp | None:
        try:
            return _stamp(self._path.stat())
        except OSError:
            return None


def _stamp(info: os.stat_result) -> _Stamp:
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size


def _probe(reader: maxminddb.Reader) -> None:
    """Reads here and there: a torn file opens well and fails so."""
    for address in _PROBES if reader.metadata().ip_version == 4 else (*_PROBES, *_PROBES_6):  # noqa: PLR2004
        reader.get(address)


def _prove(path: str) -> None:
    """Reads all of a file, elsewhere.

    Raises:
        ValueError: saying what is wrong with it.
    """
    command = [sys.executable, "-m", __name__, path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROOF_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise ValueError(f"it was not read to its end in {PROOF_TIMEOUT_S} s") from None
    if done.returncode < 0:
        raise ValueError(f"damaged: its reader was ended by signal {-done.returncode}")
    if done.returncode:
        raise ValueError(done.stderr.strip()[-300:] or "damaged")


def _read_all(path: str) -> None:
    with suppress(OSError):  # not allowed everywhere, nor needed
        os.nice(19)
    try:
        with maxminddb.open_database(path) as reader:
            for _ in reader:
                pass
    except (maxminddb.InvalidDatabaseError, OSError, ValueError, TypeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _read_all(sys.argv[1])
