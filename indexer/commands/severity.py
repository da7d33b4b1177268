"""``auditship severity``: the rules by which an organisation's events are judged, in the order in which they are tried."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.table import Table as Grid

from auditship.settings import load
from indexer.commands.show import STYLES
from indexer.enrich.severity import Severities
from indexer.organizations import Policies
from indexer.settings import IndexerSettings

WIDTH: Final = 200
"""Characters in a line of what is not a terminal."""
COLUMNS: Final = ("Severity", "Reason", "Action", "If", "From")


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The indexer's configuration file; its rules are read.")
@click.option("--organization", default="", help="An organisation's id; without it, what holds for those without a policy.")
@click.option("--action", help="Only the rules that can judge this action, such as project.update.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.option("--markdown", "as_markdown", is_flag=True, help="A table for a document.")
def severity(config: Path | None, organization: str, action: str | None, as_json: bool, as_markdown: bool) -> None:
    r"""Show by which rules an organisation's events are judged. The first that matches counts.

    \b
    auditship severity --config indexer.toml --organization org-7
    auditship severity --action role.assign
    """
    settings = load(IndexerSettings, config).enrichment
    policies = Policies.load(settings.organizations, "30d")
    found = rows(Severities.load(settings.severity_rules, policies.severity), organization, action)
    if as_json:
        click.echo(orjson.dumps(found).decode())
        return
    if as_markdown:
        click.echo(markdown(found), nl=False)
        return
    grid = Grid(*COLUMNS)
    for each in found:
        grid.add_row(*cells(each), each["from"], style=STYLES.get(each["severity"], ""))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(grid)


def rows(severities: Severities, organization: str, action: str | None = None) -> list[dict[str, Any]]:
    """The rules that hold for an organisation, as data; only those that can judge an action, if one is named."""
    table = severities.table(organization)
    rules = table.rules if action is None else table.judging(action)
    return [
        {"from": origin, **rule.model_dump(exclude_none=True, exclude_defaults=True, mode="json")} for origin, rule in rules
    ]


def markdown(found: list[dict[str, Any]]) -> str:
    """The rules as a table, but for where each stands."""
    lines = [COLUMNS[:-1], ("---",) * (len(COLUMNS) - 1)]
    for row in found:
        severity, reason, action, conditions = cells(row)
        lines.append((severity, reason, _code(action), "; ".join(_code(each, after=": ") for each in conditions.split("; "))))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(text: str, *, after: str = "") -> str:
    """Globs as code: a star between them is none of Markdown's."""
    name, mark, globs = text.partition(after) if after else ("", "", text)
    return name + mark + ", ".join(f"`{glob}`" for glob in globs.split(", ") if glob)


def cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """A rule's text in each column but the last."""
    conditions = [f"{name}: {_text(row[name])}" for name in ("status", "resource", "role", "target") if name in row]
    return row["severity"], row.get("reason", ""), _text(row["action"]), "; ".join(conditions)


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
