"""Promises of the comparison with peers that need no peer: what counts, what a ratio is, what the sink answers."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench"))

import obtain
import sink
from comparison import InexactError, Result, Spent, check, ratio, table

from auditship.block import PATH, Receipt
from auditship.sample import Sample
from indexer.store.contract import Verdict
from indexer.store.elasticsearch.bulk import FILTER, judge
from indexer.store.elasticsearch.sightings import answer_decoder, sightings_of

SEED = 7


def result(name: str, *cpu_s: float, start_cpu_s: float = 0.0, why_not: str = "") -> Result:
    return Result(name, "json", "1.0", start_cpu_s, [Spent(each, 10 + each) for each in cpu_s], why_not)


@pytest.fixture
def server() -> Iterator[http.client.HTTPConnection]:
    serving = sink.serve(0)
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", serving.server_address[1], timeout=10)
    try:
        yield connection
    finally:
        connection.close()
        serving.shutdown()
        thread.join()
        serving.server_close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def tally(connection: http.client.HTTPConnection) -> dict[str, int]:
    found: dict[str, int] = json.loads(ask(connection, "GET", "/tally")[1])
    return found


def lines(count: int) -> list[bytes]:
    return [line.rstrip(b"\n") for line in Sample(SEED).lines("web", count)]


def bulk(documents: list[bytes]) -> bytes:
    return b"".join(b'{"create":{"_index":"audit"}}\n%s\n' % document for document in documents)


def test_the_sink_counts_what_it_was_sent(server: http.client.HTTPConnection) -> None:
    sent = lines(100)
    status, answer = ask(server, "POST", "/_bulk", bulk(sent))
    assert (status, len(json.loads(answer)["items"])) == (200, 100)
    assert not json.loads(answer)["errors"]
    ask(server, "POST", "/audit/_bulk?filter_path=items", bulk(sent[:3]))
    found = tally(server)
    assert (found["events"], found["different"], found["others"]) == (103, 100, 0)


def test_ours_takes_the_answer_for_elasticsearch_s() -> None:
    for query in ("", f"filter_path={FILTER}"):
        assert judge(sink.bulk_answer(5, query), 5).outcomes == [Verdict.CREATED] * 5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: line,
        lambda line: json.dumps({"message": line.decode()}).encode(),  # Filebeat's raw
        lambda line: json.dumps(json.loads(line)).encode(),  # with a space behind each colon
        lambda line: b'{"event":{"original":%s},"http":{"request":{"id":"x"}}}' % json.dumps(line.decode()).encode(),
    ],
)
def test_an_event_counts_however_it_is_wrapped(wrap: Callable[[bytes], bytes]) -> None:
    counted = sink.Tally()
    counted.add([wrap(line) for line in lines(50)], 0)
    assert (counted.state()["different"], counted.state()["others"]) == (50, 0)


def test_what_is_no_event_of_ours_is_not_counted_as_one() -> None:
    counted = sink.Tally()
    counted.add([b'{"agent":"started"}', b'{"request_id":"short"}', b""], 0)
    assert (counted.state()["events"], counted.state()["others"]) == (0, 3)


def test_a_block_of_ours_has_its_receipt(server: http.client.HTTPConnection) -> None:
    body = zstandard.compress(b"".join(line + b"\n" for line in lines(20)))
    status, answer = ask(server, "POST", PATH, body)
    assert status == 200
    assert Receipt.from_json(json.loads(answer), 20).documents == 20
    assert tally(server)["different"] == 20


def test_ours_is_told_that_nobody_was_seen_anywhere(server: http.client.HTTPConnection) -> None:
    status, answer = ask(server, "POST", "/logs-audit.web-*/_search?x=1", b"{}")
    assert status == 200
    assert sightings_of(answer_decoder.decode(answer), [("org-1", "u-1")]) == {}


@pytest.mark.parametrize("path", ["/", "/_license", "/_xpack", "/_cat/health", "/_index_template/x", "/_data_stream/logs-*"])
def test_whatever_is_asked_before_is_answered(server: http.client.HTTPConnection, path: str) -> None:
    status, answer = ask(server, "GET", path)
    assert status == 200
    assert json.loads(answer)
    assert ask(server, "HEAD", path) == (200, b"")


def test_a_body_without_end_is_refused(server: http.client.HTTPConnection) -> None:
    server.putrequest("POST", "/_bulk")
    server.putheader("Content-Length", str(sink.BODY_BYTES_MAX + 1))
    server.endheaders()
    assert server.getresponse().status == 413


@pytest.mark.parametrize(
    ("events", "different", "told"),
    [(10, 10, ""), (9, 9, "1 of 10 lines lost, 0 doubled"), (11, 9, "1 of 10 lines lost, 2 doubled")],
)
def test_a_lost_and_a_doubled_line_do_not_make_up_for_each_other(events: int, different: int, told: str) -> None:
    seen = {"events": events, "different": different, "others": 0}
    if not told:
        check(seen, 10)
        return
    with pytest.raises(InexactError, match=told):
        check(seen, 10)


def test_a_ratio_is_the_median_of_rounds_without_the_start() -> None:
    ours, peer = result("ours", 2.0, 3.0, 11.0, start_cpu_s=1.0), result("peer", 4.5, 4.5, 4.5, start_cpu_s=0.5)
    assert ratio(ours, peer) == 2.0
    assert ours.events_per_cpu_s(100) == [100.0, 50.0, 10.0]


def test_who_has_failed_has_no_figure() -> None:
    ours, failed = result("ours", 1.0), result("peer", why_not="not finished: 5 of 10 lines came in time")
    assert ratio(ours, failed) is None
    *_, row = table([ours, failed], [ours], 10)
    assert row == "| peer 1.0 | json | not finished: 5 of 10 lines came in time |  |  |  |"


def test_every_row_has_every_column() -> None:
    results = [result("ours", 1.0, 2.0, 4.0), result("peer", 2.0, 4.0, 8.0), result("gone", why_not="left out")]
    rows = list(table(results, results[:1], 1000))
    assert {row.count("|") for row in rows} == {7}
    assert rows[3] == "| peer 1.0 | json | 250 (125 to 500) | 0.00 | 18 | 2.00 |"


def test_each_peer_has_its_configuration() -> None:
    folder = ROOT / "bench" / "peers"
    for name in ("rsyslog.conf", "syslog-ng.conf", "filebeat.yml"):
        text = (folder / name).read_text()
        assert "127.0.0.1" in text, name
        assert "PORT" in text, name
        assert "LOG" in text, name


@pytest.mark.parametrize("peer", [obtain.rsyslog, obtain.syslog_ng, obtain.filebeat])
def test_a_peer_that_cannot_be_had_is_told_with_the_remedy(
    peer: Callable[[], obtain.Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(obtain.MissingError, match=r"is left out: .*; (use|install) "):
        peer()
    assert list((tmp_path / "cache" / "auditship-bench").iterdir()) == []
