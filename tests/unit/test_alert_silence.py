"""Agents that fall silent, and a store that does: told once each, together where they fall together, and when it is over."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sample_entries import entry, utc
from stores import Store

from indexer.alerts.counts import Counts
from indexer.alerts.event import Event
from indexer.alerts.follow import Follower, feeds
from indexer.alerts.message import Links, Message
from indexer.alerts.outbox import Outbox, OutboxError
from indexer.alerts.run import Alerts
from indexer.alerts.settings import AlertsSettings
from indexer.alerts.silence import FORGOTTEN_S, Silence
from indexer.alerts.trouble import StoreTrouble
from indexer.alerts.watch import AgentWatch, CauseWatch
from indexer.settings import IndexerSettings, StoreSettings
from indexer.store.contract import Arrivals, Unavailable
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter

START_MS = 1_795_458_000_000
CHANNEL = {"name": "a", "kind": "webhook", "url": "http://127.0.0.1:1/"}


def beat(agent: str, at_s: float, *, action: str = "agent.heartbeat", interval_s: float = 60.0) -> Event:
    return Event(
        id=f"{agent} {at_s}",
        dataset="agent",
        ingested_ms=ms(at_s),
        timestamp="",
        severity="info",
        actor_id=agent,
        host=f"{agent}.example",
        action=action,
        interval_s=interval_s,
    )


def ms(at_s: float) -> int:
    return START_MS + round(at_s * 1000)


def silence(known: dict[str, bytes] | None = None) -> Silence:
    return Silence(known or {}, silent_after_s=300)


def test_each_of_a_few_is_told_once_and_so_is_its_return_also_after_a_restart() -> None:
    agents = silence()
    agents.take([beat("a", 0), beat("b", 100)], ms(100))
    assert agents.judge(ms(300)) == []
    (first,) = agents.judge(ms(301))
    assert (first.kind, first.title) == ("alert", "agent a on a.example is silent")
    assert agents.judge(ms(350)) == []
    kept = {name: body for name, body in agents.changed().items() if body is not None}
    agents = silence(kept)
    assert [each.title for each in agents.judge(ms(401))] == ["agent b on b.example is silent"]
    (over,) = agents.take([beat("a", 500)], ms(500))
    assert (over.kind, over.cause) == ("recovery", first.cause)
    assert agents.take([beat("a", 560)], ms(560)) == []
    (again,) = agents.judge(ms(900))
    assert again.cause != first.cause


def test_many_that_fall_silent_together_are_one_alert_which_is_over_when_all_are_back() -> None:
    agents = silence()
    names = [f"gw-{number}" for number in range(500)]
    agents.take([beat(name, 0) for name in names], ms(0))
    (told,) = agents.judge(ms(301))
    assert told.title == "500 agents are silent"
    assert told.count == 500
    assert told.resource.endswith("and 495 more")
    assert agents.take([beat(name, 400) for name in names[1:]], ms(400)) == []
    assert [each.cause for each in agents.take([beat(names[0], 401)], ms(401))] == [told.cause]


def test_one_that_stops_in_order_and_one_that_speaks_seldom_are_not_silent() -> None:
    agents = silence()
    agents.take([beat("stopped", 0, action="agent.stop"), beat("seldom", 0, interval_s=600)], ms(0))
    assert agents.judge(ms(1700)) == []
    assert [each.title for each in agents.judge(ms(1801))] == ["agent seldom on seldom.example is silent"]
    agents.take([beat("stopped", 2000, action="agent.start")], ms(2000))
    assert [each.title for each in agents.judge(ms(2400))] == ["agent stopped on stopped.example is silent"]


def test_a_heartbeat_from_the_future_does_not_hide_silence() -> None:
    agents = silence()
    agents.take([beat("a", 86_400)], ms(0))
    assert len(agents.judge(ms(301))) == 1


def test_a_clock_that_was_ahead_hides_neither_silence_nor_an_outage(tmp_path: Path) -> None:
    year_s = 365 * 86_400
    agents = silence()
    agents.take([beat("a", year_s), beat("stopped", year_s)], ms(year_s))
    agents.take([beat("stopped", 0, action="agent.stop")], ms(0))
    assert agents.judge(ms(0)) == []
    (told,) = agents.judge(ms(301))
    assert told.title == "agent a on a.example is silent"

    store = StoreTrouble(300)
    assert store.failed("refused", ms(year_s)) == store.failed("refused", ms(0)) == []
    assert len(store.failed("refused", ms(300))) == 1

    settings = AlertsSettings(state_dir=tmp_path, channel=[CHANNEL])  # type: ignore[list-item]
    with closing(Outbox(tmp_path, pending_max=1)) as outbox:
        watch = AgentWatch(outbox, settings, grace_s=300)
        watch.take([beat("a", 0)], ms(0))
        assert [watch.tick(ms(at_s)) for at_s in (year_s, 0, 299)] == [(), (), ()]
        assert len(watch.tick(ms(301))) == 1


def test_a_machine_that_was_asleep_judges_nobody_before_it_has_heard_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual machine that was paused: the wall clock has gone on, and the feed of heartbeats is not due by the other one."""
    wall_ms, monotonic = [START_MS], [0.0]
    monkeypatch.setattr("auditship.clock.now_ms", lambda: wall_ms[0])
    monkeypatch.setattr("indexer.alerts.follow.time", SimpleNamespace(monotonic=lambda: monotonic[0]))
    store = Store(lambda: EmbeddedWriter(tmp_path, lambda: wall_ms[0]), EmbeddedReader(tmp_path, lambda: wall_ms[0]), list)
    settings, told = AlertsSettings(channel=[CHANNEL]), []  # type: ignore[list-item, var-annotated]

    def heard(number: int) -> None:
        event = {"action": "agent.heartbeat", "ingested": utc(wall_ms[0])}
        store.append([entry(number, dataset="agent", audit={"severity": "info"}, event=event, user={"id": "gw-1"})])

    with closing(Outbox(tmp_path / "state", pending_max=10)) as outbox:
        causes, agents = CauseWatch(outbox, settings, Links()), AgentWatch(outbox, settings, grace_s=0)
        watched = feeds(settings, causes, agents)
        post = lambda messages, _: told.extend(messages)  # noqa: E731
        follower = Follower(store.reader, outbox, settings, feeds=watched, post=post, counts=Counts())

        def looks(*, after_s: float, awake_s: float) -> int:
            wall_ms[0] += round(after_s * 1000)
            monotonic[0] += awake_s
            follower.look()
            follower.tick()
            return len(told)

        looks(after_s=0, awake_s=0)
        heard(1)
        looks(after_s=10, awake_s=10)
        wall_ms[0] += 600_000
        heard(2)
        assert looks(after_s=1, awake_s=1) == 0
        assert looks(after_s=10, awake_s=10) == 0
        assert looks(after_s=300, awake_s=300) == 1


def test_a_message_is_put_up_as_of_now_however_long_a_look_takes_and_time_is_judged_as_of_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall_ms, put, ticked = [START_MS], [], []  # type: ignore[var-annotated]
    monkeypatch.setattr("auditship.clock.now_ms", lambda: wall_ms[0])
    store = Store(lambda: EmbeddedWriter(tmp_path, lambda: wall_ms[0]), EmbeddedReader(tmp_path, lambda: wall_ms[0]), list)
    settings = AlertsSettings(channel=[CHANNEL])  # type: ignore[list-item]

    class Slow:
        """A store of which each portion takes three minutes."""

        def arrivals(self, *args: Any, **kwargs: Any) -> Iterator[Arrivals]:
            for each in store.reader.arrivals(*args, **kwargs):
                wall_ms[0] += 180_000
                yield each

    class Watched(CauseWatch):
        def tick(self, now_ms: int) -> Sequence[Message]:
            ticked.append(now_ms)
            return super().tick(now_ms)

    with closing(Outbox(tmp_path / "state", pending_max=10)) as outbox:
        watched = feeds(settings, Watched(outbox, settings, Links()), AgentWatch(outbox, settings, grace_s=0))
        post = lambda messages, now_ms: put.extend((wall_ms[0] - now_ms, each.kind) for each in messages)  # noqa: E731
        follower = Follower(Slow(), outbox, settings, feeds=watched, post=post, counts=Counts())  # type: ignore[arg-type]
        follower.look()
        follower.tick()
        began_ms = wall_ms[0]
        event = {"action": "secret.read", "ingested": utc(wall_ms[0])}
        store.append([entry(1, audit={"severity": "critical"}, event=event)])
        follower.look()
        follower.tick()
        assert put == [(0, "alert")]
        assert ticked == [START_MS, began_ms]


def test_an_old_heartbeat_that_arrives_late_is_no_return() -> None:
    agents = silence()
    agents.take([beat("a", 0)], ms(0))
    assert len(agents.judge(ms(400))) == 1
    assert agents.take([beat("a", 60)], ms(500)) == []


def test_what_was_said_before_the_last_word_changes_nothing() -> None:
    agents = silence()
    agents.take([beat("a", 100), beat("a", 50, action="agent.stop")], ms(100))
    assert len(agents.judge(ms(401))) == 1


def test_one_that_has_been_away_for_a_week_is_forgotten() -> None:
    agents = silence()
    agents.take([beat("a", 0)], ms(0))
    agents.judge(ms(301))
    agents.changed()
    agents.judge(ms(FORGOTTEN_S + 1))
    assert agents.changed() == {"a": None}


def test_a_store_that_does_not_answer_is_told_after_a_while_and_when_it_does_again() -> None:
    store = StoreTrouble(300)
    assert store.failed("refused", ms(0)) == []
    assert store.answered(ms(200)) == []
    store.over()
    assert store.failed("refused", ms(300)) == []
    (told,) = store.failed("refused", ms(601))
    assert told.title == "the store cannot be read"
    assert store.failed("refused", ms(700)) == []
    (over,) = store.answered(ms(800))
    assert (over.kind, over.cause) == ("recovery", told.cause)
    assert store.answered(ms(800)) == [over], "until it has been put up"
    store.over()
    assert store.answered(ms(801)) == []


def test_an_alert_of_the_store_that_could_not_be_put_up_is_made_again() -> None:
    store = StoreTrouble(300)
    assert store.failed("refused", ms(0)) == []
    (lost,) = store.failed("refused", ms(300))
    store.untold()
    (told,) = store.failed("refused", ms(302))
    assert told.title == lost.title
    assert store.failed("refused", ms(304)) == []


def test_what_was_told_of_the_store_is_over_for_the_next_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed or reloaded meanwhile: the recovery comes with the alert's own cause, so that its incident ends."""
    store = IndexerSettings(store=StoreSettings(path=tmp_path / "store"))
    settings = AlertsSettings(state_dir=tmp_path, channel=[CHANNEL], silent_after_s=0.001)  # type: ignore[list-item]

    def told() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as outbox:
            return [identity for (identity,) in outbox.execute("SELECT id FROM message ORDER BY number")]

    first = Alerts(settings, store, once=True)
    with monkeypatch.context() as patch:
        patch.setattr(first.outbox, "post", lambda *_: (_ for _ in ()).throw(OutboxError("disk is full")))
        for _ in range(2):
            first._failed(Unavailable("nobody there"))
            time.sleep(0.01)
    assert told() == []
    first._failed(Unavailable("nobody there"))
    first._failed(Unavailable("nobody there"))
    (alert,) = told()
    first.outbox.close()
    second = Alerts(settings, store, once=True)
    second._look()
    second._look()
    assert told() == [alert, alert.replace(".1", ".2")]
    second.outbox.close()
    third = Alerts(settings, store, once=True)
    third._look()
    assert len(told()) == 2
    third.outbox.close()
