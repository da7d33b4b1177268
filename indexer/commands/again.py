"""SIGHUP: a program tries what it would begin with now, and begins again as itself only if that is good."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from auditship.errors import AuditshipError


def is_good(check: Callable[[], object], own_log: logging.Logger, told: str) -> bool:
    """Whether a check passes. If it does, ``told`` is logged; if not, why, and that nothing changes."""
    try:
        check()
    except AuditshipError as error:
        own_log.error("not reloaded, everything goes on as before: %s", error)
        return False
    own_log.info(told)
    return True


def begin() -> NoReturn:
    """Takes the place of this process, with the same command line."""
    os.execv(sys.executable, [sys.executable, "-m", "auditship.cli", *sys.argv[1:]])  # noqa: S606 - ourselves
