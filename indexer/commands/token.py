"""``auditship token``: tokens for agents and readers."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from auditship.settings import load
from indexer.access import token_hash
from indexer.record import Access, recorded, this_user
from indexer.settings import IndexerSettings


@click.group(name="token")
def token() -> None:
    """Make a token for an agent or a reader."""


@token.command(name="new")
@click.argument("name")
@click.option("--gateway", "gateways", multiple=True, help="A gateway that the token is for; may be given again. None: all.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="The indexer's configuration: that a token was made is recorded."
)
@click.option("--reader", is_flag=True, help="A token for searching over HTTP instead of sending.")
def new(name: str, gateways: tuple[str, ...], config: Path | None, reader: bool) -> None:
    r"""Print a token once, and the lines for the indexer's configuration.

    The token goes to standard output alone, the lines to standard error:

    \b
    auditship token new gw-1 --gateway web --config indexer.toml > /etc/auditship/token
    """
    made = secrets.token_urlsafe(32)
    lines = ["[[readers]]" if reader else "[[agents]]", f"name = {_quoted(name)}", f'token_sha256 = "{token_hash(made)}"']
    if gateways:
        lines.append(f"gateways = [{', '.join(map(_quoted, gateways))}]")
    click.echo("# for indexer.toml", err=True)
    click.echo("\n".join(lines), err=True)
    click.echo(made)
    if config is None:
        click.echo("# not recorded: name the indexer's configuration with --config", err=True)
        return
    details = {"name": name, "for": "reader" if reader else "agent", "gateways": gateways, "token_sha256": token_hash(made)}
    kind = ("iam", "creation")
    recorded(load(IndexerSettings, config), Access("audit.token", this_user("token"), details, "warning", kind, "token"))


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise click.BadParameter("a name has printable characters only")
    return f'"{escaped}"'
