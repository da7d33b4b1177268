"""Promises of the gateway's writer: whole lines only, whatever else writes, rotates or fails."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from auditship.gateway import LINE_BYTES_MAX, LOOKS, AuditHandler, AuditLog
from auditship.line import decode

EVENT: dict[str, Any] = {
    "organization": {"id": "org-1"},
    "actor": {"type": "user", "id": "u-7", "name": "Ada"},
    "action": "project.update",
    "resource": {"type": "project", "id": "p-3"},
    "status": "success",
}


def lines(path: Path) -> list[dict[str, Any]]:
    """The file's events, each of which an indexer would take."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    for raw in data.splitlines():
        decode(raw)
    return [json.loads(raw) for raw in data.splitlines()]


def test_an_event_is_one_line_that_an_indexer_takes(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    with AuditLog(path, fsync=True) as log:
        log.write(EVENT)
        log.write(EVENT, ip="203.0.113.7", reason="two\nlines \u2028")
        log.write(**EVENT, timestamp="2026-11-23T10:00:00Z")
    found = lines(path)
    assert len(found) == 3
    assert found[1]["reason"] == "two\nlines \u2028"
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"organization": None}, "organization: an object"),
        ({"organization": {}}, "organization.id: text"),
        ({"actor": {"type": "robot", "id": "x"}}, "actor.type: one of user"),
        ({"action": ""}, "action: text"),
        ({"status": "ok"}, "status: success or failure"),
        ({"timestamp": True}, "timestamp"),
        ({"resource": {"id": "p"}}, "resource.type"),
        ({"extra": {1, 2}}, "not JSON"),
        ({"padding": "x" * LINE_BYTES_MAX}, "at most"),
    ],
)
def test_an_event_that_nobody_would_take_is_refused_by_field_and_not_written(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    log = AuditLog(tmp_path / "web.jsonl")
    with pytest.raises(ValueError, match=words):
        log.write(EVENT, **change)
    assert not (tmp_path / "web.jsonl").exists()


def test_threads_and_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    log = AuditLog(path)

    def work(number: int) -> None:
        for n in range(200):
            log.write(EVENT, n=number * 1000 + n, padding="x" * (n * 20))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
    processes = [multiprocessing.get_context("fork").Process(target=work, args=(at,)) for at in range(3, 6)]
    for process in processes:
        process.start()
    for thread in threads:
        thread.start()
    for each in (*threads, *processes):
        each.join()
    assert sorted(line["n"] for line in lines(path)) == [at * 1000 + n for at in range(6) for n in range(200)]


def test_after_a_rotation_the_new_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditship.gateway.REOPEN_CHECK_S", 0.0)
    path = tmp_path / "web.jsonl"
    log = AuditLog(path)
    log.write(EVENT)
    path.rename(tmp_path / "web.jsonl.1")
    log.write(EVENT, n=1)
    path.unlink()
    log.write(EVENT, n=2)
    assert [line.get("n") for line in lines(path)] == [2]
    assert len(lines(tmp_path / "web.jsonl.1")) == 1


def test_a_line_that_was_cut_short_never_runs_into_the_next(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    log = AuditLog(path)
    log.write(EVENT)
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, before[1]))  # a disk with room for a part of a line
    try:
        with pytest.raises(OSError, match="bytes could be written"):
            log.write(EVENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    log.write(EVENT, n=2)
    raw = path.read_bytes().splitlines()
    assert len(raw) == 3
    assert json.loads(raw[2])["n"] == 2


def test_a_line_that_somebody_else_left_torn_never_runs_into_the_next(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    log = AuditLog(path)
    log.write(EVENT, n=1)
    for n in (2, 3):
        with path.open("ab") as other:
            other.write(b'{"timestamp":"2026')
        log.write(EVENT, n=n)
        log.close()
    raw = path.read_bytes().splitlines()
    assert [json.loads(raw[at])["n"] for at in (0, 2, 4)] == [1, 2, 3]
    assert len(raw) == 5


def test_a_torn_line_is_waited_for_once_and_one_under_way_is_not_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "web.jsonl"
    log = AuditLog(path)
    log.write(EVENT, n=1)
    other = path.open("ab", buffering=0)
    pauses = []

    def others_write(seconds: float) -> None:
        pauses.append(seconds)
        other.write(b"x" if len(pauses) < LOOKS else b'"}\n')

    monkeypatch.setattr("auditship.gateway.time.sleep", others_write)
    other.write(b'{"a":"')
    log.write(EVENT, n=2)
    assert path.read_bytes().count(b"\n\n") == 0
    assert len(path.read_bytes().splitlines()) == 3, "the other line ended while it was looked at"
    monkeypatch.setattr("auditship.gateway.time.sleep", pauses.append)
    other.write(b"torn")
    pauses.clear()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for _ in range(5):
            with pytest.raises(OSError, match="No space"):
                log.write(EVENT, n=3)
    assert len(pauses) == 1
    log.write(EVENT, n=4)
    other.close()
    assert json.loads(path.read_bytes().splitlines()[-1])["n"] == 4


def test_a_file_that_its_writer_may_not_read_and_a_pipe_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pipe = tmp_path / "web.jsonl", tmp_path / "pipe"
    real = os.open

    def no_reading(name: Any, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, flags, *mode)

    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    through = AuditLog(pipe)
    through.write(EVENT, n=1)
    assert json.loads(os.read(reader, 10_000))["n"] == 1
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        through.write(EVENT, n=2)
    monkeypatch.setattr(os, "open", no_reading)
    log = AuditLog(path)
    log.write(EVENT, n=1)
    log.write(EVENT, n=2)
    assert [line["n"] for line in lines(path)] == [1, 2]


def test_a_child_that_is_forked_in_the_middle_of_a_write_writes(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "web.jsonl")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with log._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = multiprocessing.get_context("fork").Process(target=log.write, args=(EVENT,))
    child.start()
    child.join(30)
    is_stuck = child.is_alive()
    child.kill()
    done.set()
    thread.join()
    assert not is_stuck
    assert len(lines(tmp_path / "web.jsonl")) == 1


def test_a_signals_handler_may_write_in_the_middle_of_a_write(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "web.jsonl")
    before = signal.signal(signal.SIGUSR1, lambda *_: log.write(EVENT, n=1))
    try:
        with log._lock:
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    log.write(EVENT, n=2)
    assert [line["n"] for line in lines(tmp_path / "web.jsonl")] == [1, 2]


def test_a_logging_handler_writes_what_is_an_audit_event(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    logger = logging.getLogger("gateway of a test")
    logger.setLevel(logging.INFO)
    logger.addHandler(AuditHandler(AuditLog(path)))
    logger.info("starting")
    logger.info("project.delete", extra={"audit": {name: value for name, value in EVENT.items() if name != "action"}})
    assert [line["action"] for line in lines(path)] == ["project.delete"]
