"""``auditship agent``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.run import Agent, IncompleteError
from agent.settings import AgentSettings
from auditship.hang_up import hold_hang_ups
from auditship.log import configure
from auditship.settings import load, read_token


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file, agent.toml.")
@click.option("--once", is_flag=True, help="Ship what is there, and end.")
@click.option("--check", is_flag=True, help="Check the configuration, and end.")
def agent(config: Path | None, *, once: bool, check: bool) -> None:
    r"""Tail audit logs and ship them to an indexer.

    Goes on until SIGTERM or Ctrl-C; a second one ends it at once, and nothing is lost by that either. SIGHUP reads the
    configuration again; a bad one is told, and the old one kept.

    \b
    auditship agent --config /etc/auditship/agent.toml
    auditship agent --config agent.toml --once

    With --once the status is 0 when every whole line was acknowledged, and 1 otherwise.
    """
    if not once:
        hold_hang_ups()
    settings = load(AgentSettings, config)
    if check:
        if settings.indexer.token_file:
            read_token(settings.indexer.token_file)
        click.echo("the configuration is good")
        return
    configure()
    running = Agent(settings, once=once, again=lambda: load(AgentSettings, config))
    if not once:
        running.run()
        return
    _ship_once(running)


def _ship_once(running: Agent) -> None:
    """Ships what is there, with a bar on a terminal."""
    with click.progressbar(length=1, label="shipping", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(left_bytes: int) -> None:
            bar.length = max(bar.length or 1, left_bytes)
            bar.update(bar.length - left_bytes - bar.pos)

        running.run(progress)
    counts = running.report.counts
    click.echo(f"shipped {counts.lines} lines in {counts.blocks} blocks, {counts.bytes} bytes", err=True)
    if not running.reader.is_complete:
        raise IncompleteError("not everything could be shipped", "The reasons are above; what is left stays in the files.")
