"""Promises of the Elasticsearch writer where the cluster answers badly: a scripted server says what no healthy one would."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from msgspec import DecodeError
from sample_entries import entry

from indexer.document import Entry
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Refused, Unavailable, Verdict
from indexer.store.elasticsearch import ElasticsearchWriter
from indexer.store.elasticsearch.bulk import batches, encode, judge
from indexer.store.elasticsearch.connection import error_reason

CREATED, DUPLICATE = Verdict.CREATED, Verdict.DUPLICATE
STREAMS = {"data_streams": [{"name": "logs-audit.web-30d", "template": "logs-audit-30d", "indices": [{"index_name": ".ds-1"}]}]}
Item = dict[str, object]


def item(status: int, kind: str = "", **more: object) -> Item:
    error = {"error": {"type": kind, "reason": "because"}} if kind else {}
    return {"create": {"status": status, **error, **more}}


TAKEN = item(201)
THERE = item(409, "version_conflict_engine_exception")
BUSY = item(429, "es_rejected_execution_exception")
GONE = item(503, "unavailable_shards_exception")


@dataclass
class Script:
    """The answers to bulk requests, one after the other: items, or (status, body). The last one repeats."""

    answers: list[list[Item] | tuple[int, bytes] | Callable[[int], list[Item]]]
    stored: list[str] = field(default_factory=list)
    """Ids that a look-up finds."""
    bulks: list[list[str]] = field(default_factory=list)
    """The ids of each bulk request that came."""
    lookups: int = 0

    def bulk(self, body: bytes) -> tuple[int, bytes]:
        ids = [json.loads(line)["create"]["_id"] for line in body.splitlines()[::2]]
        answer = self.answers[min(len(self.bulks), len(self.answers) - 1)]
        self.bulks.append(ids)
        if isinstance(answer, tuple):
            return answer
        items = answer(len(ids)) if callable(answer) else answer
        return 200, json.dumps({"errors": True, "took": 1, "items": items}).encode()

    def lookup(self, body: bytes) -> tuple[int, bytes]:
        self.lookups += 1
        ids = [each["_id"] for each in json.loads(body)["docs"]]
        return 200, json.dumps({"docs": [{"_id": each, "found": each in self.stored} for each in ids]}).encode()


@dataclass
class Cluster:
    """The scripted server's address, and a call of a writer on it."""

    url: str

    def append(self, count: int, *, redelivered: bool = False, **changes: object) -> list[Verdict | Refused]:
        settings = ElasticsearchSettings(urls=(self.url,), **{"request_timeout_s": 5, **changes})

        async def work() -> list[Verdict | Refused]:
            writer = ElasticsearchWriter(settings, sleep=lambda _: None)
            try:
                return list(await writer.append([entry(n) for n in range(count)], redelivered=redelivered))
            finally:
                await writer.close()

        return asyncio.run(work())


@pytest.fixture
def play() -> Iterator[Callable[[Script], Cluster]]:
    """Starts a server that follows a script."""
    servers = []

    def start(script: Script) -> Cluster:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.partition("?")[0]
                status, said = 200, json.dumps(STREAMS).encode()
                if path == "/_bulk":
                    status, said = script.bulk(body)
                elif path.endswith("/_mget"):
                    status, said = script.lookup(body)
                self.send_response(status)
                self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Type", "application/vnd.elasticsearch+json; compatible-with=9")
                self.send_header("Content-Length", str(len(said)))
                with suppress(BrokenPipeError):  # a client that gave up waiting
                    self.end_headers()
                    self.wfile.write(said)

            do_GET = do_POST = answer  # noqa: N815 - the names that the library calls

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return Cluster(f"http://127.0.0.1:{server.server_port}")

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


Play = Callable[[Script], Cluster]


def ids(*numbers: int) -> list[str]:
    return [entry(n).id for n in numbers]


def test_items_that_were_not_taken_are_looked_up_and_sent_again_alone(play: Play) -> None:
    script = Script([[TAKEN, BUSY, item(400, "document_parsing_exception"), GONE, THERE], [TAKEN], [TAKEN]])
    verdicts = play(script).append(5)
    assert verdicts[:2] + verdicts[3:] == [CREATED, CREATED, CREATED, DUPLICATE]
    assert verdicts[2] == Refused("400 document_parsing_exception: because")
    assert script.bulks == [ids(0, 1, 2, 3, 4), ids(1), ids(3)]
    assert script.lookups == 1


def test_an_item_that_took_effect_though_it_said_otherwise_is_found(play: Play) -> None:
    script = Script([[TAKEN, GONE], [TAKEN]], stored=ids(1))
    assert play(script).append(2) == [CREATED, DUPLICATE]
    assert script.bulks == [ids(0, 1)]


def test_redelivered_entries_are_looked_up_before_anything_is_sent(play: Play) -> None:
    script = Script([lambda count: [TAKEN] * count], stored=ids(0, 2))
    assert play(script).append(3, redelivered=True) == [DUPLICATE, CREATED, DUPLICATE]
    assert script.bulks == [ids(1)]
    script = Script([[TAKEN]], stored=ids(0, 1))
    assert play(script).append(2, redelivered=True) == [DUPLICATE, DUPLICATE]
    assert script.bulks == []


@pytest.mark.parametrize(
    ("each", "overloaded"),
    [
        (BUSY, True),
        (GONE, False),
        (item(404, "index_not_found_exception"), False),
        (item(403, "security_exception"), False),
        (item(400, "index_closed_exception"), False),
        (item(400, "validation_exception"), False),
        (item(409, "another_conflict"), False),
        (item(200), False),
        (item(0), False),
    ],
)
def test_items_that_are_never_taken_make_the_store_unavailable(play: Play, each: Item, overloaded: bool) -> None:
    script = Script([lambda count: [each] * count])
    with pytest.raises(Unavailable) as caught:
        play(script).append(3)
    assert caught.value.overloaded is overloaded
    assert caught.value.retry_after_s > 0
    assert 4 <= len(script.bulks) <= 12


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{}",
        b"null",
        b"<html>200 OK</html>",
        b'{"errors":false,"items":[]}',
        b'{"errors":false}',
        b'{"errors":false,"items":[{"create":{"status":201}}]}',
        b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}},{"create":{"status":201}}]}',
        b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":"201"}}]}',
        b'{"errors":false,"items":[{"create":{"status":201}},{"index":{"status":201}}]}',
        b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}',
    ],
)
def test_garbage_is_never_taken_for_success(play: Play, garbage: bytes) -> None:
    with pytest.raises(Unavailable, match="no answer to a bulk request"):
        play(Script([(200, garbage)])).append(2)


@pytest.mark.parametrize(("status", "overloaded"), [(429, True), (500, False), (502, False), (503, False), (504, False)])
def test_a_refused_request_is_unavailable_after_some_attempts(play: Play, status: int, overloaded: bool) -> None:
    with pytest.raises(Unavailable, match=str(status)) as caught:
        play(Script([(status, b'{"error":{"type":"some","reason":"thing"}}')])).append(2)
    assert caught.value.overloaded is overloaded


def test_an_overloaded_cluster_is_sent_smaller_bulks(play: Play) -> None:
    script = Script([(429, b""), (429, b""), (429, b""), lambda count: [TAKEN] * count])
    assert play(script).append(8) == [CREATED] * 8
    assert [len(each) for each in script.bulks] == [8, 4, 4, 2, 2, 2, 2]


@pytest.mark.parametrize("status", [400, 413])
def test_a_request_refused_for_its_body_is_halved_down_to_what_is_at_fault(play: Play, status: int) -> None:
    script = Script([])

    def bulk(body: bytes) -> tuple[int, bytes]:
        found = [json.loads(line)["create"]["_id"] for line in body.splitlines()[::2]]
        script.bulks.append(found)
        if entry(5).id in found:
            return status, b'{"error":{"type":"too","reason":"large"}}'
        return 200, json.dumps({"items": [TAKEN] * len(found)}).encode()

    script.bulk = bulk  # type: ignore[method-assign]
    verdicts = play(script).append(8)
    assert verdicts == [CREATED] * 5 + [Refused(f"{status} too: large")] + [CREATED] * 2


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"),
        (400, b'{"error":{"type":"media_type_header_exception","reason":"Invalid media-type value on headers [Accept]"}}'),
        (
            400,
            b'{"error":{"type":"illegal_argument_exception","reason":"request [/_bulk] contains unrecognized parameter: [x]"}}',
        ),
        (400, b'{"error":"no handler found for uri [/_bulk] and method [POST]"}'),
        (400, b'{"error":{"message":"bad request"}}'),
        (400, b""),
        (405, b'{"error":"Incorrect HTTP method"}'),
    ],
)
def test_a_request_refused_for_anything_but_its_body_is_no_document_s_fault(play: Play, status: int, said: bytes) -> None:
    script = Script([(status, said)])
    cluster = play(script)
    with pytest.raises(Unavailable, match=f"{cluster.url} .*{status}") as caught:
        cluster.append(8)
    assert error_reason(said) in caught.value.what
    assert not caught.value.overloaded
    assert len(script.bulks) == 1, "told at once"


def test_a_document_in_the_failure_store_counts_as_stored_and_is_told(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    assert play(Script([[TAKEN, item(201, failure_store="used")]])).append(2) == [CREATED, CREATED]
    assert "1 documents went into a failure store" in caplog.text


Answers = list[list[Verdict | Refused] | BaseException]


def appended_at_once(url: str, blocks: list[list[Entry]], redelivered: Sequence[int] = ()) -> Answers:
    """Appends of several agents, in one moment, to a writer that has one bulk under way; some of them are redelivered."""

    async def work() -> Answers:
        writer = ElasticsearchWriter(ElasticsearchSettings(urls=(url,), bulks_in_flight_max=1), sleep=lambda _: None)
        try:
            await writer.append([entry(1000)], redelivered=False)
            work = [writer.append(block, redelivered=at in redelivered) for at, block in enumerate(blocks)]
            found = await asyncio.gather(*work, return_exceptions=True)
            return [each if isinstance(each, BaseException) else list(each) for each in found]
        finally:
            await writer.close()

    return asyncio.run(work())


def judging(script: Script, items: dict[str, Item]) -> Script:
    """Makes a script answer by id: an item of its own for some, taken for the others."""

    def bulk(body: bytes) -> tuple[int, bytes]:
        found = [json.loads(line)["create"]["_id"] for line in body.splitlines()[::2]]
        script.bulks.append(found)
        return 200, json.dumps({"items": [items.get(each, TAKEN) for each in found]}).encode()

    script.bulk = bulk  # type: ignore[method-assign]
    return script


def test_small_blocks_that_wait_go_together_and_are_answered_each_for_itself(play: Play) -> None:
    script = judging(Script([]), {entry(2).id: THERE, entry(3).id: item(400, "document_parsing_exception")})
    found = appended_at_once(play(script).url, [[entry(0)], [entry(1)], [entry(2), entry(3)], [entry(4)]])
    refused = Refused("400 document_parsing_exception: because")
    assert found == [[CREATED], [CREATED], [DUPLICATE, refused], [CREATED]]
    assert script.bulks[-1][-4:] == ids(1, 2, 3, 4)


def test_an_item_that_is_never_taken_is_its_own_block_s_trouble(play: Play) -> None:
    script = judging(Script([]), {entry(2).id: item(403, "security_exception")})
    found = appended_at_once(play(script).url, [[entry(0)], [entry(1)], [entry(2)], [entry(3), entry(4)]])
    assert found[:2] + found[3:] == [[CREATED], [CREATED], [CREATED] * 2]
    assert isinstance(found[2], Unavailable)
    assert [each for each in script.bulks if entry(2).id in each][1:] == [ids(2)] * 3


def test_what_may_have_come_before_never_goes_with_what_has_not(play: Play) -> None:
    script = Script([lambda count: [TAKEN] * count])
    found = appended_at_once(play(script).url, [[entry(n)] for n in range(5)], redelivered=(2, 3))
    assert found == [[CREATED]] * 5
    assert script.bulks[-2:] == [ids(2, 3), ids(4)]
    assert script.lookups == 1


def test_what_nobody_waits_for_any_more_is_not_sent(play: Play) -> None:
    script = judging(Script([]), {})
    begun, go_on = threading.Event(), threading.Event()
    answer = script.bulk

    def bulk(body: bytes) -> tuple[int, bytes]:
        begun.set()
        go_on.wait(20)
        return answer(body)

    script.bulk = bulk  # type: ignore[method-assign]

    async def work() -> None:
        settings = ElasticsearchSettings(urls=(play(script).url,), bulks_in_flight_max=1)
        writer = ElasticsearchWriter(settings, sleep=lambda _: None)
        first = asyncio.create_task(writer.append([entry(0)], redelivered=False))
        await asyncio.to_thread(begun.wait, 20)
        others = [asyncio.create_task(writer.append([entry(n)], redelivered=False)) for n in (1, 2)]
        await asyncio.sleep(0)
        assert len(writer._waiting) == 2
        for each in others:
            each.cancel()
        await asyncio.wait(others)
        go_on.set()
        assert await first == [CREATED]
        assert await writer.append([entry(3)], redelivered=False) == [CREATED]
        await writer.close()

    asyncio.run(work())
    assert script.bulks == [ids(0), ids(3)]


def test_a_class_that_is_not_set_up_holds_nobody_else_up(play: Play) -> None:
    script = Script([lambda count: [TAKEN] * count])
    found = appended_at_once(play(script).url, [[entry(0)], [entry(1, retention="77d")], [entry(2)]])
    assert [found[0], found[2]] == [[CREATED], [CREATED]]
    assert isinstance(found[1], Unavailable)


def test_a_push_back_is_told_with_what_is_sent_from_now_on(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    script = Script([[BUSY], [TAKEN]])
    assert play(script).append(1) == [CREATED]
    assert "pushes back: at most 1 bulks of 4194304 bytes now" in caplog.text


def test_an_answer_that_does_not_come_is_unavailable(play: Play) -> None:
    script = Script([])
    ended = threading.Event()

    def bulk(body: bytes) -> tuple[int, bytes]:
        del body
        ended.wait(20)
        return 200, b""

    script.bulk = bulk  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="Timeout") as caught:
        play(script).append(1, request_timeout_s=0.2)
    ended.set()
    assert not caught.value.overloaded


def test_bodies_are_the_entries_own_bytes() -> None:
    entries = [entry(0), entry(1, dataset="cli")]
    lines = encode(entries).split(b"\n")
    assert lines == [
        b'{"create":{"_index":"logs-audit.web-30d","_id":"%b"}}' % entries[0].id.encode(),
        entries[0].body,
        b'{"create":{"_index":"logs-audit.cli-30d","_id":"%b"}}' % entries[1].id.encode(),
        entries[1].body,
        b"",
    ]


@pytest.mark.parametrize("bytes_max", [1, 5000, 10_000, 10_000_000])
def test_batches_hold_every_entry_once_in_order_and_at_most_so_many_bytes(bytes_max: int) -> None:
    entries = [entry(n, event={"original": "x" * (n * 37 % 3000)}) for n in range(50)]
    parts = list(batches(entries, bytes_max))
    assert [each for part, _ in parts for each in entries[part]] == entries
    for part, size in parts:
        assert len(encode(entries[part])) <= size
        assert len(entries[part]) == 1 or size <= bytes_max


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("odd", [{"status": 429}, {"status": 201, "failure_store": "used"}, {"status": 201, "new": 1}, None])
def test_an_answer_is_judged_the_same_whether_all_were_created_or_not(count: int, odd: dict[str, object] | None) -> None:
    items = [{"create": {"status": 201}}] * count + ([{"create": odd}] if odd else [])
    judged = judge(json.dumps({"items": items}, separators=(",", ":")).encode(), len(items))
    slowly = judge(json.dumps({"items": items}).encode(), len(items))
    assert judged == slowly
    assert judged.outcomes[:count] == [Verdict.CREATED] * count
    for wrong in (abs(len(items) - 1), len(items) + 1):
        with pytest.raises(DecodeError):
            judge(json.dumps({"items": items}, separators=(",", ":")).encode(), wrong)
