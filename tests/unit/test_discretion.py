"""What the record of a question says: the question, without what organisations hide."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.json import decode

from auditship.cli import cli
from indexer.discretion import ORGANIZATIONS_MAX, Discretion
from indexer.enrich.privacy import Keyed, Privacy
from indexer.record import MANY, Access, Maker, Who
from indexer.store.contract import Query
from indexer.store.embedded import EmbeddedReader
from indexer.store.query import parse

KEY = b"0123456789abcdef0123456789abcdef"
BANK = Privacy(mask=("*card_number*",), pseudonyms=("actor.id", "actor.name"), emails="pseudonym", ip="truncate")
CLINIC = Privacy(pseudonyms=("actor.id",), emails="mask", ip="drop")
CAREFUL = Privacy()
PSEUDONYM = re.compile(r"p-[a-z2-7]{26}")


def discretion(key: bytes = KEY, **policies: Privacy) -> Discretion:
    return Discretion(list(policies.items()), key, "auditship", policies.get)


def p(value: str, organization: str = "bank") -> str:
    return Keyed(KEY, organization).pseudonym(value)


def told(query: str, **details: Any) -> str:
    """What is recorded of a query where one organisation hides."""
    found, _ = discretion(bank=BANK).hide({"query": query, **details})
    return str(found["query"])


@pytest.mark.parametrize(
    ("query", "recorded"),
    [
        ("user.email:ada@bank.example", f"user.email:{p('ada@bank.example')}"),
        (r"user.email:ada\@bank.example", f"user.email:{p('ada@bank.example')}"),
        ('"ada@bank.example"', p("ada@bank.example")),
        ('audit.resource.name:"to ada@bank.example"', f'audit.resource.name:"to {p("ada@bank.example")}"'),
        ('user.name:"Ada Lovelace" AND event.action:login', f"user.name:{p('Ada Lovelace')} AND event.action:login"),
        ("Ada Lovelace", p("ada lovelace")),
        ("user.id:(u-1 OR u-2) AND NOT user.id:u-3", f"user.id:({p('u-1')} OR {p('u-2')}) AND NOT user.id:{p('u-3')}"),
        ("user.name:ada*", 'user.name:"[masked]"'),
        ("user.name:[ada TO bob]", 'user.name:["[masked]" TO "[masked]"]'),
        ("/ada.*/", '"[masked]"'),
        ("*@bank.example", '"[masked]"'),
        ("user.email:ada@bank*", 'user.email:"[masked]"'),
        ("audit.extra.payment.cardNumber:4929123456789012", 'audit.extra.payment.cardNumber:"[masked]"'),
        ("4929123456789012", p("4929123456789012")),
        ("audit.extra.smtp.password:hunter22", 'audit.extra.smtp.password:"[masked]"'),
        ("token:hunter22", 'token:"[masked]"'),
        ('audit.resource.name:"https://me:hunter22@host/"', 'audit.resource.name:"[masked]"'),
        ("audit.resource.id:ghp_0123456789abcdefghij", 'audit.resource.id:"[masked]"'),
        (r"audit.extra.ada\@bank.example:1", f"audit.extra.{p('ada@bank.example')}:1"),
        (r"_exists_:audit.extra.ada\@bank.example", f"_exists_:audit.extra.{p('ada@bank.example')}"),
        ('source.ip:"203.0.113.7"', "source.ip:203.0.113.0"),
        ('source.ip:"203.0.113.7/32"', 'source.ip:"203.0.113.0/24"'),
        ("source.ip:[203.0.113.7 TO 203.0.113.9]", "source.ip:[203.0.113.0 TO 203.0.113.0]"),
        ("source.ip:203.0.113.7*", 'source.ip:"[masked]"'),
        ('audit.location:"Berlin, 203.0.113.7"', 'audit.location:"Berlin, 203.0.113.0"'),
        ("(user.name:ada", "[masked]"),
        ("ada~2", f"{p('ada')}~2"),
    ],
)
def test_what_is_hidden_in_events_is_hidden_in_questions(query: str, recorded: str) -> None:
    assert told(query) == recorded


@pytest.mark.parametrize(
    "query",
    [
        "audit.severity:critical AND event.action:project.update AND event.outcome:failure",
        "@timestamp:[2026-11-01 TO now-1h] AND audit.resource.id:p-3",
        'source.ip:"10.0.0.0/8" AND NOT tags:new_country',
        "_exists_:user.email AND user.name:*",
        f"user.id:{p('u-7')} OR {p('Ada')}",
        'user_agent.original:"acme/142.0.0.7"',
        "organization.id:bank",
        "",
    ],
)
def test_what_is_not_hidden_stays_word_for_word(query: str) -> None:
    assert told(query) == query


def test_a_recorded_query_can_be_asked_again() -> None:
    for query in (
        "user.email:ada@bank.example AND Ada Lovelace",
        "a AND (b OR user.name:c*) NOT source.ip:10.0.0.7",
        '"x y" z',
    ):
        found, _ = discretion(bank=BANK, clinic=CLINIC).hide({"query": query})
        assert parse(found["query"]) != parse(query)


def test_it_is_the_policy_of_those_whom_the_question_is_about() -> None:
    both = discretion(bank=BANK, clinic=CLINIC)

    def asked(query: str, **details: Any) -> Any:
        return both.hide({"query": query, **details})[0]

    assert asked("user.id:u-7")["query"] == f"user.id:({p('u-7')} OR {p('u-7', 'clinic')})"
    assert asked("user.id:u-7", organization="Clinic")["query"] == f"user.id:{p('u-7', 'clinic')}"
    assert asked("user.id:u-7", organizations=("bank",))["query"] == f"user.id:{p('u-7')}"
    by_query = asked("user.id:u-7 AND organization.id:BANK")["query"]
    assert by_query == f"user.id:{p('u-7')} AND organization.id:BANK"
    assert asked("user.id:u-7", organization="open")["query"] == "user.id:u-7"
    for widened in (
        "user.id:u-7 OR organization.id:open",
        "user.id:u-7 AND organization.id:*",
        "user.id:u-7 NOT organization.id:x",
    ):
        assert "u-7" not in asked(widened)["query"], widened
    assert asked("user.id:u-7 AND organization.id:open", organizations=("bank",))["query"].startswith(f"user.id:{p('u-7')}")
    assert asked("203.0.113.7 ada@x.example", organization="clinic")["query"] == p("203.0.113.7 ada@x.example", "clinic")
    assert asked("source.ip:203.0.113.7", organizations=("bank", "clinic"))["query"] == 'source.ip:"[masked]"'


def test_the_options_beside_a_query_are_hidden_too() -> None:
    details = {
        "query": "",
        "actor": "Ada Lovelace",
        "action": "login",
        "organization": "bank",
        "severities": ("critical",),
        "out": "/tmp/of ada@bank.example",
        "hits": 3,
    }
    found, pseudonyms = discretion(bank=BANK).hide(details)
    assert found == details | {"actor": p("ada lovelace"), "out": f"/tmp/of {p('ada@bank.example')}"}
    assert set(pseudonyms) == {p("ada lovelace"), p("ada@bank.example")}


def test_without_a_key_everything_is_masked() -> None:
    found, pseudonyms = discretion(b"", bank=BANK).hide({"query": "user.id:u-7 AND ada@bank.example", "actor": "ada"})
    assert found == {"query": 'user.id:"[masked]" AND "[masked]"', "actor": "[masked]"}
    assert pseudonyms == ()


def test_of_many_policies_a_value_has_one_pseudonym() -> None:
    many = discretion(**{f"org-{number}": BANK for number in range(ORGANIZATIONS_MAX + 1)})
    assert many.hide({"query": "user.id:u-7"})[0]["query"] == f"user.id:{p('u-7', 'auditship')}"


def test_a_policy_of_secrets_alone_leaves_names() -> None:
    found, _ = discretion(bank=CAREFUL).hide(
        {"query": 'user.name:ada AND lovelace AND "password=hunter22" AND AKIA0123456789ABCDEF'}
    )
    assert found["query"] == 'user.name:ada AND lovelace AND "password=[masked]" AND "[masked]"'


HOSTILE = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=4, max_size=20)
NAMES = st.from_regex(r"[b-df-hj-np-tv-z]{6,12}", fullmatch=True)
WAYS = ["{}", '"{}"', "user.name:{}", 'user.name:"{}"', "user.id:({} OR x)", "user.full_name:{}*", "*{}*", "related.user:{}"]
WAYS += [
    "NOT {}",
    "+{} -x",
    "user.name:[{} TO *]",
    "user.name:>{}",
    "event.reason:{}",
    "user.name:/{}/",
    "{}^2",
    "a OR (b AND user.id:{})",
]
WAYS += ["audit.extra:{}", "nothing.known:{}", "user:{}", "{} {}", 'x "{} y', "*:{}", "user.name:{}~1"]


@settings(deadline=None, max_examples=300)
@given(NAMES, st.sampled_from(WAYS), st.sampled_from(WAYS))
def test_a_name_is_recorded_in_no_way(name: str, first: str, second: str) -> None:
    found, _ = discretion(bank=BANK).hide({"query": f"{first} AND {second}".replace("{}", name), "actor": name})
    left = PSEUDONYM.sub("", str(found))
    assert name not in left, left


@settings(deadline=None, max_examples=300)
@example("00^.")  # the parser's own numbers fail in a way of their own
@given(HOSTILE)
def test_whatever_is_asked_something_is_recorded(text: str) -> None:
    found, _ = discretion(bank=BANK).hide({"query": text})
    assert isinstance(found["query"], str)
    assert found["query"] or not text.strip()


def test_a_defect_records_no_query(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("indexer.discretion._Told.value", lambda *_, **__: 1 / 0)
    assert told("user.name:ada") == "[masked]"
    assert "cannot be masked and is recorded as [masked]: ZeroDivisionError" in caplog.text


def test_the_record_has_no_trace_of_the_value_and_can_be_found_by_its_pseudonym() -> None:
    maker = Maker("30d", discretion(bank=BANK))
    who = Who("user", "soc-1", "auditship search")
    entry = maker.entry(Access("audit.search", who, {"query": "user.email:ada@bank.example"}), 1_795_460_000_000)
    assert b"ada@bank" not in entry.body
    document = decode(entry.body)
    assert document["related"]["user"] == ["soc-1", p("ada@bank.example")]
    assert p("ada@bank.example") in document["event"]["original"]
    many = maker.entry(Access("audit.search", who, {"query": MANY}), 1_795_460_000_000)
    assert decode(many.body)["audit"]["extra"]["query"] == MANY


@pytest.mark.parametrize("can_read", [True, False])
def test_the_command_line_records_no_more(tmp_path: Path, *, can_read: bool) -> None:
    """Whoever searches, and whether or not they may read the key."""
    (tmp_path / "store").mkdir()
    (tmp_path / "indexer.toml").write_text('[store]\npath = "store"\n[enrichment]\norganizations = "organizations.toml"\n')
    policy = '[[organization]]\nid = "bank"\n[organization.privacy]\nemails = "pseudonym"\n'
    (tmp_path / "organizations.toml").write_text(f'pseudonym_key_file = "key"\n{policy}')
    if can_read:
        (tmp_path / "key").write_text(KEY.decode())
        (tmp_path / "key").chmod(0o600)
    asked = ["search", "user.email:ada@bank.example", "--config", str(tmp_path / "indexer.toml")]
    done = CliRunner().invoke(cli, asked)
    assert (done.exit_code, done.stderr) == (0, "")
    (hit,) = EmbeddedReader(tmp_path / "store", lambda: 2**41).scan(Query(datasets=("access",)))
    shown = p("ada@bank.example") if can_read else '"[masked]"'
    assert decode(hit.body)["audit"]["extra"]["query"] == f"user.email:{shown}"
    assert b"ada@bank" not in hit.body
