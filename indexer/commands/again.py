"""SIGHUP: a program tries what it would begin with now, and begins again as itself only if that is good.

Until the program that begins can hear it, SIGHUP is held (:mod:`auditship.hang_up`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from auditship.errors import AuditshipError
from auditship.hang_up import hold_hang_ups
from auditship.pages import Pages


def is_good(check: Callable[[], object], own_log: logging.Logger, told: str) -> bool:
    """Whether a check passes. If it does, ``told`` is logged; if not, why, and that nothing changes."""
    try:
        check()
    except AuditshipError as error:
        own_log.error("not reloaded, everything goes on as before: %s", error)
        return False
    own_log.info(told)
    return True


def try_to_listen(wanted: str | None, ours: str | None) -> None:
    """Whether a program could have its ``metrics_listen``. Its own port is let go by then, and not tried.

    Raises:
        ConfigurationError: it cannot listen there.
    """
    if wanted is not None and (ours is None or wanted.rpartition(":")[2] != ours.rpartition(":")[2]):
        Pages(wanted, {}).close()


def begin() -> NoReturn:
    """Takes the place of this process, with the same command line."""
    hold_hang_ups()
    os.execv(sys.executable, [sys.executable, "-m", "auditship.cli", *sys.argv[1:]])  # noqa: S606 - ourselves
