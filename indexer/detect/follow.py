"""Looks at what arrives, at every interval, until a signal.

SIGTERM and SIGINT end it at once, which loses nothing. SIGHUP ends it after a run, so that the program can begin again with
another configuration, if that is good. A run that fails is told and counted, and the next one does what it could not.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import orjson

from auditship.hang_up import hear_hang_ups, hold_hang_ups
from indexer.detect.detector import Detector
from indexer.detect.metrics import Metrics
from indexer.store.contract import QueryError, Unavailable

SIGNAL_WAIT_S: Final = 0.25

_log = logging.getLogger("auditship.detect")


class Follower:
    """Runs a detector.

    Args:
        detector: with its cursor.
        metrics: what is counted.
        interval_s: from the beginning of one run to that of the next.
    """

    def __init__(self, detector: Detector, metrics: Metrics, interval_s: float) -> None:
        self._detector = detector
        self._metrics = metrics
        self._interval_s = interval_s
        self._is_hung_up = False

    def run(self, is_good: Callable[[], bool]) -> None:
        """Returns when the program is to begin again.

        Args:
            is_good: whether the configuration as it is now could be used; asked at SIGHUP.

        Raises:
            KeyboardInterrupt: it is to end.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGHUP, self._hang_up)
        hear_hang_ups()
        while True:
            due = time.monotonic() + self._interval_s
            is_behind = self._look()
            while True:
                if self._is_hung_up:
                    self._is_hung_up = False
                    if is_good():
                        hold_hang_ups()
                        return
                left_s = due - time.monotonic()
                if is_behind or left_s <= 0:
                    break
                time.sleep(min(left_s, SIGNAL_WAIT_S))

    def _look(self) -> bool:
        """One run; whether another would find more at once."""
        began = time.monotonic()
        failed = True
        try:
            for entry in self._detector.run_once():
                document = orjson.loads(entry.body)
                self._metrics.hit(document["rule"]["id"], document["audit"]["severity"])
                _log.warning("%s: %s", document["event"]["action"], document["event"]["reason"])
            failed = False
        except (Unavailable, QueryError) as error:
            _log.error("not looked at, tried again: %s", error)
        self._metrics.ran(time.monotonic() - began, failed=failed)
        return not failed and self._detector.is_behind

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        """A reload is wished for; the loop sees to it."""
        del number, frame
        self._is_hung_up = True
