"""Who looks at the record is itself on record: once for each thing that is asked, never in the way, and never without end."""

from __future__ import annotations

import asyncio
import pwd
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.json import decode
from sample_entries import entry
from stores import Store

from auditship.cli import cli
from auditship.settings import load
from indexer import recorder as recorder_module
from indexer.configured import record_configuration
from indexer.document import Entry
from indexer.record import MANY, TEXT_MAX, Access, Maker, Who, this_user
from indexer.recorder import QUESTIONS_MAX, Recorder
from indexer.settings import IndexerSettings, StoreSettings
from indexer.store.contract import Query, Reader, Refused, Unavailable, Verdict
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter

ADA = Who("api_token", "ada", "HTTP", "203.0.113.7")
RECORDED = Query(datasets=("access",))


class Memory:
    """A store that takes everything, or nothing."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.is_down = False
        self.failures = 0
        self.redelivered: list[bool] = []

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        self.redelivered.append(redelivered)
        if self.is_down:
            raise Unavailable("the disk is full")
        self.entries += entries
        return [Verdict.CREATED] * len(entries)

    async def ready(self) -> None: ...

    async def close(self) -> None: ...

    def failed(self) -> None:
        self.failures += 1

    def recorder(self) -> Recorder:
        return Recorder(self, Maker("30d"), self.failed)

    def extras(self) -> list[dict[str, Any]]:
        return [decode(each.body)["audit"]["extra"] for each in self.entries]


def test_a_page_that_loads_itself_again_is_recorded_once_and_counted() -> None:
    memory = Memory()

    async def work() -> None:
        recorder = memory.recorder()
        for hits in range(500):
            await recorder.searched(ADA, {"query": "a"}, hits)
        await recorder.searched(ADA, {"query": "b"}, 3)
        await recorder.flush(is_last=True)

    asyncio.run(work())
    assert memory.extras() == [
        {"query": "a", "hits": 0},
        {"query": "b", "hits": 3},
        {"query": "a", "hits": 499, "again": 499},
    ]


def test_a_window_that_is_over_is_written_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    monkeypatch.setattr(recorder_module, "LOOK_S", 0.01)
    monkeypatch.setattr(recorder_module, "WINDOW_S", 0.0)

    async def work() -> None:
        recorder = memory.recorder()
        await recorder.searched(ADA, {"query": "a"}, 1)
        await recorder.searched(ADA, {"query": "a"}, 2)
        task = asyncio.create_task(recorder.run())
        async with asyncio.timeout(30):
            while len(memory.entries) < 2:  # noqa: ASYNC110 - the task under test knows no event
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(work())
    assert memory.extras()[1] == {"query": "a", "hits": 2, "again": 1}


def test_whoever_asks_without_end_fills_no_store() -> None:
    memory = Memory()

    async def work() -> None:
        recorder = memory.recorder()
        for number in range(2000):
            await recorder.searched(ADA, {"query": f"q{number}"}, 1)
        await recorder.flush(is_last=True)

    asyncio.run(work())
    assert len(memory.entries) == QUESTIONS_MAX + 2
    assert memory.extras()[-1] == {"query": MANY, "hits": 1, "again": 2000 - QUESTIONS_MAX - 1}


def test_what_the_store_does_not_take_is_told_and_comes_later() -> None:
    memory = Memory()

    async def work() -> None:
        recorder = memory.recorder()
        memory.is_down = True
        await recorder.searched(ADA, {"query": "a"}, 1)  # is answered nonetheless
        assert memory.failures == 1
        memory.is_down = False
        await recorder.searched(ADA, {"query": "b"}, 1)
        await recorder.searched(ADA, {"query": "c"}, 1)

    asyncio.run(work())
    assert [extra["query"] for extra in memory.extras()] == ["a", "b", "c"]
    assert memory.redelivered == [False, True, False]


def test_a_record_that_an_answer_no_longer_waits_for_may_have_been_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "ANSWER_WAIT_S_MAX", 0.01)
    memory = Memory()
    append = memory.append

    async def slow(entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        found = await append(entries, redelivered=redelivered)
        if not redelivered:
            await asyncio.Event().wait()
        return found

    monkeypatch.setattr(memory, "append", slow)

    async def work() -> None:
        recorder = memory.recorder()
        await recorder.searched(ADA, {"query": "a"}, 1)
        await recorder.flush()

    asyncio.run(work())
    assert memory.redelivered == [False, True]
    assert memory.entries[0] == memory.entries[1]


def test_what_can_never_be_recorded_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    memory.is_down = True

    async def work() -> None:
        recorder = memory.recorder()
        for number in range(1500):
            await recorder.searched(Who("api_token", f"r{number}", "HTTP"), {"query": "a"}, 1)
        memory.is_down = False
        await recorder.flush(is_last=True)

    asyncio.run(work())
    assert len(memory.entries) == recorder_module.UNWRITTEN_MAX
    assert caplog.text.count("searches cannot be recorded now") == 1


def test_the_document_says_who_and_what_and_can_be_found(tmp_path: Path) -> None:
    maker = Maker("30d")
    hostile = {"query": "x\x1b\ud800" * 5000, "hits": 3, "severities": ("critical",), "organization": None}
    entries = [maker.entry(Access("audit.search", ADA, hostile), 1_795_460_000_000 + number) for number in range(3)]
    store = Store(lambda: EmbeddedWriter(tmp_path, now), EmbeddedReader(tmp_path, now), lambda: None)
    store.append([*entries, entry(1)])
    (hit, *_) = store.reader.search(Query("user.id:ada AND event.action:audit.search", datasets=("access",))).hits
    document = decode(hit.body)
    assert document["source"]["ip"] == "203.0.113.7"
    assert document["audit"]["extra"]["hits"] == 3
    assert len(document["audit"]["extra"]["query"]) == TEXT_MAX
    assert "organization" not in document["audit"]["extra"]
    assert store.reader.count(Query()) == 1  # a search without a dataset does not find them
    assert store.reader.count(RECORDED) == 3


def now() -> int:
    return 1_795_460_000_000


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs a command on a store of three events; its status, and what it said on standard error."""
    (tmp_path / "indexer.toml").write_text('[store]\npath = "store"\n')
    store = Store(lambda: EmbeddedWriter(tmp_path / "store", now), EmbeddedReader(tmp_path / "store", now), lambda: None)
    store.append([entry(number) for number in range(3)])

    def work(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, [*arguments, "--config", str(tmp_path / "indexer.toml")])
        return done.exit_code, done.stderr

    return work


def reader_of(folder: Path) -> Reader:
    return EmbeddedReader(folder / "store", now)


def test_commands_record_whoever_runs_them(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert run("search", "user.name:ada*", "--severity", "critical", "--limit", "1") == (0, "")
    assert run("export", "--out", str(tmp_path / "all.ndjson")) == (0, "")
    assert run("search", "--dataset", "access") == (0, "")
    documents = [decode(hit.body) for hit in reader_of(tmp_path).scan(RECORDED)]
    assert [(each["event"]["action"], each["audit"]["extra"].get("hits")) for each in documents] == [
        ("audit.search", 1),
        ("audit.export", None),
        ("audit.export", 3),
        ("audit.search", 3),
    ]
    assert {each["user"]["id"] for each in documents} == {this_user("search").id}
    assert documents[0]["audit"]["extra"]["query"] == "user.name:ada*"
    assert documents[0]["audit"]["extra"]["severities"] == ["critical"]
    assert documents[1]["audit"]["severity"] == "warning"
    assert len((tmp_path / "all.ndjson").read_bytes().splitlines()) == 3


def test_a_token_is_recorded_by_its_hash(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    status, said = run("token", "new", "soc", "--reader")
    assert status == 0
    (document,) = [decode(hit.body) for hit in reader_of(tmp_path).scan(RECORDED)]
    assert document["event"]["action"] == "audit.token"
    assert document["audit"]["extra"]["token_sha256"] in said


def test_a_record_that_cannot_be_written_locks_nobody_out(
    run: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: object, entries: object, *, redelivered: bool) -> None:
        del self, entries, redelivered
        raise Unavailable("the disk is full")

    monkeypatch.setattr(EmbeddedWriter, "append", full)
    status, said = run("search")
    assert status == 0
    assert "warning: this search could not be recorded: the disk is full" in said
    assert not list(reader_of(tmp_path).scan(RECORDED))


def test_a_user_that_has_no_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("SUDO_USER", "mallory")
    who = this_user("search")
    assert who.id.isdigit()
    assert who.more["sudo_user"] == "mallory"


def test_a_configuration_is_recorded_when_it_is_another_one(tmp_path: Path) -> None:
    config, rules = tmp_path / "indexer.toml", tmp_path / "severity.toml"
    config.write_text('[store]\npath = "store"\n[enrichment]\nseverity_rules = "severity.toml"\n')
    rules.write_text("")
    settings = load(IndexerSettings, config)
    for text in ("", "", "# another\n", "# another\n"):
        rules.write_text(text)
        record_configuration(settings, config).join(30)
    found = [decode(hit.body)["audit"]["extra"]["changed"] for hit in reader_of(tmp_path).scan(RECORDED)]
    assert found == [["configuration", "severity_rules"], ["severity_rules"]]


def test_a_configuration_that_cannot_be_recorded_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store").write_text("no folder")
    settings = IndexerSettings(store=StoreSettings(path=tmp_path / "store"))
    record_configuration(settings, None).join(30)
    assert not caplog.text  # there is nothing to record without a file
    config = tmp_path / "indexer.toml"
    config.write_text("")
    record_configuration(settings, config).join(30)
    assert "could not be recorded" in caplog.text
