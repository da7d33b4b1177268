"""What an organisation hides is nowhere in what either store keeps, and its people are found by their pseudonyms."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from stores import NOW_MS, Store
from support import header

from indexer.assemble import builder_of, places_of
from indexer.document import REJECTED
from indexer.enrich.privacy import Keyed
from indexer.organizations import Policies
from indexer.pipeline import Pipeline
from indexer.record import ORGANIZATION, Maker, Who
from indexer.recorder import Recorder
from indexer.settings import EnrichmentSettings
from indexer.store.contract import Query

KEY = "0123456789abcdef0123456789abcdef"
POLICIES = """
pseudonym_key_file = "pseudonym.key"
[[organization]]
id = "org-bank"
[organization.privacy]
mask = ["*card_number*"]
pseudonyms = ["actor.id", "actor.name"]
emails = "pseudonym"
ip = "truncate"
hash = "hmac-sha-256"
"""
PERSON, NAME, EMAIL, IP, CARD, PASSWORD = (
    "user-1701", "Ada Lovelace", "ada@bank.example", "203.0.113.77", "4929123456789012", "hunter22-hunter22",
)  # fmt: skip
HIDDEN = (PERSON, NAME, EMAIL, IP, CARD, PASSWORD)
EVERYTHING = (Query(), Query(datasets=(REJECTED,)))


def line(organization: str, number: int, **more: Any) -> bytes:
    """A line that says everything hidden twice: under its name, and in passing."""
    event = {
        "timestamp": NOW_MS - number,
        "organization": {"id": organization, "name": "Bank"},
        "actor": {"type": "user", "id": PERSON, "name": NAME, "email": EMAIL},
        "action": "member.update",
        "resource": {"type": "member", "id": EMAIL, "name": f"{NAME} ({PERSON})"},
        "status": "success",
        "ip": IP,
        "user_agent": f"acme-cli/2.4.1 ({PASSWORD})",
        "reason": f"{NAME} <{EMAIL}> from {IP} paid with {CARD}, password={PASSWORD}",
        "session_id": PASSWORD,
        "db_password": PASSWORD,
        "changes": [{"field": "billing.card_number", "from": CARD, "to": None}, {"field": "owner", "to": {"is": [PERSON]}}],
        "customer": {"card_number": CARD, "note": json.dumps({"by": EMAIL})},
        EMAIL: f"https://example.com/?who={EMAIL.replace('@', '%40')}",
    }
    return json.dumps(event | more).encode() + b"\n"


HERS = [line("org-bank", number) for number in range(3)]
ANOTHER_S = line(
    "org-bank",
    5,
    actor={"type": "user", "id": "user-2", "name": "Grace Hopper", "email": "grace@bank.example"},
    resource={"type": "member", "id": EMAIL},
    reason=f"{EMAIL} was locked out of {IP}",
    changes=[],
)
REJECTED_LINES = [line("org-bank", 6, status="perhaps"), line("org-bank", 7)[:-9] + b"\n"]
PLAIN = line("org-open", 9)


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """A store with lines of an organisation that hides, and one of another that says the same and hides nothing."""
    (tmp_path / "organizations.toml").write_text(POLICIES)
    (tmp_path / "pseudonym.key").write_text(KEY)
    (tmp_path / "pseudonym.key").chmod(0o600)
    settings = EnrichmentSettings(organizations=tmp_path / "organizations.toml")
    data = b"".join([*HERS, ANOTHER_S, *REJECTED_LINES, PLAIN])

    async def work() -> None:
        writer = store.open_writer()
        pipeline = Pipeline(builder_of(settings, places_of(settings), retention="30d"), writer, clock=lambda: NOW_MS)
        try:
            await pipeline.take(header(data, offset=500), data, sender="gw-1", organizations=frozenset())
        finally:
            await pipeline.close()
            await writer.close()

    asyncio.run(work())
    store.refresh()
    return store


def texts(value: Any) -> Iterator[str]:
    """Every key, text and number of any JSON, and of the JSON within its texts."""
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    else:
        yield str(value)
        if isinstance(value, str) and value.startswith(("{", "[")):
            with suppress(ValueError):
                yield from texts(json.loads(value))


def found(store: Store, query: Query) -> list[int]:
    """The lines that a query finds, by how long before now they were."""
    return [NOW_MS - hit.time_ms for hit in store.reader.search(query).hits]


def test_nothing_hidden_is_in_what_is_stored(filled: Store, tmp_path: Path) -> None:
    bodies = [hit.body for query in EVERYTHING for hit in filled.reader.scan(query)]
    assert len(bodies) == len(HERS) + 1 + len(REJECTED_LINES) + 1
    of_the_bank = [body for body in bodies if b"org-open" not in body]
    assert len(of_the_bank) == len(bodies) - 1
    for body in of_the_bank:
        assert json.loads(body)["tags"] in (["masked"], ["withheld"])
        said = "\n".join((body.decode(), *texts(json.loads(body)))).lower()
        assert [value for value in HIDDEN if value.lower() in said] == []
        assert EMAIL.replace("@", "%40") not in said
    (open_body,) = (body for body in bodies if b"org-open" in body)
    assert all(value in open_body.decode() for value in HIDDEN), "the lines do say what is looked for"
    for row in rows(tmp_path):
        if not any("org-open" in each for each in row):
            assert [value for value in HIDDEN if any(value.lower() in each.lower() for each in row)] == []


def rows(folder: Path) -> Iterator[list[str]]:
    """The rows of the embedded store's own tables, beside the documents; none elsewhere."""
    for file in folder.rglob("*.sqlite"):
        with closing(sqlite3.connect(file)) as database:
            tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
            for (table,) in database.execute(tables).fetchall():
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    yield [each for each in row if isinstance(each, str)]


QUERIES = [
    (PERSON, f'"{PERSON}"'),
    (PERSON, f"{PERSON}*"),
    (PERSON, f'user.id:"{PERSON}"'),
    (PERSON, f'related.user:"{PERSON}"'),
    (NAME, f'"{NAME}"'),
    (NAME, "*lovelace*"),
    (NAME, f'user.name:"{NAME}"'),
    (NAME, "user.full_name:*lovelace"),
    (NAME, "event.reason:lovelace"),
    (NAME, "audit.resource.name:ada*"),
    (EMAIL, f'"{EMAIL}"'),
    (EMAIL, "*@bank.example"),
    (EMAIL, f'user.email:"{EMAIL}"'),
    (EMAIL, f'audit.resource.id:"{EMAIL}"'),
    (EMAIL, f'related.user:"{EMAIL}"'),
    (EMAIL, "audit.extra:*bank.example*"),
    (IP, f'source.ip:"{IP}"'),
    (IP, f'related.ip:"{IP}"'),
    (IP, f'"{IP}"'),
    (CARD, f'audit.extra.customer.card_number:"{CARD}"'),
    (CARD, f"audit.extra:{CARD[:8]}*"),
    (CARD, f"event.reason:{CARD}"),
    (PASSWORD, f'session.id:"{PASSWORD}"'),
    (PASSWORD, 'event.reason:"hunter22 hunter22"'),
]


def test_no_query_finds_what_is_hidden(filled: Store) -> None:
    """Each finds the line of the organisation that hides nothing, and that alone."""
    wrong = [text for _, text in QUERIES if found(filled, Query(text)) != [9]]
    assert wrong == []
    assert {value for value, _ in QUERIES} == set(HIDDEN)
    for actor in (PERSON, NAME, EMAIL):
        assert found(filled, Query(actor=actor)) == [9]
    for value in HIDDEN:
        assert found(filled, Query(f'"{value}"', datasets=(REJECTED,))) == []
    assert filled.reader.facets(Query(organization="org-bank"), ["source.ip"]) == {"source.ip": [("203.0.113.0", 4)]}


def test_a_person_is_found_by_their_pseudonyms(filled: Store) -> None:
    """The same events from both stores, whichever name of the person's the pseudonym stands for."""
    keyed = Keyed(KEY.encode(), "org-bank")
    by_id, by_name, by_email = (keyed.pseudonym(each) for each in (PERSON, NAME, EMAIL))
    for query in (
        Query(f"user.id:{by_id}"),
        Query(f'"{by_id}"'),
        Query(f"user.name:{by_name}"),
        Query(f"user.full_name:{by_name[:20]}*"),
        Query(f"user.email:{by_email}"),
        Query(f"related.user:{by_email} AND organization.id:org-bank"),
        Query(actor=by_id),
        Query(actor=by_name),
        Query(actor=by_email.upper()),
    ):
        assert found(filled, query) == [0, 1, 2], query
    assert found(filled, Query(f'audit.resource.id:"{by_email}"')) == [0, 1, 2, 5], "as what somebody else did something to"
    hits = filled.reader.actor_history("org-bank", by_id, since_ms=NOW_MS - 60_000)
    assert [NOW_MS - hit.time_ms for hit in hits] == [0, 1, 2]
    assert found(filled, Query(actor=Keyed(KEY.encode(), "org-open").pseudonym(PERSON))) == []


def test_who_looked_for_a_person_is_found_by_the_pseudonym_alone(filled: Store, tmp_path: Path) -> None:
    """What an organisation hides is stored by no one who looks for it, either."""
    policies = Policies.load(tmp_path / "organizations.toml", "30d")

    async def work() -> None:
        writer = filled.open_writer()
        recorder = Recorder(writer, Maker("30d", policies.discretion(ORGANIZATION)), lambda: None)
        for number, (_, text) in enumerate(QUERIES):
            await recorder.searched(Who("api_token", f"soc-{number}", "HTTP"), {"query": text}, 1)
        await recorder.flush(is_last=True)
        await writer.close()

    asyncio.run(work())
    filled.refresh()
    everything = [hit.body for hit in filled.reader.scan(Query(datasets=("access",)))]
    assert len(everything) == len(QUERIES)
    said = "\n".join(text for body in everything for text in (body.decode(), *texts(json.loads(body)))).lower()
    assert [value for value in (PERSON, NAME, EMAIL, IP) if value.lower() in said] == []
    keyed = Keyed(KEY.encode(), "org-bank")
    for value in (PERSON, NAME, EMAIL):
        query = Query(f"related.user:{keyed.pseudonym(value)}", datasets=("access",))
        who = {json.loads(hit.body)["user"]["id"] for hit in filled.reader.search(query).hits}
        assert who == {f"soc-{number}" for number, (_, text) in enumerate(QUERIES) if f'"{value}"' in text} != set()
