"""``auditship rules``: the detections: what they are, their own samples, what they find."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.table import Table

from auditship import clock
from auditship.errors import ConfigurationError
from auditship.hang_up import hold_hang_ups
from auditship.log import configure, printable
from auditship.settings import load
from auditship.when import When
from indexer.commands import again
from indexer.commands.show import STYLES, local_time
from indexer.detect.cursor import Cursor
from indexer.detect.detector import Detector
from indexer.detect.follow import Follower
from indexer.detect.metrics import Metrics
from indexer.detect.rule import About
from indexer.detect.ruleset import BUILT_IN, Ruleset
from indexer.detect.samples import Case, policies_of
from indexer.detect.samples import load as load_samples
from indexer.document import Entry
from indexer.organizations import Policies
from indexer.settings import IndexerSettings
from indexer.store.select import open_reader, open_writer

CURSOR: Final = "detections.cursor"
_log = logging.getLogger("auditship.detect")
_config = click.option("--config", type=click.Path(path_type=Path), help="The indexer's configuration file.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON, one object per line.")


@click.group()
def rules() -> None:
    r"""Detections: rules over several events, in Sigma.

    \b
    auditship rules list
    auditship rules test --config indexer.toml
    auditship rules run --since 24h --config indexer.toml
    auditship rules run --follow --config indexer.toml
    """


@rules.command("list")
@_config
@_json
@click.option("--markdown", is_flag=True, help="A table in Markdown, as in docs/detections.md.")
def list_rules(config: Path | None, as_json: bool, markdown: bool) -> None:
    """Say which rules make alerts."""
    found = _loaded(load(IndexerSettings, config))
    abouts = [rule.about for rule in found.alerting()]
    if as_json:
        for about in abouts:
            sys.stdout.buffer.write(orjson.dumps(asdict(about), default=str) + b"\n")
    elif markdown:
        click.echo(markdown_of(abouts))
    else:
        table = Table("Severity", "Name", "What", "ATT&CK", box=None, header_style="bold")
        for about in abouts:
            cells = (about.severity, about.name, about.title, " ".join(about.techniques))
            table.add_row(*map(printable, cells), style=STYLES[about.severity])
        Console().print(table)
    _end(found)


def markdown_of(abouts: Sequence[About]) -> str:
    """Rules as a table: what each finds, and what else it may be."""
    lines = ["| rule | severity | what it finds | what else it may be | ATT&CK |", "|---|---|---|---|---|"]
    for about in abouts:
        benign = " ".join(about.false_positives)
        cells = (f"`{about.name}`", about.severity, about.description, benign, ", ".join(about.techniques))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


@rules.command("test")
@_config
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
def test_rules(config: Path | None, folders: tuple[Path, ...]) -> None:
    """Run the samples of the rules: those beside the built-in ones and one's own, or those in FOLDERS."""
    settings = load(IndexerSettings, config)
    own = settings.detections.rules
    found = _loaded(settings)
    cases = load_samples(folders or (BUILT_IN, *([own] if own else [])))
    failed = 0
    for case, wrong in run_cases(found, cases):
        failed += bool(wrong)
        for each in wrong:
            click.echo(f"{case.name} ({printable(case.why)}): {printable(each)}", err=True)
    tested = {name for case in cases for name in case.fires}
    for rule in found.alerting():
        if rule.about.name not in tested:
            click.echo(f"{rule.about.name}: no sample on which it fires", err=True)
    click.echo(f"{len(found.alerting())} rules, {len(cases)} cases, {failed} failed")
    if failed:
        sys.exit(1)
    _end(found)


@rules.command("run")
@_config
@click.option("--since", type=When(), help="Look at everything from then on, once: 24h, 7d or 2026-11-23T10:00:00Z.")
@click.option("--until", type=When(), help="Before then, instead of now.")
@click.option("--store", "stores", is_flag=True, help="With --since: store what is found, as alerts.")
@click.option("--follow", is_flag=True, help="Look at what arrives, and store alerts, until ended. One process is enough.")
@_json
def run_rules(*, config: Path | None, since: int | None, until: int | None, stores: bool, follow: bool, as_json: bool) -> None:
    """Run the detections over what is stored (--since), or over what arrives (--follow).

    With --follow, SIGHUP reads the rules and the configuration again; bad ones are told, and the old ones kept.
    """
    if follow == (since is not None):
        raise click.UsageError("name either --since or --follow")
    settings = load(IndexerSettings, config)
    if follow:
        with suppress(KeyboardInterrupt):
            _follow(config, settings)
        return
    assert since is not None
    found = _loaded(settings)
    with _detector(settings, found, stores=stores) as detector:
        entries = detector.run_over(since, until or clock.now_ms())
    _show(entries, as_json=as_json)
    _end(found)


def run_cases(found: Ruleset, cases: Sequence[Case]) -> Iterator[tuple[Case, list[str]]]:
    """Each case with what is wrong with it; over an embedded store of their own."""
    from indexer.store.embedded import EmbeddedReader, EmbeddedWriter  # noqa: PLC0415 - for this alone

    with tempfile.TemporaryDirectory(prefix="auditship-samples-") as folder:
        last_ms = max((case.end_ms for case in cases), default=0)

        async def fill() -> None:
            writer = EmbeddedWriter(Path(folder), lambda: last_ms)
            try:
                for case in cases:
                    await writer.append(case.entries, redelivered=False)
            finally:
                await writer.close()

        asyncio.run(fill())
        reader = EmbeddedReader(Path(folder), lambda: last_ms)
        for case in cases:
            detector = Detector(found, reader, writer=None, cursor=None, clock_ms=lambda: last_ms, policies=policies_of(cases))
            yield case, case.judged(detector.run_over(case.start_ms, case.end_ms))
            detector.close()


def _loaded(settings: IndexerSettings) -> Ruleset:
    """The rules of a configuration; what cannot be used is told."""
    found = Ruleset.load(settings.detections.rules, settings.detections.disabled)
    for problem in found.problems:
        click.echo(f"left out: {printable(problem.what)}. {problem.hint}", err=True)
    return found


def _end(found: Ruleset) -> None:
    if found.problems:
        sys.exit(2)


@contextmanager
def _detector(settings: IndexerSettings, found: Ruleset, *, stores: bool, cursor: Cursor | None = None) -> Iterator[Detector]:
    if settings.store.kind == "embedded" and not settings.store.path.is_dir():
        raise ConfigurationError(f"{settings.store.path}: no store there", "Name the indexer's configuration with --config.")
    policies = Policies.load(settings.enrichment.organizations, settings.store.retention)
    reader, writer = open_reader(settings), open_writer(settings) if stores else None
    detector = Detector(found, reader, writer=writer, cursor=cursor, clock_ms=clock.now_ms, policies=policies)
    try:
        yield detector
    finally:
        detector.close()
        reader.close()


def _follow(config: Path | None, settings: IndexerSettings) -> None:
    """Runs at every interval until the process is told to end, or to begin again."""
    configure()
    hold_hang_ups()
    _check_enabled(settings)
    found = Ruleset.load(settings.detections.rules, settings.detections.disabled)
    for problem in found.problems:
        _log.error("left out: %s", problem)
    default = settings.store.path if settings.store.kind == "embedded" else Path("/var/lib/auditship")
    cursor = Cursor(settings.detections.cursor_file or default / CURSOR)
    _log.info("%d rules, every %.0f s", len(found.alerting()), settings.detections.interval_s)
    with ExitStack() as stack:
        detector = stack.enter_context(_detector(settings, found, stores=True, cursor=cursor))
        metrics = Metrics(found, lambda: detector.lag_s)
        if settings.detections.metrics_listen is not None:
            stack.enter_context(closing(metrics.pages(settings.detections.metrics_listen)))
        Follower(detector, metrics, settings.detections.interval_s).run(
            lambda: again.is_good(
                lambda: _check(config, settings), _log, "rules and configuration are good; beginning again with them"
            )
        )
    again.begin()


def _check(config: Path | None, ours: IndexerSettings) -> None:
    """Tries the rules and the configuration as they are now, but for what is ours already."""
    settings = load(IndexerSettings, config)
    _check_enabled(settings)
    found = Ruleset.load(settings.detections.rules, settings.detections.disabled)
    with _detector(settings, found, stores=True):
        pass
    again.try_to_listen(settings.detections.metrics_listen, ours.detections.metrics_listen)
    if found.problems:
        raise found.problems[0]


def _check_enabled(settings: IndexerSettings) -> None:
    if not settings.detections.enabled:
        raise ConfigurationError("the detections are switched off", "Set enabled = true under [detections].")


def _show(entries: Sequence[Entry], *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        for entry in entries:
            sys.stdout.buffer.write(entry.body + b"\n")
        sys.stdout.flush()
        return
    table = Table("Time", "Severity", "Rule", "What", box=None, header_style="bold")
    for entry in entries:
        document: dict[str, Any] = orjson.loads(entry.body)
        severity, reason = document["audit"]["severity"], printable(document["event"]["reason"])
        table.add_row(local_time(document["@timestamp"]), severity, document["rule"]["id"], reason, style=STYLES[severity])
    Console().print(table if entries else "Nothing found.")
