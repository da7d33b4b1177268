"""What the program says of itself: one line per message on standard error.

On a terminal for people; elsewhere one JSON object per line (``time``, ``level``, ``logger``, ``message``, ``error``). What
would move a terminal's cursor, or begin a new line, is escaped: file names and events are not ours.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import orjson


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message: dict[str, str] = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            message["error"] = self.formatException(record.exc_info)
        return orjson.dumps(_encodable(message)).decode()


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{_when(record)} {record.levelname.lower():8} {record.name}  {printable(record.getMessage())}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Sends every logger's messages to a stream (standard error), once however often it is called."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_PlainFormatter() if stream.isatty() else _JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("urllib3", "watchdog", "uvicorn.access", "elastic_transport"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def printable(text: str) -> str:
    """The text with everything escaped that is not printable."""
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encodable(message: dict[str, str]) -> dict[str, str]:
    """Lone surrogates, which file names that are not UTF-8 are full of, shown as what they are."""
    return {name: value.encode("utf-8", "backslashreplace").decode() for name, value in message.items()}
