"""``auditship lint``: checks log files line by line, as the indexer will read them, before any gateway ships.

Reads files of any size in bounded memory. A line is wrong if the indexer would keep it as a rejected one, or the agent would
cut it. What is said of a line is the reason and the JSON pointer of the field.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import IO, Final, NamedTuple

import click

from auditship.errors import ConfigurationError
from auditship.line import LineError, decode, in_utc
from auditship.log import printable

LINE_BYTES_MAX: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


class Finding(NamedTuple):
    """A line that is wrong: its number (from 1), the field's JSON pointer ("" is the whole line), and why."""

    line: int
    pointer: str
    reason: str


def check(raw: bytes) -> tuple[str, str] | None:
    """What is wrong with a line (without its newline): the pointer and the reason; None if it is an event."""
    text = raw.removesuffix(b"\r").lstrip(b"\0")
    if len(raw) >= LINE_BYTES_MAX:
        return "", f"longer than {LINE_BYTES_MAX} bytes: the agent will cut it"
    if not text.strip():
        return "", "blank"
    try:
        text.decode()
        line, _ = decode(text)
        in_utc(line.timestamp)
        if line.ip:
            ipaddress.ip_address(line.ip.strip())
    except UnicodeDecodeError:
        return "", "not UTF-8"
    except LineError as error:
        return error.pointer, error.reason
    except ValueError:
        return "/ip", f"one IP address is expected, got {str(line.ip)[:60]!r}"
    return None


def check_file(file: IO[bytes]) -> Iterator[Finding | None]:
    """What is to be said of each line of a file, in order; None of one that is well."""
    number = 0
    while raw := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if not raw.endswith(b"\n"):
            rest = raw
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(LINE_BYTES_MAX)
            if not rest and len(raw) <= LINE_BYTES_MAX:
                yield Finding(number, "", "no newline at its end: not shipped before it has one")
                return
        wrong = check((raw.removeprefix(_BOM) if number == 1 else raw).removesuffix(b"\n"))
        yield Finding(number, *wrong) if wrong else None


@click.command()
@click.argument("paths", metavar="FILE...", nargs=-1)
@click.option("--max", "findings_max", type=click.IntRange(1), default=100, show_default=True, help="Findings shown per file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding, and one per file.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a line, and end.")
def lint(paths: tuple[str, ...], *, findings_max: int, as_json: bool, schema: bool) -> None:
    r"""Check log files line by line; - is standard input.

    \b
    auditship lint /var/log/gateways/web/*.jsonl
    my-gateway --print-events | auditship lint -

    The status is 0 when every line is an event, 1 when one is not, 2 when a file cannot be read.
    """
    if schema:
        click.echo(files("auditship").joinpath("line.schema.json").read_text(encoding="utf-8"), nl=False)
        return
    if not paths:
        raise click.UsageError("name a file, or - for standard input")
    wrong = sum(_lint(path, findings_max, as_json=as_json) for path in paths)
    sys.exit(1 if wrong else 0)


def _lint(path: str, findings_max: int, *, as_json: bool) -> int:
    """Checks a file and says what it found; returns how many lines are wrong."""
    lines = wrong = 0
    for finding in _findings(path):
        lines += 1
        if finding is None:
            continue
        wrong += 1
        if wrong <= findings_max:
            _say(path, finding, as_json=as_json)
    if as_json:
        click.echo(json.dumps({"file": path, "lines": lines, "wrong": wrong}))
    else:
        more = f" (the first {findings_max} are shown)" if wrong > findings_max else ""
        click.echo(f"{printable(path)}: {lines} lines, {wrong} wrong{more}", err=True)
    return wrong


def _findings(path: str) -> Iterator[Finding | None]:
    """:func:`check_file` of a path.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        with click.open_file(path, "rb") as file:
            yield from check_file(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "Name a file that can be read.") from None


def _say(path: str, finding: Finding, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"file": path, **finding._asdict()}))
    else:
        where = f"{finding.pointer}: " if finding.pointer else ""
        click.echo(printable(f"{path}:{finding.line}: {where}{finding.reason}"))
