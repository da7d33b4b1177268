"""What the commands that ask a store have in common: the options that say what is looked for, and the store itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from auditship.errors import ConfigurationError
from auditship.settings import load
from auditship.when import When
from indexer.record import Access, recorded, this_user
from indexer.settings import IndexerSettings
from indexer.store.contract import Query, QueryError, Reader
from indexer.store.select import open_reader

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--config", type=click.Path(path_type=Path), help="The indexer's configuration file; its store is read."),
    click.option("--since", type=When(), help="From then on: 24h, 7d or 2026-11-23T10:00:00Z."),
    click.option("--until", type=When(), help="Before then."),
    click.option("--severity", "severities", multiple=True, type=click.Choice(["info", "warning", "critical"])),
    click.option(
        "--dataset", "datasets", multiple=True, help="A gateway, or: rejected, agent, alert, access. All gateways unless given."
    ),
    click.option("--organization", help="An organisation's id."),
    click.option("--actor", help="A person's or token's id, name or e-mail."),
    click.option("--action", help="An action, such as project.update."),
    click.option("--outcome", type=click.Choice(["success", "failure"])),
)


def asking(command: _Command) -> _Command:
    """Adds the options to a command, which takes them as ``config`` and ``**filters``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def query_of(text: str, filters: dict[str, Any], *, datasets: tuple[str, ...] = ()) -> Query:
    """The query that the options ask.

    Raises:
        QueryError: no time is between its two.
    """
    if None not in (filters["since"], filters["until"]) and filters["since"] >= filters["until"]:
        raise QueryError("--since is not before --until: nothing can be found", "24h is a time ago: --since 7d --until 24h.")
    return Query(
        text=text,
        since_ms=filters["since"],
        until_ms=filters["until"],
        severities=filters["severities"],
        datasets=datasets or filters["datasets"],
        organization=filters["organization"],
        actor=filters["actor"],
        action=filters["action"],
        outcome=filters["outcome"],
    )


def record(config: Path | None, command: str, query: Query, **particulars: Any) -> None:
    """Records that this process's user asked the store something; see :mod:`indexer.record`."""
    asked = {name: getattr(query, name) for name in query.__dataclass_fields__ if name != "text"}
    severity: Literal["info", "warning"] = "warning" if command == "export" else "info"
    access = Access(f"audit.{command}", this_user(command), {"query": query.text, **asked, **particulars}, severity)
    recorded(load(IndexerSettings, config), access)


@contextlib.contextmanager
def reading(config: Path | None) -> Iterator[Reader]:
    """The store of a configuration, for reading."""
    settings = load(IndexerSettings, config)
    if settings.store.kind == "embedded":
        _find(settings.store.path)
    with contextlib.closing(open_reader(settings)) as reader:
        yield reader


def _find(store: Path) -> None:
    """Passes an embedded store that is there.

    Raises:
        ConfigurationError: it is not, or it cannot be told.
    """
    try:
        if store.is_dir():
            return
    except OSError as error:
        raise ConfigurationError(f"{store}: {error.strerror}", "The store is for the indexer's user, and for root.") from None
    raise ConfigurationError(f"{store}: no store there", "Name the indexer's configuration with --config.")
