"""What the operating system allows a process, raised as far as it lets itself be raised."""

from __future__ import annotations

import resource


def open_files(needed: int) -> int:
    """How many files this process and those it starts may hold open: ``needed`` or more, unless the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    if soft >= needed:
        return soft
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
