"""``auditship export``."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, Final

import click

from auditship.errors import AuditshipError, ConfigurationError
from indexer.commands.options import asking, query_of, reading, record
from indexer.document import REJECTED
from indexer.store.body import document_of
from indexer.store.contract import Hit

CSV_COLUMNS: Final = (
    "timestamp", "severity", "organization", "actor", "actor_id", "label", "action", "resource_type", "resource_id",
    "resource", "location", "ip", "outcome", "reason", "gateway", "id",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_REPORT_EVERY: Final = 10_000


class ExportError(AuditshipError):
    """The export could not be written to its end."""


@click.command()
@click.argument("query", default="")
@asking
@click.option("--format", "kind", type=click.Choice(["ndjson", "csv"]), default="ndjson", show_default=True)
@click.option("--rejected/--no-rejected", default=True, show_default=True, help="Whether lines that are no events are written.")
@click.option("--out", default="-", show_default=True, help="A file, a pipe, or - for standard output.")
def export(query: str, config: Path | None, kind: str, rejected: bool, out: str, **filters: Any) -> None:
    r"""Write what the store holds, the oldest first; everything, unless options say otherwise.

    ndjson gives each document byte for byte as it is stored; csv the columns that people know. A file is written beside and
    renamed when it is whole; a pipe or a device is written to as it is.

    \b
    auditship export --format ndjson --out - --config indexer.toml
    auditship export --since 30d --organization org-1 --format csv --out november.csv --config indexer.toml
    """
    write = _ndjson if kind == "ndjson" else _csv
    count = 0
    asked = [query_of(query, filters)]
    with reading(config) as reader, _target(out) as target, _progress() as told:
        record(config, "export", asked[0], out=out, format=kind, state="begun")
        if kind == "csv":
            target.write(_csv_line(CSV_COLUMNS))
        names = ("severities", "datasets", "organization", "actor", "action", "outcome")
        if rejected and not query and not any(filters[name] for name in names):
            asked.append(query_of(query, filters, datasets=(REJECTED,)))
        for each in asked:
            for hit in reader.scan(each):
                target.write(write(hit))
                count += 1
                if count % _REPORT_EVERY == 0:
                    told(count)
        told(count)
    record(config, "export", asked[0], out=out, format=kind, state="ended", hits=count)


def _ndjson(hit: Hit) -> bytes:
    return hit.body + b"\n"


def _csv(hit: Hit) -> bytes:
    document = document_of(hit.body)
    audit, user, event = document.get("audit", {}), document.get("user", {}), document.get("event", {})
    resource = audit.get("resource", {})
    return _csv_line(
        (
            document.get("@timestamp"),
            audit.get("severity"),
            document.get("organization", {}).get("id"),
            user.get("full_name") or user.get("name"),
            user.get("id"),
            audit.get("actor", {}).get("label"),
            event.get("action"),
            resource.get("type"),
            resource.get("id"),
            resource.get("name"),
            audit.get("location"),
            document.get("source", {}).get("ip"),
            event.get("outcome"),
            event.get("reason") or audit.get("rejection", {}).get("reason"),
            audit.get("gateway"),
            hit.id,
        )
    )


def _csv_line(values: tuple[str | None, ...]) -> bytes:
    """A line of RFC 4180; a value that a spreadsheet would take for a formula begins with an apostrophe."""
    text = io.StringIO()
    csv.writer(text).writerow([f"'{each}" if each and each.startswith(_FORMULA) else each or "" for each in values])
    return text.getvalue().encode()


@contextlib.contextmanager
def _target(out: str) -> Iterator[BinaryIO]:
    """Where the export goes; a file has its name only when it is whole.

    Raises:
        ConfigurationError: nothing can be written there.
        ExportError: not everything could be written.
    """
    if out == "-" or _is_standard_output(out):
        with _told("standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    beside = target = Path(out)
    try:
        if is_file := _is_file(target):
            target = target.resolve()  # what a link names is replaced, not the link
            beside = target.with_name(f".{target.name}.partial")
        file = beside.open("wb")
    except OSError as error:
        raise ConfigurationError(f"{out}: {error.strerror}", "Name a file or pipe with --out that can be written to.") from None
    try:
        with _told(out):
            with file:
                yield file
                file.flush()
                if is_file:
                    os.fsync(file.fileno())
            if is_file:
                beside.replace(target)
    finally:
        if is_file:
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """What cannot be written is told; but not that the reader of a pipe has gone, which is for the whole program to tell."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(f"{where}: {error.strerror}", "Export again, or to another place with --out.") from None


def _is_file(path: Path) -> bool:
    """Whether a path is a file, or will be."""
    try:
        return S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _is_standard_output(out: str) -> bool:
    """Whether a path is what standard output is: ``/dev/stdout``, which may be a file that is appended to."""
    try:
        return os.path.samestat(Path(out).stat(), os.fstat(1))
    except OSError:
        return False


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Counts on a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None  # noqa: ARG005 - nobody looks
        return
    yield lambda count: click.echo(f"\r{count:,} documents", err=True, nl=False)
    click.echo(err=True)
