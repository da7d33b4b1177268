"""``auditship alerts``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from auditship.hang_up import hold_hang_ups
from auditship.log import configure
from auditship.settings import load
from indexer.alerts.channel import Delivered
from indexer.alerts.channels import channel_of
from indexer.alerts.outbox import Outbox
from indexer.alerts.run import Alerts, test
from indexer.alerts.settings import AlertsSettings
from indexer.commands import again
from indexer.settings import IndexerSettings
from indexer.store.select import open_reader

_log = logging.getLogger("auditship.alerts")


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file, alerts.toml.")
@click.option("--once", is_flag=True, help="One round: tell what is new, and end.")
@click.option("--test", "is_test", is_flag=True, help="Send a marked test message through every channel, and say how it went.")
@click.option("--check", is_flag=True, help="Check the configuration, and end.")
def alerts(config: Path | None, *, once: bool, is_test: bool, check: bool) -> None:
    r"""Tell people of critical events and detections.

    Follows the store, and delivers one message for each cause, at least once, until SIGTERM or Ctrl-C. What could not be told
    is kept in the state directory, and told after the next start. SIGHUP reads the configuration again; a bad one is told, and
    the old one kept.

    \b
    auditship alerts --config /etc/auditship/alerts.toml
    auditship alerts --config alerts.toml --test
    auditship alerts --config alerts.toml --once

    With --once and --test the status is 0 when everything was delivered, and 1 otherwise.
    """
    if not (once or is_test or check):
        hold_hang_ups()
    settings = load(AlertsSettings, config)
    if is_test:
        sys.exit(_test(settings))
    store = load(IndexerSettings, settings.indexer_config)
    if check:
        _check(settings, store)
        click.echo("the configuration is good")
        return
    configure()
    running = Alerts(settings, store, once=once)
    if once:
        running.once()
    elif running.run(
        lambda: again.is_good(lambda: _check_file(config, settings), _log, "the configuration is good; beginning again with it")
    ):
        again.begin()


def _check(settings: AlertsSettings, store: IndexerSettings) -> None:
    """Makes every channel and the store's reader, which reads their secrets and certificates."""
    for channel in settings.channel:
        channel_of(channel)
    open_reader(store).close()


def _check_file(config: Path | None, ours: AlertsSettings) -> None:
    """Tries what the configuration says now, but for what is ours already."""
    settings = load(AlertsSettings, config)
    _check(settings, load(IndexerSettings, settings.indexer_config))
    if settings.state_dir != ours.state_dir:
        Outbox(settings.state_dir, pending_max=settings.pending_max).close()
    again.try_to_listen(settings.metrics_listen, ours.metrics_listen)


def _test(settings: AlertsSettings) -> int:
    """Tests every channel; 1 where one did not deliver."""
    failed = 0
    for name, outcome in test(settings):
        is_good = isinstance(outcome, Delivered)
        failed += not is_good
        detail = outcome.detail if isinstance(outcome, Delivered) else outcome.reason
        click.echo(f"{name}: {'delivered' if is_good else 'NOT delivered'}{f' ({detail})' if detail else ''}")
    return 1 if failed else 0
