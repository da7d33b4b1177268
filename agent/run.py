"""Puts an agent together and runs it: one thread reads, some ship, one keeps the checkpoint, this one waits for signals."""

from __future__ import annotations

import logging
import queue
import random
import secrets
import signal
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

from agent.block import Block
from agent.catalogue import Catalogue
from agent.checkpoint import Checkpoint, Loaded
from agent.discover import Discovery
from agent.events import GATEWAY, Events
from agent.keeper import Keeper
from agent.osio import System
from agent.reader import Looked, Message, Reader, Reload, Stop
from agent.report import Report
from agent.settings import AgentSettings
from agent.ship import Outcome, Shipper, Verdict
from agent.tail import Tail
from agent.wake import Wake
from auditship import __version__
from auditship.errors import AuditshipError, ConfigurationError
from auditship.hang_up import hear_hang_ups

if TYPE_CHECKING:
    from agent.metrics import Metrics

_log = logging.getLogger("auditship.agent")

SIGNAL_WAIT_S = 0.25
"""How often the main thread looks up: for progress, and for a reader that has ended."""
FIXED: Final = (
    "state_dir",
    "agent_id",
    "host",
    "block_bytes_max",
    "line_bytes_max",
    "window_bytes",
    "shippers",
    "open_files_max",
    "directories_watched_max",
    "metrics_listen",
)
"""Settings that a reload leaves as they are: buffers and the state's promises are built on them."""


class IncompleteError(AuditshipError):
    """Not everything could be shipped."""


class Agent:
    """One agent on one state directory.

    Args:
        settings: its configuration.
        once: ends when everything that is there has been shipped.
        again: reads the configuration again, for SIGHUP.

    Raises:
        ConfigurationError: the state directory cannot be used, another agent uses it, or a token cannot be read.
    """

    def __init__(
        self, settings: AgentSettings, *, once: bool = False, again: Callable[[], AgentSettings] | None = None
    ) -> None:
        self._settings = settings
        self._again = again
        self._is_reload_due = False
        self._system = System()
        self._shippers = [Shipper(settings.indexer, __version__) for _ in range(settings.shippers)]
        self._prepare_state()
        self.id, is_new = self._agent_id()
        self._events = Events(settings.state_dir, self.id, settings.host)
        self.report = Report(self._events)
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        checkpoint = Checkpoint(self._system, settings.state_dir)
        self._wake = Wake(lambda: self._inbox.put(Looked()), 0 if once else settings.directories_watched_max)
        tail = Tail(self._system, settings, self.id, lambda: self._system.now_ns() // 1_000_000)
        loaded = self._loaded(checkpoint, is_new=is_new)
        # blocks of an earlier life, with a larger window, may still have to be sent again
        self._keeper = Keeper(checkpoint, max(settings.window_bytes, loaded.window_bytes), self._inbox.put)
        open_files_max, unborn_max = self._open_files_max()
        self.reader = Reader(
            settings,
            system=self._system,
            catalogue=Catalogue(
                self._system,
                self.id,
                tail=tail,
                loaded=loaded,
                report=self.report,
                unborn_max=unborn_max,
            ),
            discovery=self._discovery(settings),
            tail=tail,
            keeper=self._keeper,
            report=self.report,
            inbox=self._inbox,
            outbox=self._outbox,
            clock=time.monotonic,
            chance=random.Random(),  # noqa: S311 - jitter
            watch=self._wake.watch,
            open_files_max=open_files_max,
            once=once,
        )

    def run(self, progress: Callable[[int], None] | None = None) -> None:
        """Runs until a signal, or until everything is shipped; ``progress`` is told the bytes that are left, now and then.

        Raises:
            IncompleteError: with ``once``, when something could not be shipped.
            Exception: whatever ended the reader.
        """
        failures: list[BaseException] = []
        reader = threading.Thread(target=self._guarded, args=(failures,), name="reader", daemon=True)
        workers = [threading.Thread(target=self._ship, args=(at,), daemon=True) for at in range(len(self._shippers))]
        metrics = self._metrics()
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        hear_hang_ups()
        for thread in (self._keeper, *workers, reader):
            thread.start()
        while reader.is_alive():
            reader.join(SIGNAL_WAIT_S)
            if progress:
                progress(self.reader.left_bytes)
            if self._is_reload_due:
                self._is_reload_due = False
                self._reload()
        if metrics is not None:
            metrics.close()
        self._wake.end()
        self._keeper.end()
        for _ in workers:
            self._outbox.put(None)
        if failures:
            raise failures[0]

    def _guarded(self, failures: list[BaseException]) -> None:
        """The reader's thread; what ends it is the main thread's to raise."""
        try:
            self.reader.run()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failures.append(error)

    def _ship(self, at: int) -> None:
        """A shipper's thread; a reload may put another shipper in its place between two blocks."""
        while (block := self._outbox.get()) is not None:
            self._inbox.put(sent(self._shippers[at], block))
        self._shippers[at].close()

    def _metrics(self) -> Metrics | None:
        if self._settings.metrics_listen is None:
            return None
        from agent.metrics import Metrics  # noqa: PLC0415 - its library takes memory that most agents need not spend

        return Metrics(self._settings.metrics_listen, self.reader, self.report.counts)

    def _discovery(self, settings: AgentSettings) -> Discovery:
        return Discovery(self._system, settings.watch, own=(GATEWAY, self._events.path))

    def _reload(self) -> None:
        """Takes the configuration as it is now; a bad one is told, and the old one kept."""
        if self._again is None:
            return
        try:
            settings = self._again()
            shippers = [Shipper(settings.indexer, __version__) for _ in self._shippers]
        except AuditshipError as error:
            _log.error("not reloaded, everything goes on as before: %s", error)
            return
        kept = {name: getattr(self._settings, name) for name in FIXED}
        changed = [name for name, value in kept.items() if getattr(settings, name) != value]
        if changed:
            _log.warning("%s: changed, and taken at the next start only", ", ".join(changed))
        self._settings = settings.model_copy(update=kept)
        self._shippers = shippers
        self._inbox.put(Reload(self._settings, self._discovery(self._settings)))
        _log.info("reloaded")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """The first signal ends in order; a second one at once."""
        del frame
        signal.signal(number, signal.SIG_DFL)
        self._inbox.put(Stop())

    def _open_files_max(self) -> tuple[int, int]:
        """How many files may be held open, and beside them how many that have no first line yet."""
        wanted, unborn_max = self._settings.open_files_max, self._settings.polled_files_max
        allowed = self._system.open_files_max(wanted + unborn_max)
        unborn_max = min(unborn_max, allowed // 5 + 1)
        allowed = max(1, min(wanted, allowed - unborn_max))
        if allowed < wanted:
            _log.warning("%d files are held open, not open_files_max = %d: ulimit -n is lower", allowed, wanted)
        return allowed, unborn_max

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        """A reload is wished for; the main thread sees to it."""
        del number, frame
        self._is_reload_due = True

    def _prepare_state(self) -> None:
        """The state directory, ours alone."""
        directory = self._settings.state_dir
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = self._system.lock(directory / "lock")
        except BlockingIOError:
            raise ConfigurationError(
                f"{directory}: another agent is running on it", "End that one first, or give this one a state_dir of its own."
            ) from None
        except OSError as error:
            hint = "The agent keeps its checkpoint there and must be able to write."
            raise ConfigurationError(f"{directory}: {error.strerror}", hint) from None

    def _agent_id(self) -> tuple[str, bool]:
        """The agent's id, made once; and whether this is its first start."""
        path = self._settings.state_dir / "agent-id"
        try:
            kept = self._system.read(path).decode("ascii", "replace").strip()
        except FileNotFoundError:
            made = self._settings.agent_id or secrets.token_hex(8)
            try:
                self._system.replace(path, f"{made}\n".encode())
            except OSError as error:
                hint = "The agent's id has to be kept before anything is shipped under it."
                raise ConfigurationError(f"{path}: {error.strerror}", hint) from None
            return made, True
        if self._settings.agent_id not in (None, kept):
            raise ConfigurationError(
                f"{path}: this state directory is that of {kept!r}, and agent_id is {self._settings.agent_id!r}",
                "With another id every file would be shipped again. Use another state_dir, or the old id.",
            )
        return kept, False

    def _loaded(self, checkpoint: Checkpoint, *, is_new: bool) -> Loaded:
        loaded = checkpoint.load()
        if loaded is None:
            missing = f"{self._settings.state_dir / 'checkpoint'}: missing, though the agent has run here before"
            loaded = Loaded([], self._settings.window_bytes, "" if is_new else missing)
        if loaded.problem:
            self.report.trouble(
                "checkpoint", f"{loaded.problem}. Nothing is lost: what may have been sent is sent again, marked"
            )
        return loaded


def sent(shipper: Shipper, block: Block) -> Outcome:
    """What became of a block. A defect ends neither the thread nor the block, and no value is shown, which may be a secret."""
    try:
        return shipper.send(block)
    except Exception as error:  # noqa: BLE001 - whatever it was, the lines must be sent again
        at = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(block, Verdict.UNKNOWN, f"not sent, a defect: {type(error).__name__} in {at.name}, line {at.lineno}")
