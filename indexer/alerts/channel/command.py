"""A command: the message as JSON on its standard input. No shell, no value on its command line.

Status 0 is delivered; 65 (EX_DATAERR) refuses this message for good; anything else, or no end within the time-out, is tried
again. The command and whatever it has started are ended together; what has left its process group is not waited for. One that
has become another user cannot be ended: no other is started until it has. It gets
``PATH``, ``LANG`` and ``HOME`` of our environment, and the message's id as ``AUDITSHIP_ID``; what it writes goes nowhere, but
for the beginning of its standard error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

from msgspec.json import encode

from indexer.alerts.channel import Delivered, Later, Outcome, Refused
from indexer.alerts.message import Message, harmless

REFUSED: Final = os.EX_DATAERR
ERROR_BYTES_MAX: Final = 4096
READS_MAX: Final = 32
"""Reads in one look: a command that never stops talking has its time-out too."""
ENDING_S: Final = 5.0
"""How long one that was ended may take for it."""
_LOOK_S: Final = 0.01
_PASSED: Final = ("PATH", "LANG", "HOME")


class Command:
    """A command.

    Args:
        arguments: the program's absolute path, and its arguments.
        timeout_s: how long it may take.
    """

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        self._arguments = list(arguments)
        self._timeout_s = timeout_s
        self._left: subprocess.Popen[bytes] | None = None

    def send(self, message: Message) -> Outcome:
        """Runs the command once."""
        if self._left is not None and self._left.poll() is None:
            return Later(f"process {self._left.pid} of an earlier attempt has not ended, and cannot be ended", needs_help=True)
        environment = {name: os.environ[name] for name in _PASSED if name in os.environ} | {"AUDITSHIP_ID": message.id}
        try:
            with tempfile.TemporaryFile() as given:
                given.write(encode(message) + b"\n")
                given.seek(0)
                process = subprocess.Popen(  # noqa: S603 - the operator's own command
                    self._arguments,
                    stdin=given,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            return Later(harmless(f"cannot be run: {error.strerror}"), needs_help=True)
        assert process.stderr is not None
        with process.stderr:
            return self._outcome(process, _Heard(process.stderr))

    def _outcome(self, process: subprocess.Popen[bytes], heard: _Heard) -> Outcome:
        """Waits for the end, and ends what is left of it."""
        has_ended = _has_ended(process, self._timeout_s, heard)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the group is still this one
        try:
            status = process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self._left = process
        heard.listen()
        text = f": {heard.text()}" if heard.text() else ""
        if not has_ended:
            return Later(f"did not end within {self._timeout_s:g} s{text}")
        if status == 0:
            return Delivered()
        return Refused(f"status {status}{text}") if status == REFUSED else Later(f"status {status}{text}")


class _Heard:
    """What a command complains of: keeps the beginning, lets the rest go by, and waits for nobody.

    A process that has left the command's group may keep the pipe open for ever: its end is not waited for.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = stream.fileno()
        os.set_blocking(self._descriptor, False)
        self._kept = b""

    def listen(self) -> None:
        """Takes what is there, as much as a pipe holds."""
        with suppress(BlockingIOError):
            for _ in range(READS_MAX):
                if not (data := os.read(self._descriptor, 65_536)):
                    return
                self._kept += data[: ERROR_BYTES_MAX - len(self._kept)]

    def text(self) -> str:
        """The beginning, for people."""
        return harmless(self._kept.decode("utf-8", "replace").strip(), 200)


def _has_ended(process: subprocess.Popen[bytes], timeout_s: float, heard: _Heard) -> bool:
    """Waits for a process to end, without taking its status; hears what it says meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not _is_over(process):
        heard.listen()
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def _is_over(process: subprocess.Popen[bytes]) -> bool:
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    return (
        process.poll() is not None
    )  # macOS before Python 3.13: its status is taken, and its group might be another's in theory
