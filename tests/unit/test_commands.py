"""The commands that read a store, as an analyst meets them."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from bisect import insort
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console
from sample_entries import entry, utc
from stores import NOW_MS, Store
from support import obey_permissions

from auditship.cli import cli
from auditship.errors import AuditshipError
from indexer.commands import status as status_module
from indexer.commands import tail as tail_module
from indexer.commands.status import Agent, Status, agents_of, status_of
from indexer.commands.tail import follow
from indexer.document import Entry
from indexer.store.contract import Arrivals, Hit, Known, Query
from indexer.store.elasticsearch.arrivals import cursor_at, since_of, slices, spans_to_read
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "store"
    return Store(lambda: EmbeddedWriter(folder, lambda: NOW_MS), EmbeddedReader(folder, lambda: NOW_MS), lambda: None)


@pytest.fixture
def config(store: Store, tmp_path: Path) -> str:
    """The configuration of a store of three events."""
    store.append([entry(number) for number in range(3)])
    (tmp_path / "indexer.toml").write_text('[store]\npath = "store"\n')
    return str(tmp_path / "indexer.toml")


def run(*arguments: str) -> tuple[int, str]:
    """A command's status, and what it says, as ``auditship.cli.main`` makes them of an error."""
    done = CliRunner().invoke(cli, arguments)
    if isinstance(done.exception, AuditshipError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.stderr


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


class Late:
    """A store like Elasticsearch, where documents become visible in no order: it is asked again for what was there."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.visible: list[tuple[int, str]] = []

    def arrivals(self, query: Query, cursor: str | None, *, known: Known, overlap_ms: int) -> Iterator[Arrivals]:
        del query
        since_ms = self.now_ms if cursor is None else since_of(cursor, self.now_ms)
        for low_ms, high_ms in slices(since_ms - overlap_ms, self.now_ms):
            there = Counter(at // 1000 for at, _ in self.visible if low_ms <= at < (high_ms or 2**62))
            for first_ms, last_ms in spans_to_read(there, known(low_ms, high_ms or 2**62)):
                found = [each for each in self.visible if first_ms <= each[0] < last_ms]
                for start in range(0, len(found), 10):
                    hits = [hit_of(*each) for each in found[start : start + 10]]
                    yield Arrivals(hits, cursor_at(since_ms), is_old=cursor is None)
        yield Arrivals([], cursor_at(self.now_ms))


def hit_of(ingested_ms: int, identity: str) -> Hit:
    return Hit(identity, "web", "30d", ingested_ms, orjson.dumps({"event": {"ingested": utc(ingested_ms)}}))


@pytest.mark.parametrize(("rate", "late_s"), [(3, 110), (60, 9)])
def test_tail_gives_each_event_once_however_many_there_are(monkeypatch: pytest.MonkeyPatch, rate: int, late_s: int) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    store = Late(NOW_MS)
    coming: list[tuple[int, int, str]] = []
    """When it becomes visible, when it was ingested, and its id."""
    insort(store.visible, (NOW_MS - 5, "was there"))
    wanted: list[str] = []
    ends_ms = NOW_MS + 400_000
    remembered = 0
    add = tail_module._Seen.add

    def pass_time(seconds: float) -> None:
        del seconds
        for _ in range(dice.randrange(2 * rate)):
            moment = store.now_ms + dice.randrange(1000)
            wanted.append(f"{len(wanted)}")
            insort(coming, (moment + dice.randrange(late_s * 1000), moment, wanted[-1]))
        store.now_ms += dice.choice((1000, 1000, 1000, 1000, 30_000))
        while coming and (coming[0][0] <= store.now_ms or store.now_ms > ends_ms):
            insort(store.visible, coming.pop(0)[1:])
        if store.now_ms > ends_ms:
            insort(store.visible, (store.now_ms, "the end"))

    def counted(seen: Any, identity: str, second: int) -> bool:
        nonlocal remembered
        remembered = max(remembered, sum(map(len, seen._ids.values())))
        return add(seen, identity, second)

    monkeypatch.setattr(tail_module, "SEEN_MAX", 1000)
    monkeypatch.setattr(tail_module, "clock", SimpleNamespace(now_ms=lambda: store.now_ms))
    monkeypatch.setattr(tail_module, "time", SimpleNamespace(sleep=pass_time))
    monkeypatch.setattr(tail_module._Seen, "add", counted)
    given = [hit.id for hit in takewhile(lambda hit: hit.id != "the end", follow(store, Query()))]  # type: ignore[arg-type]
    assert not [identity for identity, times in Counter(given).items() if times > 1]
    assert set(given) == set(wanted)
    assert remembered <= 1000 + 2 * rate * 30


def test_an_export_goes_through_links_and_into_pipes(config: str, tmp_path: Path) -> None:
    real, link, dangling = tmp_path / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_text("before")
    link.symlink_to("real")
    dangling.symlink_to("new")
    for out in (link, dangling):
        assert run("export", "--config", config, "--out", str(out)) == (0, "")
        assert out.is_symlink()
    assert len(real.read_bytes().splitlines()) == 3
    assert real.read_bytes() == (tmp_path / "new").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run("export", "--config", config, "--out", str(pipe)) == (0, "")
    assert os.read(reading, 1 << 16) == real.read_bytes()
    os.close(reading)
    assert pipe.is_fifo()
    assert not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob(".*.partial"))


def test_standard_output_that_is_a_file_is_appended_to(config: str, tmp_path: Path) -> None:
    out = tmp_path / "all.ndjson"
    out.write_text("before\n")
    with out.open("ab") as file:
        command = [sys.executable, "-m", "auditship.cli", "export", "--config", config, "--out", "/proc/self/fd/1"]
        subprocess.run(command, stdout=file, check=True)
    assert len(out.read_bytes().splitlines()) == 4


def test_a_place_that_cannot_be_written_to_is_wrong_usage(config: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for out in (
        tmp_path / "no" / "folder",
        tmp_path / "indexer.toml" / "x",
        tmp_path,
        tmp_path / ("x" * 300),
        tmp_path / "loop",
    ):
        status, told = run("export", "--config", config, "--out", str(out))
        assert (status, str(out) in told, "--out" in told) == (2, True, True), told
    assert run("export", "--config", config, "--out", "")[0] == 2


@pytest.mark.parametrize("command", ["export", "search", "status"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_finds_no_room_says_so(config: str, command: str, unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    whole = [sys.executable, "-m", "auditship.cli", command, "--config", config]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(whole, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.stderr.startswith("error: standard output: No space left on device\n")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_commands_end_in_silence_when_their_reader_has_gone(config: str, store: Store) -> None:
    store.append([entry(number) for number in range(3, 300)])
    for command in (["search", "--limit", "300"], ["export"]):
        read, write = os.pipe()
        os.close(read)
        whole = [sys.executable, "-m", "auditship.cli", *command, "--config", config]
        done = subprocess.run(whole, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (1, "")


def test_times_between_which_nothing_can_be_are_told(config: str) -> None:
    for command in ("search", "export"):
        status, words = run(command, "--config", config, "--since", "1h", "--until", "2h")
        assert status == 2
        assert "--since is not before --until" in words
    assert run("search", "--config", config, "--since", "2h", "--until", "1h")[0] == 0


@pytest.mark.parametrize("closed", ["store", "store/..", "store/*"])
def test_a_store_without_rights_is_not_an_empty_one(config: str, tmp_path: Path, closed: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "store").rename(inside / "store")
    Path(config).write_text('[store]\npath = "inside/store"\n')
    places = [each.resolve() for each in inside.glob(closed)]
    for place in places:
        place.chmod(0)
    try:
        for command in ("search", "status", "export"):
            ran = [sys.executable, "-m", "auditship.cli", command, "--config", config]
            done = subprocess.run(ran, capture_output=True, text=True, check=False, preexec_fn=obey_permissions)
            assert done.returncode in (1, 2), done.stdout
            assert not done.stdout
            assert "error: " in done.stderr
            assert str(inside) in done.stderr
            assert "Traceback" not in done.stderr
    finally:
        for place in places:
            place.chmod(0o700)


def test_a_check_of_a_store_writes_nothing_into_it(config: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    check = [sys.executable, "-m", "auditship.cli", "indexer", "--config", config, "--check"]
    for mode, status in ((0o700, 0), (0o500, 2)):
        folder.chmod(mode)
        os.utime(folder, (0, 0))
        done = subprocess.run(check, capture_output=True, text=True, check=False, preexec_fn=obey_permissions)
        assert (done.returncode, "store.path" in done.stderr) == (status, bool(status)), done.stderr
        assert folder.stat().st_mtime_ns == 0
    folder.chmod(0o700)
    Path(config).write_text('[store]\npath = "file"\n')
    (tmp_path / "file").touch()
    assert run("indexer", "--config", config, "--check")[0] == 2
    Path(config).write_text('[store]\npath = "new/store"\n')
    assert run("indexer", "--config", config, "--check")[0] == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "indexer.toml", "store"]
