"""A location database in MaxMind's format: a file that may be replaced while it is in use.

What is read is a private copy without a name, made when the file is opened: however somebody replaces the file (renaming
another over it, or writing into it), what is in use stays as it is. A new file is taken over by :meth:`Database.reload` once it
is whole; one that is being written, torn or damaged leaves the one before in place, and that is told in the log, once for each
such file.

The fast reader, which is written in C, may take its process with it when it meets damage. So a file is read from one end to
the other in a process of its own (``python -m indexer.enrich.database FILE``) before that reader may have it. A replacement
waits for that. At start nobody can wait for the minute that a large file takes: until the first :meth:`Database.reload` sees
to it, the file is read by the reader that is written in Python: slower, and harmless. A file that turns out to be damaged then
is no longer read: locations stay unknown, as where it is missing, until a whole one is there. A wrong place is worse than none.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import signal
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
_DAMAGE: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP})
"""Signals by which a reader ends itself; by others somebody else has ended it."""
_log = logging.getLogger("auditship.indexer")


class DamagedError(ValueError):
    """A file is no database, or not a whole one."""


class Database:
    """A file that is read by address.

    Raises:
        ConfigurationError: it is there, and a first look tells that it cannot be used. One that is missing is told in the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._refused: _Stamp | None = None
        self._reader: maxminddb.Reader | None = None
        self._is_proven = False
        self._is_damaged = False
        try:
            self._open(is_running=False)
        except FileNotFoundError:
            _log.warning("%s: missing; locations stay unknown until it is there", path)
        except OSError as error:
            raise ConfigurationError(
                f"{path}: {error.strerror or error}", f"It is copied to {tempfile.gettempdir()}."
            ) from None
        except DamagedError as error:
            raise ConfigurationError(
                f"{path}: not a database in MaxMind's format: {error}", "Fetch it again, or take it out of the configuration."
            ) from None

    def reload(self) -> bool:
        """Whether locations may be others than before: a new file was taken over, or a damaged one dropped."""
        try:
            return self._open(is_running=True)
        except FileNotFoundError:
            return False
        except DamagedError as error:
            if self._refused == self._stamp:
                _log.error(
                    "%s: %s. Locations stay unknown: fetch it again, a whole file is taken over by itself", self._path, error
                )
                self._reader = None
                return True
            _log.warning("%s: the new file cannot be used, the one before stays: %s", self._path, error)
            return False
        except OSError as error:
            what = "cannot be looked through now" if self._now() == self._stamp else "cannot be used, the one before stays"
            _log.warning("%s: the file %s: %s", self._path, what, error)
            return False

    def find(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Mapping[str, Any]:
        """The record of an address, or an empty one."""
        if self._reader is None or (address.version == 6 and self._reader.metadata().ip_version == 4):  # noqa: PLR2004
            return {}
        try:
            record = self._reader.get(address)
        except Exception as error:  # noqa: BLE001 - whatever a reader makes of a damaged file
            if not self._is_damaged:
                _log.warning("%s: damaged, some locations stay unknown: %s", self._path, error)
            self._is_damaged = True
            return {}
        return record if isinstance(record, dict) else {}

    def _open(self, *, is_running: bool) -> bool:
        """Opens the file if it is another than before, and than the one refused last; whether it was another.

        If all runs already, with proof: the file from the start too, once.
        """
        now = self._now()
        if now is not None and (now == self._refused or (now == self._stamp and self._is_proven)):
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
                reader = _opened(copy.name, maxminddb.MODE_AUTO if is_running else maxminddb.MODE_MMAP)
            except (DamagedError, TimeoutError):
                self._refused = stamp
                raise
        is_another = stamp != self._stamp
        self._reader, self._stamp, self._is_proven = reader, stamp, is_running
        self._is_damaged = self._is_damaged and not is_another
        return is_another

    def _now(self) -> _Stamp | None:
        try:
            return _stamp(self._path.stat())
        except OSError:
            return None


def _stamp(info: os.stat_result) -> _Stamp:
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size


def _opened(path: str, mode: int) -> maxminddb.Reader:
    """A reader, once it has read here and there: a torn file opens well and fails so.

    Raises:
        DamagedError: saying what is wrong.
    """
    try:
        reader = maxminddb.open_database(path, mode)
        for address in _PROBES if reader.metadata().ip_version == 4 else (*_PROBES, *_PROBES_6):  # noqa: PLR2004
            reader.get(address)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a reader makes of a damaged file
        raise DamagedError(str(error) or type(error).__name__) from None
    return reader


def _prove(path: str) -> None:
    """Reads all of a file, elsewhere.

    Raises:
        DamagedError: saying what is wrong with it.
        OSError: it could not be read to its end: it took too long, or somebody ended it.
    """
    command = [sys.executable, "-m", __name__, path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROOF_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it was not read to its end in {PROOF_TIMEOUT_S} s") from None
    if -done.returncode in _DAMAGE:
        raise DamagedError(f"damaged: its reader was ended by signal {-done.returncode}")
    if done.returncode < 0:
        raise InterruptedError(f"its reader was ended by signal {-done.returncode}")
    if done.returncode:
        raise DamagedError(f"damaged: {done.stderr.strip()[-300:]}")


def _read_all(path: str) -> None:
    with suppress(OSError):  # not allowed everywhere, nor needed
        os.nice(19)
    try:
        with maxminddb.open_database(path) as reader:
            for _ in reader:
                pass
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as what is wrong with the file
        sys.exit(str(error) or type(error).__name__)


if __name__ == "__main__":
    _read_all(sys.argv[1])
