"""``auditship setup``: makes a cluster ready."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import click

from auditship.errors import ConfigurationError
from auditship.settings import load, read_secret
from indexer.organizations import Policies
from indexer.record import Access, recorded, this_user
from indexer.settings import IndexerSettings
from indexer.setup.administrator import Administrator
from indexer.setup.change import Change
from indexer.setup.cluster import ClusterSetup
from indexer.setup.keys import Keys
from indexer.setup.kibana import KibanaSetup
from indexer.store.elasticsearch.connection import Connection

_Credentials = tuple[str | None, tuple[str, str] | None]


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file, indexer.toml.")
@click.option("--user", envvar="ELASTICSEARCH_USER", show_envvar=True, help="An administrator's name.")
@click.option("--password-file", type=click.Path(path_type=Path), help="Holds the password; or ELASTICSEARCH_PASSWORD does.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="An administrator's key; or ELASTICSEARCH_API_KEY.")
@click.option("--kibana-url", help="Kibana's address: saved searches, the dashboard and alert rules are imported there.")
@click.option("--kibana-ca-file", type=click.Path(path_type=Path), help="Who vouches for Kibana; else whom the system trusts.")
@click.option("--allow-shorter-retention", is_flag=True, help="Documents may come to be deleted sooner than before.")
@click.option("--rotate-keys", is_flag=True, help="Make new keys; the old ones stay good until --revoke-old-keys.")
@click.option("--revoke-old-keys", is_flag=True, help="Take back every key but those in the files.")
@click.option("--dry-run", is_flag=True, help="Say what would change, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def setup(
    *,
    config: Path | None,
    user: str | None,
    password_file: Path | None,
    api_key_file: Path | None,
    kibana_url: str | None,
    kibana_ca_file: Path | None,
    allow_shorter_retention: bool,
    rotate_keys: bool,
    revoke_old_keys: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Install templates, lifecycle policies, roles, data streams and keys in Elasticsearch, and saved objects in Kibana.

    Says what it changed; safe to run again. Keys are written to the files that the configuration names, if they are not
    there yet.

    \b
    auditship setup --config indexer.toml --user elastic --password-file password
    auditship setup --config indexer.toml --user elastic --dry-run
    auditship setup --config indexer.toml --user elastic --rotate-keys
    auditship setup --config indexer.toml --user elastic --kibana-url https://kibana:5601
    """
    settings = load(IndexerSettings, config)
    policies = Policies.load(settings.enrichment.organizations, settings.store.retention)
    gateways = {gateway for agent in settings.agents for gateway in agent.gateways}
    api_key, basic = _credentials(user, password_file, api_key_file)
    connection = Connection(settings.elasticsearch, api_key=api_key, basic=basic)
    changes: list[Change] = []
    try:
        administrator = Administrator(connection)
        cluster = ClusterSetup(administrator, dry_run=dry_run, allow_shorter_retention=allow_shorter_retention)
        keys = Keys(administrator, settings.elasticsearch, dry_run=dry_run)
        steps = chain(cluster.run(policies.classes, gateways), keys.ensure(), cluster.holds(policies))
        if rotate_keys:
            steps = chain(steps, keys.rotate())
        if revoke_old_keys:
            steps = chain(steps, keys.revoke())
        if kibana_url:
            objects = KibanaSetup(kibana_url, api_key=api_key, basic=basic, ca_file=kibana_ca_file, dry_run=dry_run)
            steps = chain(steps, objects.run())
        for change in steps:
            changes.append(change)
            if not as_json and change.change != "unchanged":
                detail = f"  ({change.detail})" if change.detail else ""
                click.echo(f"{'would be ' if dry_run else ''}{change.change:11}  {change.kind:19}  {change.name}{detail}")
    finally:
        connection.close()
        _record(settings, changes, dry_run=dry_run)
    _summary(changes, dry_run=dry_run, as_json=as_json)


def _record(settings: IndexerSettings, changes: list[Change], *, dry_run: bool) -> None:
    """Records what was changed, also where the rest failed."""
    changed = [f"{change.change} {change.kind} {change.name}" for change in changes if change.change != "unchanged"]
    if changed and not dry_run:
        who, kind = this_user("setup"), ("configuration", "change")
        cluster = settings.model_copy(update={"store": settings.store.model_copy(update={"kind": "elasticsearch"})})
        recorded(cluster, Access("audit.setup", who, {"changes": changed}, "warning", kind, "configuration"))


def _summary(changes: list[Change], *, dry_run: bool, as_json: bool) -> None:
    counts = Counter(change.change for change in changes)
    changed = len(changes) - counts["unchanged"]
    if as_json:
        each = [{"kind": change.kind, "name": change.name, "change": change.change} for change in changes]
        click.echo(json.dumps({"dry_run": dry_run, "changed": changed, "unchanged": counts["unchanged"], "changes": each}))
    elif changed:
        click.echo(f"{changed} {'would change' if dry_run else 'changed'}, {counts['unchanged']} unchanged")
    else:
        click.echo(f"nothing to change: all {len(changes)} are as they should be")


def _credentials(user: str | None, password_file: Path | None, api_key_file: Path | None) -> _Credentials:
    """An API key, or a name and a password; neither, for a cluster that asks for none. Secrets never come as arguments."""
    if user and api_key_file:
        raise ConfigurationError("--user and --api-key-file: one or the other")
    if api_key_file:
        return read_secret(api_key_file), None
    if not user:
        return os.environ.get("ELASTICSEARCH_API_KEY"), None
    password = read_secret(password_file) if password_file else os.environ.get("ELASTICSEARCH_PASSWORD")
    if password is None and sys.stdin.isatty():
        password = click.prompt(f"Password of {user}", hide_input=True, err=True)
    if not password:
        raise ConfigurationError(f"no password for {user}", "Name a file with --password-file, or set ELASTICSEARCH_PASSWORD.")
    return None, (user, password)
