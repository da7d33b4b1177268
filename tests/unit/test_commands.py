"""The commands that read a store, as an analyst meets them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from sample_entries import entry, utc
from stores import NOW_MS, Store

from indexer.commands import status as status_module
from indexer.commands.status import Agent, Status, agents_of, status_of
from indexer.document import Entry
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "store"
    return Store(lambda: EmbeddedWriter(folder, lambda: NOW_MS), EmbeddedReader(folder, lambda: NOW_MS), lambda: None)


def said(number: int, agent: str = "gw-1", *, action: str = "agent.heartbeat", ago_ms: int = 1000, **extra: Any) -> Entry:
    """What an agent says of itself."""
    more = {"user": {"id": agent}, "event": {"action": action}, "audit": {"extra": extra}}
    return entry(number, dataset="agent", time_ms=NOW_MS - ago_ms, **more)


@pytest.mark.parametrize("odd", ["abc", [], True, -1, 1e300, 2**64 - 1, {"bytes": "x"}], ids=str)
def test_an_odd_line_of_an_agents_own_record_counts_as_not_said(store: Store, odd: Any) -> None:
    names = ("interval_s", "streams", "lag_bytes", "lag_s")
    store.append([said(1, **dict.fromkeys(names, odd)), said(2, "gw-2", interval_s=60, streams=3, lag_bytes=500, lag_s=1.5)])
    store.append([said(3, action="agent.gap", gap=odd), said(4, action="agent.gap", gap={"bytes": odd})])
    store.append([said(5, action="agent.gap", gap={"bytes": 7})])
    found = status_of(store.reader, "embedded", NOW_MS)
    assert [(each.id, each.state, each.streams, each.lag_bytes, each.lag_s) for each in found.agents] == [
        ("gw-1", "ok", None, None, None),
        ("gw-2", "ok", 3, 500, 1.5),
    ]
    assert (found.gaps, found.gap_bytes) == (3, 7)


def test_however_much_agents_say_is_lost_the_status_can_be_written(store: Store) -> None:
    store.append([said(number, action="agent.gap", gap={"bytes": 1 << 53}) for number in range(2049)])
    assert orjson.dumps(status_of(store.reader, "embedded", NOW_MS).gap_bytes)


def test_an_agent_is_listed_once_and_as_it_writes_itself(store: Store) -> None:
    hours = 3_600_000
    odd = ('Gw-Old"\\', "Gw*", "a\nb", "x" * 20_000)
    store.append([said(1, "GW-1"), said(2, "gw-1", ago_ms=60_000)])
    store.append([said(10 + number, name, ago_ms=5 * hours) for number, name in enumerate(odd)])
    store.append([entry(3, dataset="agent", time_ms=NOW_MS - hours, user={"id": "x", "name": odd[0]})])
    found = {each.id: each for each in agents_of(store.reader, NOW_MS)}
    assert set(found) == {"GW-1", "x", *odd}
    assert found["GW-1"].state == "ok"
    assert {found[name].heard for name in odd[:3]} == {utc(NOW_MS - 5 * hours)}


def test_what_an_agent_calls_itself_is_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(status_module, "Console", lambda: Console(file=shown, width=200))
    hostile = "[/red][bold]gw\x1b[2J"
    status_module._show(Status("embedded", 0, 0, 0, 0, 0, [Agent(hostile, name="[/]", state="ok")]))
    assert r"[/red][bold]gw\x1b[2J" in shown.getvalue()
