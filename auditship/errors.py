"""Errors that a person reads: what was being done, to what, and what helps."""

from __future__ import annotations


class AuditshipError(Exception):
    """An error with its remedy. The command line prints it in one or two lines and ends with ``exit_code``.

    Args:
        what: what went wrong, naming the thing and the place.
        hint: what the reader can do about it, as a sentence; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what


class ConfigurationError(AuditshipError):
    """The configuration or the command's own words are wrong; nothing was started."""

    exit_code = 2
