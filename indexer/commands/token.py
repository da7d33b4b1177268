"""``auditship token``: tokens for agents and readers."""

from __future__ import annotations

import secrets

import click

from indexer.access import token_hash


@click.group(name="token")
def token() -> None:
    """Make a token for an agent or a reader."""


@token.command(name="new")
@click.argument("name")
@click.option("--gateway", "gateways", multiple=True, help="A gateway that the token is for; may be given again. None: all.")
@click.option("--reader", is_flag=True, help="A token for searching over HTTP instead of sending.")
def new(name: str, gateways: tuple[str, ...], reader: bool) -> None:
    r"""Print a token once, and the lines for the indexer's configuration.

    The token goes to standard output alone, the lines to standard error:

    \b
    auditship token new gw-1 --gateway web > /etc/auditship/token
    """
    made = secrets.token_urlsafe(32)
    lines = ["[[readers]]" if reader else "[[agents]]", f"name = {_quoted(name)}", f'token_sha256 = "{token_hash(made)}"']
    if gateways:
        lines.append(f"gateways = [{', '.join(map(_quoted, gateways))}]")
    click.echo("# for indexer.toml", err=True)
    click.echo("\n".join(lines), err=True)
    click.echo(made)


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise click.BadParameter("a name has printable characters only")
    return f'"{escaped}"'
