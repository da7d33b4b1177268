"""SIGHUP, which ends a program that has no handler for it yet: it is held until one stands.

:func:`hold_hang_ups` comes first in a program, and :func:`hear_hang_ups` once its handler stands, before it starts threads or
other programs, which would go on holding it.
"""

from __future__ import annotations

import signal


def hold_hang_ups() -> None:
    """Lets SIGHUP wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def hear_hang_ups() -> None:
    """Lets it come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
