"""``auditship alerts`` as a process: who is told what, when the other side does not want to, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alerting import Alerting, critical
from product import free_port
from sample_entries import entry, utc

from auditship.clock import now_ms
from indexer.store.contract import Query

WEBHOOK = '[[channel]]\nname = "{0}"\nkind = "webhook"\nurl = "http://127.0.0.1:{{{0}}}/"\ntimeout_s = 2\n'
LIVE, DEAD, SPARE = (WEBHOOK.format(name) for name in ("live", "dead", "spare"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Alerting]:
    with Alerting(tmp_path) as world:
        yield world


def test_a_burst_is_one_message_and_a_detection_another(world: Alerting) -> None:
    world.configure(LIVE)
    world.receive("live")
    world.started()
    same = {"organization": {"id": "org-1"}, "event": {"action": "a.b", "outcome": "success"}, "user": {"id": "u-1"}}
    burst = [critical(number, **same) for number in range(200)]
    rule = {"rule": {"id": "r-1", "name": "Impossible journey"}, "event": {"kind": "alert", "reason": "Berlin, then Lima"}}
    quiet = [entry(number, time_ms=now_ms(), audit={"severity": "warning"}) for number in range(300, 310)]
    world.store.append([*burst, *quiet, critical(400, dataset="alert", **rule)])
    world.await_told(2)
    messages = {each["body"]["title"]: each["body"] for each in world.received()}
    assert messages["a.b by Ada Lovelace 49 in org-1 (200 times)"]["count"] == 200
    assert messages["Impossible journey by Ada Lovelace 0 in org-0"]["reason"] == "Berlin, then Lima"


def test_a_dead_receiver_holds_up_nobody_and_its_fallback_is_told_why(world: Alerting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # takes connections, and says nothing ever
        world.ports["dead"] = hung.getsockname()[1]
        dead = DEAD + 'fallback = "spare"\n'
        world.configure(dead + LIVE + SPARE + "only_escalations = true\n", top="escalate_after_s = 1.5")
        world.receive("live")
        world.receive("spare")
        world.started()
        world.store.append([critical(number) for number in range(10)])
        world.until(lambda: len(world.received("live")) == 10)
        world.until(lambda: len(world.received("spare")) == 10)
        notes = {each["body"]["note"] for each in world.received("spare")}
        assert all(note.startswith("channel dead could not deliver for 0 min: ") for note in notes)
        assert any("no whole answer within 2 s" in note or "no attempt" in note or "timed out" in note for note in notes)
        assert "note" not in world.received("live")[0]["body"]
        ids = {each["headers"]["Auditship-Id"] for each in world.received("spare")}
        assert ids == {each["headers"]["Auditship-Id"] for each in world.received("live")}


def test_a_receiver_that_comes_back_gets_what_it_missed_also_after_a_restart(world: Alerting) -> None:
    world.configure(LIVE)
    running = world.started()
    world.store.append([critical(number) for number in range(5)])
    world.until(lambda: world.waiting() == 5)
    assert world.stop(running) == 0
    assert "still to be told" in world.said()
    world.store.append([critical(5)])
    world.receive("live")
    running = world.alerts()
    world.await_told(6)
    assert world.stop(running) == 0


def test_a_second_process_on_the_same_directory_is_refused(world: Alerting) -> None:
    world.configure(LIVE)
    world.started()
    status, said = world.run()
    assert status == 2
    assert "another `auditship alerts` is running on it" in said


def test_once_tells_what_is_new_since_the_last_time(world: Alerting) -> None:
    world.configure(LIVE)
    assert world.run("--once")[0] == 0  # the first time it begins
    world.store.append([critical(1), critical(2)])
    status, said = world.run("--once")
    assert status == 1
    assert "2 messages still wait" in said
    world.receive("live")
    world.until(lambda: world.run("--once")[0] == 0)
    assert len({each["body"]["cause"] for each in world.received()}) == 2
    assert world.run("--once")[0] == 0
    assert len(world.received()) == 2


def test_the_test_goes_through_every_channel_beside_a_running_process(world: Alerting) -> None:
    secret = 'secret_file = "secret"\n'
    world.configure(LIVE + secret + DEAD)
    (world.home / "secret").write_text("s3cret\n")
    (world.home / "secret").chmod(0o600)
    world.receive("live")
    world.started()
    status, said = world.run("--test")
    assert status == 1
    assert "live: delivered (200)" in said
    assert "dead: NOT delivered (ConnectionRefusedError: Connection refused)" in said
    (got,) = world.received()
    assert got["body"]["kind"] == "test"
    assert got["body"]["title"] == "TEST: a test of alerting: nothing has happened"
    assert got["headers"]["Auditship-Signature"].startswith("sha256=")
    assert "s3cret" not in said


def test_an_agent_that_falls_silent_is_an_alert_and_so_is_its_return(world: Alerting) -> None:
    world.configure(LIVE, top="silent_after_s = 2")
    world.receive("live")

    def beat(number: int, agent: str, action: str = "agent.heartbeat") -> None:
        at = now_ms()
        changes = {
            "event": {"action": action, "ingested": utc(at)},
            "user": {"id": agent},
            "host": {"name": f"{agent}.example"},
        }
        audit = {"severity": "info", "extra": {"interval_s": 0.1}}
        world.store.append([entry(number, time_ms=at, dataset="agent", audit=audit, **changes)])

    beat(1, "gw-before")  # before alerting was there
    world.started()
    beat(2, "gw-1")
    beat(3, "gw-stopped", "agent.stop")
    world.await_told(2)
    messages = {each["body"]["title"]: each["body"] for each in world.received()}
    assert set(messages) == {
        "agent gw-1 on gw-1.example is silent",
        "agent gw-before on gw-before.example is silent",
    }
    silent = messages["agent gw-1 on gw-1.example is silent"]
    assert silent["organization"] == "auditship"
    beat(4, "gw-1")
    world.until(lambda: len(world.received()) >= 3)
    over = world.received()[2]["body"]
    assert (over["kind"], over["cause"]) == ("recovery", silent["cause"])


def test_what_it_counts_can_be_asked_for(world: Alerting) -> None:
    port = free_port()
    world.configure(LIVE + DEAD, top=f'metrics_listen = "127.0.0.1:{port}"')
    world.receive("live")
    world.started()
    world.store.append([critical(1)])
    world.until(world.received)

    def page(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    assert page("/healthz") == "ok\n"
    assert page("/readyz") == "ready\n"
    wanted = (
        'auditship_alerts_attempts_total{channel="live",outcome="delivered"} 1.0',
        'auditship_alerts_messages_total{kind="alert"} 1.0',
        'auditship_alerts_pending{channel="dead"} 1.0',
        "auditship_alerts_open_causes 1.0",
    )
    world.until(lambda: all(line in page("/metrics") for line in wanted))
    with pytest.raises(urllib.error.HTTPError):
        page("/elsewhere")


def test_a_hang_up_reads_the_configuration_again_and_keeps_the_old_one_if_it_is_bad(world: Alerting) -> None:
    world.configure(LIVE)
    world.receive("live")
    world.receive("spare")
    running = world.started()
    world.configure(LIVE + "colour = 1\n")
    running.send_signal(signal.SIGHUP)
    world.until(lambda: "not reloaded, everything goes on as before" in world.said())
    world.configure(LIVE + SPARE)
    running.send_signal(signal.SIGHUP)
    world.until(lambda: "beginning again with it" in world.said())
    world.store.append([critical(1)])
    world.await_told(1, "spare")
    assert len(world.received("live")) == 1
    assert world.stop(running) == 0


def test_hang_ups_however_many_and_early_end_nothing(world: Alerting) -> None:
    world.configure(LIVE)
    running = world.started()

    def begins_again() -> bool:
        running.send_signal(signal.SIGHUP)
        assert running.poll() is None, world.said()
        return world.said().count("beginning again with it") >= 3

    world.until(begins_again)
    world.receive("live")
    world.store.append([critical(1)])
    world.await_told(1)


def test_a_hang_up_keeps_the_old_configuration_if_the_new_one_could_not_be_begun_with(world: Alerting) -> None:
    own = f'metrics_listen = "127.0.0.1:{free_port()}"\n'
    world.configure(LIVE, top=own)
    running = world.started()

    def hang_up(expected: str) -> None:
        running.send_signal(signal.SIGHUP)
        world.until(lambda: expected in world.said())

    with socket.create_server(("127.0.0.1", 0)) as taken:
        world.configure(LIVE, top=f'metrics_listen = "127.0.0.1:{taken.getsockname()[1]}"\n')
        hang_up("Address already in use")
    (world.home / "a-file").touch()
    world.configure(LIVE.replace("[[channel]]", '[[channel]]\nsecret_env = "NO_SUCH"'), top=own)
    hang_up("NO_SUCH is not set")
    alerts = world.home / "alerts.toml"
    world.configure(LIVE, top=own)
    alerts.write_text(alerts.read_text().replace('state_dir = "state"', 'state_dir = "a-file"'))
    hang_up("a-file: ")
    world.configure(LIVE, top=own)
    indexer = world.home / "indexer.toml"
    embedded = indexer.read_text()
    indexer.write_text(
        '[store]\nkind = "elasticsearch"\n[elasticsearch]\nurls = ["http://127.0.0.1:1"]\nreader_key_file = "r.key"\n'
    )
    hang_up("r.key")
    assert "beginning again" not in world.said()
    indexer.write_text(embedded)
    hang_up("beginning again with it")
    assert world.stop(running) in {0, -signal.SIGTERM}, "told to end while it began again"


def test_messages_are_for_nobody_elses_eyes(world: Alerting) -> None:
    world.configure(LIVE)
    world.started()
    assert (world.home / "state").stat().st_mode & 0o077 == 0
    assert (world.home / "state" / "outbox.sqlite").stat().st_mode & 0o077 == 0


def test_a_channel_that_was_taken_out_leaves_nothing_waiting(world: Alerting) -> None:
    world.configure(LIVE + DEAD)
    world.receive("live")
    running = world.started()
    world.store.append([critical(1)])
    world.until(lambda: world.received() and world.waiting() == 1)
    assert world.stop(running) == 0
    world.configure(LIVE)
    world.alerts()
    world.until(lambda: world.waiting() == 0)
    assert "channel dead is no longer configured: 1 messages for it are given up" in world.said()


def test_a_message_that_is_refused_is_not_tried_again_and_its_fallback_is_told_at_once(world: Alerting) -> None:
    dead = DEAD.replace("{dead}/", "{live}/refused") + 'fallback = "spare"\n'
    world.configure(dead + SPARE + "only_escalations = true\n")
    world.receive("live")
    world.receive("spare")
    world.started()
    world.store.append([critical(1)])
    world.await_told(1, "spare")
    assert len(world.received("live")) == 1
    assert world.received("spare")[0]["body"]["note"].startswith("channel dead refused: answered 410")
    with closing(sqlite3.connect(world.home / "state" / "outbox.sqlite")) as outbox:
        states = dict(outbox.execute("SELECT channel, state FROM delivery"))
    assert states == {"dead": "refused", "spare": "delivered"}
    world.until(lambda: world.store.reader.count(Query(datasets=("alert",))) == 1)
    (hit,) = world.store.reader.search(Query(datasets=("alert",))).hits
    document = json.loads(hit.body)
    assert document["rule"]["id"] == "auditship.alerts.undelivered"
    assert document["event"]["reason"].startswith("channel dead refused: answered 410")


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (LIVE + LIVE, "two channels of the name live"),
        (LIVE + 'fallback = "nobody"\n', "its fallback 'nobody' is not another channel"),
        (
            LIVE + 'fallback = "b"\n' + LIVE.replace('"live"', '"b"') + 'organizations = ["org-b"]\n',
            "its fallback b is for org-b alone and would hear of everybody",
        ),
        (LIVE.replace("127.0.0.1", "soc.example"), "plain HTTP is for loopback addresses"),
        (LIVE + "colour = 1\n", "unknown key"),
        (LIVE.replace("{live}/", "99999/"), "url"),
        ('[[channel]]\nname = "a"\nkind = "slack"\n', "the incoming webhook's address is missing"),
        ('[[channel]]\nname = "a"\nkind = "smoke"\n', "smoke"),
        ('[[channel]]\nname = "a"\nkind = "slack"\nsecret_env = "NO_SUCH"\n', "NO_SUCH is not set"),
        ('[[channel]]\nname = "a"\nkind = "command"\ncommand = ["run"]\n', "absolute path"),
    ],
)
def test_a_bad_configuration_is_refused_with_its_place(world: Alerting, channels: str, expected: str) -> None:
    world.configure(channels)
    status, said = world.run("--check")
    assert status == 2
    assert expected in said
    assert "Traceback" not in said


def test_a_good_one_is_good(world: Alerting) -> None:
    world.configure(LIVE)
    assert world.run("--check") == (0, "the configuration is good\n")
