"""``auditship retention``: how long whose documents are kept, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import orjson

from auditship.settings import load
from indexer.commands.options import reading
from indexer.organizations import Policies
from indexer.retention import exceptions
from indexer.settings import IndexerSettings
from indexer.store.contract import Segment


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The indexer's configuration file; its store is read.")
@click.option("--explain", "organization", required=True, help="An organisation's id.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def retention(config: Path | None, organization: str, as_json: bool) -> None:
    r"""Say how long an organisation's documents are kept: new ones, and those that are stored.

    \b
    auditship retention --explain org-7 --config indexer.toml

    A document keeps the class that it was written with. A legal hold keeps every segment (a backing index, a day's file) that
    holds a document of the organisation, whatever its class; and, while there is any, every segment that cannot be read.
    """
    settings = load(IndexerSettings, config)
    policies = Policies.load(settings.enrichment.organizations, settings.store.retention)
    with reading(config) as reader:
        found = explained(organization, policies, reader.segments())
    if as_json:
        click.echo(orjson.dumps(found).decode())
        return
    click.echo(
        f"{organization}: policy {found['policy']}, {found['retention']}{', under a legal hold' if found['legal_hold'] else ''}"
    )
    click.echo(f"new documents go to the class {found['class']}")
    for each in found["stored"]:
        held = (
            f", {each['kept_segments']} of {each['segments']} segments kept for a legal hold" if each["kept_segments"] else ""
        )
        click.echo(f"stored: {each['documents']:,} documents in the class {each['class']}{held}")
    if not found["stored"]:
        click.echo("stored: none")
    if found["unread_segments"]:
        kept = "; they are kept, for there are legal holds" if policies.has_holds else ""
        click.echo(f"whose documents they hold cannot be read of {found['unread_segments']} segments{kept}")


def explained(organization: str, policies: Policies, segments: list[Segment]) -> dict[str, Any]:
    """The same as data."""
    policy = policies.policy(organization)
    kept = exceptions(segments, policies)
    documents: Counter[str] = Counter()
    holding: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for segment in segments:
        if count := (segment.organizations or {}).get(organization.lower()):
            documents[segment.retention] += count
            holding[segment.retention] += 1
            held[segment.retention] += segment.name in kept and kept[segment.name] is None
    return {
        "organization": organization,
        "policy": policy.id,
        "retention": policy.retention,
        "legal_hold": policy.legal_hold,
        "class": policies.retention(organization),
        "stored": [
            {"class": name, "documents": count, "segments": holding[name], "kept_segments": held[name]}
            for name, count in sorted(documents.items())
        ],
        "unread_segments": sum(segment.organizations is None for segment in segments),
    }
