"""The outbox: whatever a channel answers and whenever the process dies, each message comes to one end, and to people."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from auditship.clock import now_ms
from auditship.errors import ConfigurationError
from indexer.alerts.cause import Causes
from indexer.alerts.channel import Delivered, Later, Outcome, Refused
from indexer.alerts.counts import Counts
from indexer.alerts.deliver import Deliverer, Limits
from indexer.alerts.escalate import Escalation
from indexer.alerts.event import Event
from indexer.alerts.message import Links, Message, made, message_of
from indexer.alerts.outbox import Outbox, OutboxError
from indexer.alerts.post import Post
from indexer.alerts.settings import AlertsSettings
from indexer.alerts.silence import Agent, Silence

CHANNELS = [
    {"name": "first", "kind": "webhook", "url": "http://127.0.0.1:1/", "fallback": "spare"},
    {"name": "second", "kind": "webhook", "url": "http://127.0.0.1:1/"},
    {"name": "spare", "kind": "webhook", "url": "http://127.0.0.1:1/", "only_escalations": True},
]
OUTCOMES = st.sampled_from([Delivered(), Later("busy"), Later("no", needs_help=True), Later("wait", 0.0), Refused("never")])


class Died(BaseException):
    """kill -9, at the worst moment: after the other side has taken it, before anything is kept."""


class Scripted:
    """A channel that does what it is told next."""

    def __init__(self) -> None:
        self.outcome: Outcome = Delivered()
        self.dies = False
        self.taken: Counter[str] = Counter()

    def send(self, message: Message) -> Outcome:
        if isinstance(self.outcome, Delivered):
            self.taken[message.id] += 1
        if self.dies:
            raise Died
        return self.outcome


class Machine(RuleBasedStateMachine):
    """Messages, answers, deaths and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.settings = AlertsSettings(
            state_dir=self.folder, channel=CHANNELS, retry_interval_max_s=0.001, escalate_after_s=0.001
        )  # type: ignore[arg-type]
        self.channels = {each["name"]: Scripted() for each in CHANNELS}
        self.posted: list[str] = []
        self.refused: set[tuple[str, str]] = set()
        self.helped: set[str] = set()
        self.deaths: Counter[tuple[str, str]] = Counter()
        self._open()

    def _open(self) -> None:
        counts = Counts()
        self.outbox = Outbox(self.folder, pending_max=1000)
        self.post = Post(self.settings.channel, self.outbox, counts)
        self.escalation = Escalation(self.settings, self.outbox, counts, wake=self.post.wake, witness=lambda *_: None)
        limits = Limits(0.001, 3600)
        self.deliverers = {
            each.name: Deliverer(
                each,
                self.channels[each.name],
                outbox=self.outbox,
                counts=counts,
                limits=limits,
                helpless=self.escalation.helpless,
            )
            for each in self.settings.channel
        }

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)

    @rule(number=st.integers(1, 3))
    def messages_are_posted(self, number: int) -> None:
        messages = []
        for _ in range(number):
            identity = f"c{len(self.posted)}.1"
            self.posted.append(identity)
            messages.append(made(id=identity, cause=identity, kind="alert", severity="critical", title="t", timestamp=""))
        self.post.put(messages, now_ms())

    @rule(name=st.sampled_from(["first", "second", "spare"]), outcome=OUTCOMES)
    def a_channel_has_its_turn(self, name: str, outcome: Outcome) -> None:
        channel, before = self.channels[name], self._states()
        channel.outcome = outcome
        self.deliverers[name].step()
        for key, state in self._states().items():
            if before.get(key) != state and key[1] == name and state != "pending":
                assert (state, type(outcome)) in {("delivered", Delivered), ("refused", Refused)}
                if state == "refused":
                    self.refused.add(key)

    @precondition(lambda self: self.posted)
    @rule(name=st.sampled_from(["first", "second", "spare"]), outcome=OUTCOMES)
    def the_process_dies_while_it_sends(self, name: str, outcome: Outcome) -> None:
        channel = self.channels[name]
        channel.outcome, channel.dies = outcome, True
        waiting = self.outbox.next_due(name, 2**50, 0)
        try:
            self.deliverers[name].step()
        except Died:
            assert waiting is not None
            self.deaths[waiting.message.id, name] += 1
        channel.dies = False
        self.outbox.close()
        self._open()

    @rule()
    def the_process_dies_in_a_transaction(self) -> None:
        with suppress(Died), self.outbox.transaction():
            self.post.put([message(-1)], now_ms())
            self.outbox.move("feed", "never")
            raise Died
        assert self.outbox.cursor("feed") is None

    @rule()
    def it_is_looked_who_waits_too_long(self) -> None:
        self.escalation.look()

    def _states(self) -> dict[tuple[str, str], str]:
        sql = "SELECT id, channel, state FROM delivery JOIN message ON number = message"
        return {(identity, channel): state for identity, channel, state in self.outbox._all(sql)}

    @invariant()
    def nothing_is_lost_and_nothing_is_told_without_need(self) -> None:
        states = self._states()
        assert {identity for identity, _ in states} == set(self.posted)
        for identity in self.posted:
            for name in ("first", "second"):
                state = states[identity, name]
                taken = self.channels[name].taken[identity]
                assert state in {"pending", "delivered", "refused"}
                assert taken <= 1 + self.deaths[identity, name]
                if state == "delivered":
                    assert taken >= 1
            if states[identity, "first"] == "refused":
                assert (identity, "spare") in states, "nobody else was told"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def message(number: int) -> Message:
    return made(id=f"m{number}", cause="c", kind="alert", severity="critical", title="t", timestamp="")


def test_a_full_disk_makes_no_message_come_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, channel = Outbox(tmp_path, pending_max=10), Scripted()
    (settings, *_) = AlertsSettings(state_dir=tmp_path, channel=CHANNELS).channel  # type: ignore[arg-type]
    deliverer = Deliverer(settings, channel, outbox=outbox, counts=Counts(), limits=Limits(1, 3600), helpless=lambda *_: None)
    for number in range(2):
        outbox.post(message(number), {"first": None}, now_ms())

    def full(*_: object) -> None:
        raise OutboxError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "done", full)
        assert all(deliverer.step() for _ in range(3))
    assert [deliverer.step() for _ in range(2)] == [0.0, 0.0]
    assert channel.taken == {"m0": 1, "m1": 1}
    assert outbox.pending("first") == 0
    outbox.close()


def test_a_channel_has_a_limit_and_the_others_do_not_suffer_from_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, pending_max=2)
    assert [outbox.post(message(number), {"a": "b"}, 0) for number in range(3)] == [[], [], ["a"]]
    assert (outbox.pending("a"), outbox.pending("b")) == (2, 1)  # the fallback has what the other had no room for
    assert outbox.post(message(4), {"a": "b", "b": None}, 0) == ["a"]
    assert outbox.post(message(5), {"a": "b"}, 0) == ["a"]
    assert (outbox.pending("a"), outbox.pending("b")) == (2, 2)
    outbox.close()


def test_a_message_that_was_told_already_stops_nothing(tmp_path: Path) -> None:
    """An event that was forgotten and is read again, by a cause that has ended, makes a message of the same id."""
    outbox = Outbox(tmp_path, pending_max=10)
    outbox.post(message(1), {"a": None}, 0)
    with outbox.transaction():
        assert outbox.post(message(1), {"a": None, "b": None}, 5) == []
        outbox.move("feed", "behind it")
    assert outbox.cursor("feed") == "behind it"
    assert (outbox.pending("a"), outbox.pending("b")) == (1, 0)
    outbox.close()


def escalating(tmp_path: Path, pending_max: int) -> tuple[Outbox, Escalation, Counts]:
    settings, counts = AlertsSettings(state_dir=tmp_path, channel=CHANNELS), Counts()  # type: ignore[arg-type]
    outbox = Outbox(tmp_path, pending_max=pending_max)
    return outbox, Escalation(settings, outbox, counts, wake=lambda _: None, witness=lambda *_: None), counts


def test_a_fallback_has_a_limit_too_and_what_it_has_no_room_for_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox, escalation, counts = escalating(tmp_path, 3)
    outbox.post(message(0), {"spare": None}, 0)
    for number in (1, 2, 3):
        outbox.post(message(number), {"first": "spare"}, 0)
    for delivery in outbox.overdue("first", 0):
        escalation.helpless(delivery, "refused")
    assert outbox.pending("spare") == 3
    assert "spare has too much waiting (pending_max): nobody was told" in caplog.text
    assert counts.values()["given_up", ("spare",)] == 1
    outbox.close()


def test_a_fallback_that_has_the_message_already_is_not_said_to_be_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox, escalation, _ = escalating(tmp_path, 10)
    outbox.post(message(1), {"first": "spare", "spare": None}, 0)
    (delivery,) = outbox.overdue("first", 0)
    escalation.helpless(delivery, "refused")
    assert "and spare has it already" in caplog.text
    assert "instead" not in caplog.text
    outbox.close()


def test_a_fallback_that_refused_the_message_is_not_said_to_have_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox, escalation, _ = escalating(tmp_path, 10)
    outbox.post(message(1), {"first": "spare", "spare": None}, 0)
    (refused,) = outbox.overdue("spare", 0)
    outbox.done(refused, "refused", "no such user")
    (delivery,) = outbox.overdue("first", 0)
    escalation.helpless(delivery, "refused")
    assert "and spare could not deliver it either" in caplog.text
    outbox.close()


def test_a_defect_ends_no_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    outbox, channel = Outbox(tmp_path, pending_max=10), Scripted()
    (settings, *_) = AlertsSettings(state_dir=tmp_path, channel=CHANNELS).channel  # type: ignore[arg-type]
    deliverer = Deliverer(settings, channel, outbox=outbox, counts=Counts(), limits=Limits(1, 3600), helpless=lambda *_: None)
    outbox.post(message(1), {"first": None}, now_ms())
    next_due, calls = outbox.next_due, iter([True])

    def failing(*arguments: Any) -> Any:
        if next(calls, False):
            raise RuntimeError("who would have thought")
        return next_due(*arguments)

    monkeypatch.setattr(outbox, "next_due", failing)
    monkeypatch.setattr("indexer.alerts.deliver.IDLE_S", 0.01)
    deliverer.start()
    deadline = now_ms() + 20_000
    while not channel.taken and now_ms() < deadline:
        deliverer.wake()
    deliverer.end()
    deliverer.join(20)
    assert channel.taken == {"m1": 1}
    assert "channel first: a defect; tried again" in caplog.text
    outbox.close()


def test_what_is_wrong_with_the_file_is_said_with_what_helps(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, pending_max=10)
    outbox._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OutboxError, match="full") as full:
        outbox.move("feed", "x" * 1_000_000)
    assert "Make room" in full.value.hint
    with pytest.raises(OutboxError, match="full") as within, outbox.transaction():
        outbox.move("feed", "x" * 1_000_000)
    assert "Make room" in within.value.hint
    outbox.close()


def test_a_clock_that_was_set_back_holds_nothing_up(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, pending_max=10)
    outbox.post(message(1), {"a": None}, 10_000_000)
    delivery = outbox.next_due("a", 10_000_000, 1000)
    assert delivery is not None
    outbox.later(delivery, 10_000_500, "busy")
    assert outbox.next_due("a", 10_000_000, 1000) is None
    assert outbox.next_due("a", 5_000_000, 1000) is not None
    outbox.close()


def test_what_is_told_of_a_cause_keeps_its_order_in_a_channel_and_holds_up_no_other_cause(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, pending_max=10)

    def due(channel: str = "a", now_ms: int = 10) -> str:
        delivery = outbox.next_due(channel, now_ms, 1_000_000)
        return delivery.message.id if delivery else ""

    def posted(*ids: str) -> None:
        for identity in ids:
            told = made(id=identity, cause=identity[:-2], kind="alert", severity="critical", title="t", timestamp="")
            outbox.post(told, {"a": None, "b": None}, 0)

    posted("cafe.1", "cafe0.1", "cafe.2")
    (first, *_) = outbox.overdue("a", 0)
    outbox.later(first, 60_000, "busy")
    assert (due(), due("b")) == ("cafe0.1", "cafe.1")
    outbox.later(outbox.overdue("a", 0)[1], 70_000, "busy")
    posted("cafe.3")
    assert due() == ""
    assert due(now_ms=60_000) == "cafe.1"
    outbox.done(first, "refused")
    assert due() == "cafe.2"
    outbox.close()


def test_what_is_damaged_stops_nothing_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with closing(Outbox(tmp_path, pending_max=10)) as outbox:
        event = Event("e", "web", 0, "", "critical", organization="org-1", actor="Zoë", action="secret.read")
        causes = Causes(quiet_s=900, update_s=60)
        (told,) = causes.take([event], 1_000)
        outbox.keep(causes.changed)
        outbox.post(message_of(told, Links()), {"a": None}, 0)
        outbox.keep_agents(Silence.packed({"gw-1": Agent("höst", 1_000, 60.0)}))
        rows = {table: outbox._all(f"SELECT id, body FROM {table}")[0] for table in ("message", "cause", "agent")}
        for _ in range(300):
            outbox.keep(causes.changed)
            for table, (identity, body) in rows.items():
                torn = bytearray(body)
                torn[chance.randrange(len(torn))] ^= chance.randrange(1, 256)
                outbox._change(f"UPDATE {table} SET body = ? WHERE id = ?", bytes(torn), identity)
            delivery = outbox.next_due("a", 0, 1000)
            assert delivery is not None
            assert delivery in outbox.overdue("a", 0)
            if delivery.message.title == "a message that is damaged":
                assert (delivery.message.id, delivery.message.cause) == (f"{told.cause.id}.1", told.cause.id)
            outbox.causes()
            Silence(outbox.agents(), silent_after_s=300)
        assert "is damaged, it begins anew" in caplog.text
        assert "agent gw-1: what was known of it is damaged" in caplog.text


def test_what_was_delivered_is_forgotten_after_a_week_and_what_waits_is_not(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, pending_max=10)
    for number in (1, 2):
        outbox.post(message(number), {"a": None}, 0)
    delivery = outbox.next_due("a", 0, 1000)
    assert delivery is not None
    outbox.done(delivery, "delivered")
    outbox.unseen("feed", [(1000, "x"), (900_000_000, "y")])
    outbox.forget(8 * 86_400_000, 800_000_000)
    assert [row[0] for row in outbox._all("SELECT id FROM message")] == ["m2"]
    assert outbox.unseen("feed", [(1000, "x"), (900_000_000, "y")]) == {"x"}
    outbox.close()


def test_a_file_that_is_no_outbox_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"something else entirely, which nobody wants to lose" * 100)
    with pytest.raises(ConfigurationError, match=r"outbox\.sqlite"):
        Outbox(tmp_path, pending_max=10)


def test_a_file_that_cannot_be_opened_is_said_and_the_directory_let_go(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(ConfigurationError, match=r"outbox\.sqlite: Is a directory\nWhat has to be told is kept in this file"):
        Outbox(tmp_path, pending_max=10)
    (tmp_path / "outbox.sqlite").rmdir()
    Outbox(tmp_path, pending_max=10).close()
