"""``auditship pseudonym``: under which pseudonym a person or a value is kept, for who has the key."""

from __future__ import annotations

from pathlib import Path

import click

from auditship.settings import load
from indexer.organizations import Policies
from indexer.settings import IndexerSettings


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The indexer's configuration file; its key is used.")
@click.option("--organization", required=True, help="An organisation's id.")
@click.argument("value")
def pseudonym(config: Path | None, organization: str, value: str) -> None:
    r"""Say under which pseudonym a value is kept in an organisation's events.

    \b
    auditship search "user.id:$(auditship pseudonym --config indexer.toml --organization org-7 u-17)" --config indexer.toml
    """
    settings = load(IndexerSettings, config)
    policies = Policies.load(settings.enrichment.organizations, settings.store.retention)
    click.echo(policies.keyed(organization).pseudonym(value))
