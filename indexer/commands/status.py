"""``auditship status``: how the agents and the store are, told from what agents say of themselves.

Whoever may send as an agent can say anything: what does not have the type of its field counts as not said.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditship import clock
from auditship.log import printable
from indexer.commands.options import reading
from indexer.commands.show import local_time
from indexer.store.body import document_of
from indexer.store.contract import Query, Reader
from indexer.store.fields import VALUE_MAX

DAY_MS: Final = 86_400_000
AGENTS_MAX: Final = 10_000
SILENT_AFTER: Final = 3
"""Heartbeats that may be missing before an agent counts as silent."""
INTERVAL_S: Final = 60.0
INTERVAL_S_MAX: Final = 600.0
SILENT_SHOWN_MAX: Final = 100
NUMBER_MAX: Final = 1 << 53
"""So far every reader of JSON counts."""
AGENT: Final = ("agent",)


@dataclass
class Agent:
    """An agent, by what it said last. ``state``: ``ok``, ``stopped`` or ``silent``."""

    id: str
    name: str = ""
    state: str = "silent"
    heard: str = ""
    streams: int | None = None
    lag_bytes: int | None = None
    lag_s: float | None = None


@dataclass
class Status:
    """What is known of the last 24 hours."""

    store: str
    events: int
    rejected: int
    gaps: int
    gap_bytes: int
    halts: int
    agents: list[Agent] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nobody has to act."""
        return not self.gaps and not self.halts and all(agent.state != "silent" for agent in self.agents)


def status_of(reader: Reader, store: str, now_ms: int) -> Status:
    """Asks a store."""
    since = now_ms - DAY_MS
    gaps = [_gap_bytes(hit.body) for hit in reader.scan(Query(datasets=AGENT, since_ms=since, action="agent.gap"))]
    return Status(
        store,
        events=reader.count(Query(since_ms=since)),
        rejected=reader.count(Query(datasets=("rejected",), since_ms=since)),
        gaps=len(gaps),
        gap_bytes=min(sum(gaps), NUMBER_MAX),
        halts=reader.count(Query(datasets=AGENT, since_ms=since, action="agent.halt")),
        agents=agents_of(reader, now_ms),
    )


def agents_of(reader: Reader, now_ms: int) -> list[Agent]:
    """Every agent that was heard within a day, once however its id is spelt."""
    known = reader.facets(Query(datasets=AGENT, since_ms=now_ms - DAY_MS), ["user.id"], limit=AGENTS_MAX)["user.id"]
    agents = {name.lower(): Agent(name) for name, _ in known}
    recently = Query(datasets=AGENT, since_ms=now_ms - int(INTERVAL_S_MAX * SILENT_AFTER * 1000))
    for hit in reader.scan(recently):
        document = document_of(hit.body)
        name = document["user"]["id"]
        _heard(agents.setdefault(name.lower(), Agent(name)), document, now_ms - hit.time_ms)
    silent = [agent for agent in agents.values() if not agent.heard and len(agent.id) <= VALUE_MAX]
    for agent in silent[:SILENT_SHOWN_MAX]:
        quoted = agent.id.replace("\\", r"\\").replace('"', r"\"")
        page = reader.search(Query(f'user.id:"{quoted}"', datasets=AGENT), limit=1)
        for hit in page.hits:
            _heard(agent, document_of(hit.body), now_ms - hit.time_ms)
    return sorted(agents.values(), key=lambda agent: (agent.state != "silent", agent.id))


def _heard(agent: Agent, document: dict[str, Any], ago_ms: int) -> None:
    """Takes over what an agent said, the later after the earlier."""
    extra = document["audit"].get("extra", {})
    agent.id = document["user"]["id"]
    agent.name = document.get("host", {}).get("name", "")
    agent.heard = document["@timestamp"]
    interval_s = min(_number(extra, "interval_s") or INTERVAL_S, INTERVAL_S_MAX)
    agent.state = "ok" if ago_ms <= interval_s * SILENT_AFTER * 1000 else "silent"
    if document["event"]["action"] == "agent.stop":
        agent.state = "stopped"
    if document["event"]["action"] == "agent.heartbeat":
        agent.streams, agent.lag_bytes = _whole(extra, "streams"), _whole(extra, "lag_bytes")
        agent.lag_s = _number(extra, "lag_s")


def _gap_bytes(body: bytes) -> int:
    """How much a gap took, where the agent knows."""
    return _whole(document_of(body)["audit"].get("extra", {}).get("gap"), "bytes") or 0


def _number(said: Any, name: str) -> float | None:
    """A number that an agent said, where it is one and can be meant."""
    number = said.get(name) if isinstance(said, dict) else None
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return number if 0 <= number <= NUMBER_MAX else None


def _whole(said: Any, name: str) -> int | None:
    """The same, of what is counted."""
    number = _number(said, name)
    return None if number is None else int(number)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The indexer's configuration file; its store is read.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, also on a terminal.")
def status(config: Path | None, as_json: bool) -> None:
    r"""Show agents, their lag, rejected lines and gaps of the last 24 hours.

    \b
    auditship status --config indexer.toml
    auditship status --config indexer.toml --json

    The status is 0 when all is well, and 1 when an agent is silent, a stream is halted, or lines could not be read.
    """
    with reading(config) as reader:
        found = status_of(reader, type(reader).__name__.removesuffix("Reader").lower(), clock.now_ms())
    if as_json or not sys.stdout.isatty():
        click.echo(orjson.dumps({"good": found.is_good, **asdict(found)}).decode())
    else:
        _show(found)
    sys.exit(0 if found.is_good else 1)


def _show(found: Status) -> None:
    """The same for people."""
    console = Console()
    table = Table("Agent", "Host", "State", "Heard", "Streams", "Lag bytes", "Lag s", box=None, header_style="bold")
    for agent in found.agents:
        numbers = ["" if value is None else f"{value:,}" for value in (agent.streams, agent.lag_bytes, agent.lag_s)]
        style = {"silent": "bold red", "stopped": "dim"}.get(agent.state, "")
        names = [Text(printable(name)) for name in (agent.id, agent.name)]
        table.add_row(*names, agent.state, local_time(agent.heard), *numbers, style=style)
    console.print(table if found.agents else "No agent has been heard within 24 hours.")
    console.print(f"\nThe last 24 hours in the {found.store} store: {found.events:,} events, {found.rejected:,} rejected lines")
    if found.gaps:
        console.print(f"{found.gaps:,} gaps: {found.gap_bytes:,} bytes could not be read and never will be", style="bold red")
    if found.halts:
        console.print(f"{found.halts:,} times a stream was halted", style="bold red")
    if found.gaps or found.halts:
        console.print("Which, where and why: auditship search --dataset agent --severity critical", style="bold red")
