"""Promises of the document: what a line becomes, under which id, and that no line stops those behind it."""

from __future__ import annotations

import base64
import gc
import json
import sys
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_document import reference
from support import header

from auditship.block import stream_id
from indexer.build import Block, Builder
from indexer.decode import decode_block, is_plain
from indexer.document import Entry
from indexer.enrich import demo_database
from indexer.enrich.actor import Actors
from indexer.enrich.location import Place, Places
from indexer.enrich.platform import Platforms
from indexer.enrich.severity import Severities
from indexer.identity import document_id

NOW_MS = 1_795_458_000_000
EVENT: dict[str, Any] = {
    "timestamp": "2026-11-23T19:20:00.25+01:00",
    "organization": {"id": "org-1", "name": "Acme"},
    "actor": {"type": "user", "id": "u-7", "name": "Ada Lovelace", "email": "ada@example.com"},
    "action": "Project.Update",
    "resource": {"type": "project", "id": "p-3", "name": "Engine"},
    "status": "failure",
    "ip": "203.0.113.7",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "request_id": "r-1",
    "session_id": "s-1",
    "changes": [{"field": "name", "from": "Old", "to": {"any": "JSON"}}],
    "trace": {"span": 7},
}


class Broken(Places):
    """An enrichment that has a defect."""

    def look_up(self, ip: str) -> Place:
        raise RuntimeError(ip)


def builder(places: Places | None = None) -> Builder:
    places = places or Places(demo_database.path(), None, 100)
    retention = {"org-bank": "365d"}
    return Builder(
        Actors(100), places, Platforms(), Severities.load(None), lambda organization: retention.get(organization, "30d")
    )


PLACES, SEVERITIES, BUILDER = Places(demo_database.path(), None, 100), Severities.load(None), builder()


def entries(
    data: bytes, *, places: Places | None = None, organizations: frozenset[str] = frozenset(), **changes: Any
) -> list[Entry]:
    head = header(data, **changes)
    block = Block.of(head, sender="gw-1", now_ms=NOW_MS, organizations=organizations)
    built = builder(places)
    return [built.build(block, decoded) for decoded in decode_block(head, data)]


def one(event: dict[str, Any], **more: Any) -> tuple[Entry, dict[str, Any]]:
    (entry,) = entries(json.dumps(event).encode() + b"\n", **more)
    return entry, json.loads(entry.body)


def test_an_event_becomes_a_document_in_ecs() -> None:
    entry, document = one(EVENT, offset=700)
    assert (entry.dataset, entry.retention, entry.time_ms) == ("web", "30d", NOW_MS + 250)
    original = json.dumps(EVENT)
    hashed = document["event"].pop("hash")
    assert len(hashed) == 64
    assert document.pop("user_agent")["name"] == "Firefox"
    assert document.pop("source")["geo"]["city_name"] == "Berlin"
    assert document == {
        "@timestamp": "2026-11-23T18:20:00.250000Z",
        "event": {
            "id": entry.id,
            "kind": "event",
            "created": "2026-11-23T18:20:00.000Z",
            "ingested": "2026-11-23T18:20:00.000Z",
            "original": original,
            "module": "audit",
            "dataset": "audit.web",
            "sequence": 700,
            "action": "project.update",
            "category": ["configuration"],
            "type": ["change"],
            "outcome": "failure",
            "severity": 47,
            "reason": "failed",
        },
        "log": {"offset": 700, "file": {"path": "/var/log/web.jsonl"}, "level": "warning"},
        "audit": {
            "gateway": "web",
            "stream": "0" * 32,
            "severity": "warning",
            "actor": {"type": "user", "label": "Firefox on Linux"},
            "location": "Berlin, Berlin, 203.0.113.7",
            "resource": {"type": "project", "id": "p-3", "name": "Engine"},
            "action": "Project.Update",
            "changes": [{"field": "name", "from": "Old", "to": {"any": "JSON"}}],
            "extra": {"trace": {"span": 7}},
            "skew_ms": -250,
        },
        "agent": {"id": "gw-1", "name": "gw-1", "type": "auditship"},
        "host": {"name": "gw-1.example"},
        "ecs": {"version": "9.0.0"},
        "organization": {"id": "org-1", "name": "Acme"},
        "user": {"id": "u-7", "name": "Ada Lovelace", "full_name": "Ada Lovelace", "email": "ada@example.com"},
        "http": {"request": {"id": "r-1"}},
        "session": {"id": "s-1"},
        "related": {"ip": ["203.0.113.7"], "user": ["u-7", "Ada Lovelace", "ada@example.com"]},
    }


def test_an_id_begins_with_the_time_and_depends_on_stream_place_and_bytes_alone() -> None:
    base = document_id(NOW_MS, bytes(16), 5, b"line")
    assert base64.urlsafe_b64decode(base + "==")[:6] == NOW_MS.to_bytes(6, "big")
    assert len(base) == 22
    others = [
        document_id(NOW_MS + 1, bytes(16), 5, b"line"),
        document_id(NOW_MS, b"x" * 16, 5, b"line"),
        document_id(NOW_MS, bytes(16), 6, b"line"),
        document_id(NOW_MS, bytes(16), 5, b"linf"),
    ]
    assert len({base, *others}) == 5
    assert base == document_id(NOW_MS, bytes(16), 5, b"line")
    for time_ms in (-(2**60), 2**60):
        assert len(document_id(time_ms, bytes(16), 0, b"")) == 22


def test_an_event_cannot_choose_its_id() -> None:
    forged = {**EVENT, "event": {"id": "x"}, "_id": "x", "request_id": "same"}
    (first, second) = entries((json.dumps(forged).encode() + b"\n") * 2)
    assert first.id != second.id
    assert json.loads(first.body)["event"]["id"] == first.id


@given(st.text(), st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=2))
def test_no_value_can_forge_a_line_of_a_bulk_request(text: str, more: dict[str, str]) -> None:
    event = {**EVENT, "reason": text, "organization": {"id": "o" + text}, "extra": {**more, "x": '\n{"delete":{}}\n' + text}}
    entry, _ = one(event)
    assert b"\n" not in entry.body
    assert b"\n" not in entry.id.encode()


TEXT = st.text(max_size=12) | st.sampled_from(['"', "\\", "\n", "é", "\u2028", "}", '","x":"'])
NAME = TEXT.filter(bool)
SOME = st.none() | TEXT
EVENTS = st.fixed_dictionaries(
    {
        "timestamp": st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])).map(str)
        | st.integers(-62_135_596_800_000, 253_402_300_799_999),
        "organization": st.fixed_dictionaries({"id": NAME}, optional={"name": SOME}),
        "actor": st.fixed_dictionaries(
            {"type": st.sampled_from(["user", "api_token", "service"]), "id": NAME}, optional={"name": SOME, "email": SOME}
        ),
        "action": NAME | st.sampled_from(["role.assign", "Project.Update", "authentication.login"]),
        "resource": st.fixed_dictionaries({"type": NAME}, optional={"id": SOME, "name": SOME}),
        "status": st.sampled_from(["success", "failure"]),
    },
    optional={
        "ip": st.none() | st.sampled_from(["203.0.113.7", "10.0.0.1", "::ffff:203.0.113.9", "2001:DB8::7", ""]),
        "user_agent": SOME | st.sampled_from(["GitHub-Actions-Runner/2.3", "Mozilla/5.0 (X11; Linux x86_64) Firefox/144.0"]),
        "ci": st.none()
        | st.fixed_dictionaries({}, optional={"platform": SOME, "run_id": SOME, "run_url": SOME, "repository": SOME}),
        "reason": SOME,
        "request_id": SOME,
        "session_id": SOME,
        "changes": st.none()
        | st.lists(st.fixed_dictionaries({"field": NAME}, optional={"from": TEXT | st.integers(), "to": SOME}), max_size=2),
        "more": TEXT | st.integers(),
    },
)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that says nothing twice."""
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


@settings(deadline=None)  # the tables of user agents are read when the first is seen
@given(st.lists(EVENTS, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_what_is_spliced_is_what_a_tree_of_structs_encodes_to(events: list[dict[str, Any]], crlf: bool, is_known: bool) -> None:
    data = b"".join(json.dumps(event).encode() + (b"\r\n" if crlf else b"\n") for event in events)
    head = header(data, lines=len(events))
    block, build = Block.of(head, sender="", now_ms=NOW_MS), BUILDER if is_known else builder()
    for decoded in decode_block(head, data):
        entry = build.build(block, decoded)
        assert entry.body == build.build(block, decoded).body, "what is remembered gives the same"
        if entry.dataset != "rejected":
            expected = reference(block, decoded, PLACES, SEVERITIES)
            assert json.loads(entry.body, object_pairs_hook=once) == json.loads(expected)
        else:
            assert decoded.error or "year" in entry.body.decode()


WRONG = st.sampled_from([b"", b"{", b'{"timestamp":1}']) | st.binary(max_size=20).map(lambda some: some.replace(b"\n", b""))
HOSTILE = st.sampled_from(
    [{"ip": "nowhere"}, {"ip": "10.0.0.1, 10.0.0.2"}, {"organization": {"id": "org-2"}}, {"n": 1}, {"m": 2}]
)
LINES = (
    EVENTS.map(lambda event: json.dumps(event).encode()) | HOSTILE.map(lambda more: json.dumps(EVENT | more).encode()) | WRONG
)


@settings(deadline=None)
@given(st.lists(LINES, min_size=1, max_size=12), st.booleans(), st.booleans())
def test_lines_that_are_taken_together_are_what_each_is_alone(texts: list[bytes], is_limited: bool, is_known: bool) -> None:
    data = b"".join(text + b"\n" for text in texts)
    head = header(data, lines=len(texts), offset=77)
    if not is_plain(head, data):
        return
    organizations = frozenset({"org-1"}) if is_limited else frozenset()
    block, build = Block.of(head, sender="", now_ms=NOW_MS, organizations=organizations), BUILDER if is_known else builder()
    together, later = build.take(block, 77, texts)
    assert not later
    assert together == [build.build(block, decoded) for decoded in decode_block(head, data)]
    assert together == build.take(block, 77, texts)[0], "what is remembered gives the same"


@given(st.binary(max_size=300))
def test_any_bytes_become_entries_with_their_bytes_to_be_told_again(data: bytes) -> None:
    data += b"\n"
    made = entries(data, lines=data.count(b"\n"))
    for raw, entry in zip(data[:-1].split(b"\n"), made, strict=True):
        document = json.loads(entry.body)
        exact = document["audit"].get("rejection", {}).get("bytes")
        kept = base64.b64decode(exact) if exact else document["event"]["original"].encode()
        text = raw.lstrip(b"\0")
        assert text.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\r") == kept or text.removesuffix(b"\r") == kept


def test_an_enrichment_that_raises_rejects_its_line_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    good = {name: value for name, value in EVENT.items() if name != "ip"}
    data = b"".join(json.dumps(event).encode() + b"\n" for event in (EVENT, good))
    broken, whole = entries(data, places=Broken(None, None, 10))
    assert (broken.dataset, whole.dataset) == ("rejected", "web")
    assert json.loads(broken.body)["audit"]["rejection"]["reason"] == "enrichment failed: RuntimeError"
    assert "enrichment failed" in caplog.text


def test_what_was_enriched_while_places_were_forgotten_is_not_remembered() -> None:
    class Replaced(Places):
        """A database that is replaced while an address is looked up."""

        def look_up(self, ip: str) -> Place:
            found = super().look_up(ip)
            if not looked:
                built.forget()
            looked.append(ip)
            return found

    looked: list[str] = []
    built = builder(Replaced(demo_database.path(), None, 100))
    data = json.dumps(EVENT).encode() + b"\n"
    block = Block.of(header(data), sender="", now_ms=NOW_MS)
    for _ in range(3):
        built.take(block, 0, [data[:-1]])
    assert len(looked) == 2, "again after it was forgotten, and not a third time"


def test_who_may_not_speak_for_an_organization_is_rejected_and_its_retention_is_its_own() -> None:
    entry, document = one(EVENT, organizations=frozenset({"org-2"}))
    assert entry.dataset == "rejected"
    assert document["audit"]["rejection"]["pointer"] == "/organization/id"
    kept, _ = one({**EVENT, "organization": {"id": "org-bank"}})
    assert kept.retention == "365d"


@pytest.mark.parametrize(
    "timestamp", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", -62_135_596_800_000, 253_402_300_799_999]
)
def test_times_at_the_edges_are_told_or_kept(timestamp: object) -> None:
    entry, document = one({**EVENT, "timestamp": timestamp})
    assert entry.dataset == ("rejected" if isinstance(timestamp, str) else "web")
    assert document["@timestamp"]


def test_half_of_a_surrogate_pair_stops_no_event_and_stays_in_its_original() -> None:
    event = {**EVENT, "resource": {"type": "project", "name": "Engine \ud83d"}}
    entry, document = one(event)
    assert entry.dataset == "web"
    assert document["audit"]["resource"]["name"] == "Engine \ufffd"
    assert document["event"]["original"] == json.dumps(event)
    assert "\\uD83D" in one({**EVENT, "reason": "\\uD83D"})[1]["event"]["reason"], "that is no half, but text"


def test_the_same_line_in_another_generation_of_its_file_is_another_document() -> None:
    ids = {one(EVENT, stream=stream_id("gw-1", 1, 2, generation, b"x"))[0].id for generation in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("change", [{"field": "a", "to": 1}, {"field": "a", "from": None}, {"field": "a"}])
def test_a_change_without_one_of_its_sides_is_kept_as_it_is(change: dict[str, Any]) -> None:
    _, document = one({**EVENT, "changes": [change]})
    assert document["audit"]["changes"] == [change]


REJECTED = [b"{", b"{}", json.dumps({**EVENT, "status": 1}).encode(), json.dumps({**EVENT, "ip": "nowhere"}).encode()]


@pytest.mark.parametrize("ending", [b"", b"\r"], ids=["plain", "with a carriage return"])
@pytest.mark.parametrize("line", REJECTED, ids=["no JSON", "a field missing", "a wrong type", "no address"])
def test_rejected_lines_leave_nothing_in_memory(line: bytes, ending: bytes) -> None:
    texts = [line + ending] * 20
    data = b"\n".join(texts) + b"\n"
    block = Block.of(header(data), sender="", now_ms=NOW_MS)

    def blocks_after(times: int) -> int:
        for _ in range(times):
            if ending:
                made = [BUILDER.build(block, decoded) for decoded in decode_block(header(data), data)]
            else:
                made, _ = BUILDER.take(block, 0, texts)
            assert {entry.dataset for entry in made} == {"rejected"}
        del made
        gc.collect()
        return sys.getallocatedblocks()

    before = blocks_after(20)
    assert blocks_after(50) - before < 250, "of 1,000 lines"
