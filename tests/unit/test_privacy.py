"""Promises of privacy: what an organisation hides is nowhere in what is stored, and the rest stays as it was."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import header

from auditship.errors import ConfigurationError
from auditship.line import LineError
from auditship.sample import Sample
from indexer.assemble import builder_of, places_of
from indexer.build import Block, Builder
from indexer.commands.pseudonym import pseudonym as command
from indexer.decode import Decoded, decode_block, is_plain
from indexer.enrich import demo_database
from indexer.enrich.actor import Actors
from indexer.enrich.clues import MASKED
from indexer.enrich.hidden import HIDDEN_MAX
from indexer.enrich.location import Places
from indexer.enrich.mask import Mask
from indexer.enrich.names import Names
from indexer.enrich.platform import Platforms
from indexer.enrich.privacy import Keyed, Masks, Privacy
from indexer.enrich.severity import Severities
from indexer.organizations import Policies
from indexer.settings import EnrichmentSettings

NOW_MS = 1_795_458_000_000
KEY = b"0123456789abcdef0123456789abcdef"
SEVERITIES, PLACES = Severities.load(None), Places(demo_database.path(), None, 100)
EVENT: dict[str, Any] = {
    "timestamp": "2026-11-23T19:20:00.25+01:00",
    "organization": {"id": "org-1", "name": "Acme"},
    "actor": {"type": "user", "id": "u-7", "name": "Ada Lovelace", "email": "ada@example.com"},
    "action": "project.update",
    "resource": {"type": "project", "id": "p-3", "name": "Engine"},
    "status": "success",
    "ip": "203.0.113.7",
    "user_agent": "acme-cli/2.4.1 (darwin; arm64)",
    "request_id": "r-1",
}


def built(data: bytes, privacy: Privacy | None, *, senders: frozenset[str] = frozenset(), who: str = "org-1") -> list[bytes]:
    """The documents of lines; ``who`` names whose policy it is, a glob of one star or an id."""
    masks = Masks(lambda name: privacy if who in ("*", name) else None, KEY)
    builder = Builder(Actors(100), PLACES, Platforms(), SEVERITIES, lambda name: "30d", masks=masks)
    head = header(data, lines=data.count(b"\n"), offset=500)
    block = Block.of(head, sender="gw-1", now_ms=NOW_MS, organizations=senders)
    alone = [builder.build(block, decoded) for decoded in decode_block(head, data)]
    if is_plain(head, data):
        assert builder.take(block, head.offset, data[:-1].split(b"\n"))[0] == alone, "taken together they are the same"
    return [entry.body for entry in alone]


def one(event: dict[str, Any], privacy: Privacy | None, **more: Any) -> dict[str, Any]:
    (body,) = built(json.dumps(event).encode() + b"\n", privacy, **more)
    document: dict[str, Any] = json.loads(body)
    return document


def texts(value: Any) -> list[str]:
    """Every text, key and number of any JSON, and what JSON within a text holds."""
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (key, *texts(each))]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    if isinstance(value, str) and value.startswith(("{", "[")):
        try:
            return [value, *texts(json.loads(value))]
        except ValueError:
            return [value]
    return [str(value)]


def holds(body: bytes, secret: str) -> bool:
    return secret.encode() in body or any(secret in text for text in texts(json.loads(body)))


SECRET = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=4, max_size=30)
PLACES_OF_SECRETS: list[Any] = [
    lambda s: {"changes": [{"field": "password", "from": s, "to": "new " + s}]},
    lambda s: {"changes": [{"field": "smtp.apiKey", "to": {"deep": [s, {"er": s}]}}]},
    lambda s: {"changes": [{"field": "settings", "from": None, "to": {"client_secret": s, "other": f"-{s}-"}}]},
    lambda s: {"password": s, "reason": f"password {s} was refused"},
    lambda s: {"headers": {"Authorization": s}, "url": f"https://example.com/?q={s}", s: 1},
    lambda s: {"config": json.dumps({"token": s}), "token": s},
    lambda s: {"env": [{"name": "DB_PASSWORD", "value": s}, {"name": "LEVEL", "value": "debug"}]},
    lambda s: {"actor": {**EVENT["actor"], "secret": s, "name": f"Ada {s}"}, "resource": {**EVENT["resource"], "name": s}},
    lambda s: {"ci": {"platform": "jenkins", "run_url": f"https://ci/{s}", "token": s}},
    lambda s: {"user_agent": f"acme/1.0 ({s})", "request_id": s, "session_id": s, "credentials": [s]},
    lambda s: {"private_key": s, "ip": s},
    lambda s: {"private_key": s, "timestamp": s},
    lambda s: {"private_key": s, "status": {"nested": s}},
    lambda s: {"organization": {"id": "org-1", "name": s}, "api_key": s},
]


@settings(deadline=None)
@given(SECRET, st.sampled_from(PLACES_OF_SECRETS))
def test_a_masked_value_is_nowhere_in_the_document(secret: str, place: Any) -> None:
    (body,) = built(json.dumps(EVENT | place(secret)).encode() + b"\n", Privacy())
    (other,) = built(json.dumps(EVENT | place("~~~~")).encode() + b"\n", Privacy())
    assume(not holds(other, secret))  # the words of the document itself
    structural = {"ip", "timestamp"} & place(secret).keys()
    assert holds(body, secret) == bool(structural)
    raw = json.dumps(EVENT | place(secret), ensure_ascii=False).encode() + b"\n"
    (body,) = built(raw, Privacy())
    assert holds(body, secret) == bool(structural)


@settings(deadline=None)
@given(SECRET, st.sampled_from(PLACES_OF_SECRETS), st.integers(0, 40))
def test_a_masked_value_is_nowhere_in_a_rejected_line(secret: str, place: Any, cut: int) -> None:
    def rejected(event: dict[str, Any]) -> list[bytes]:
        raw = json.dumps(event).encode()
        lines = [raw[:-cut] if cut else raw, raw.replace(b'"success"', b'"perhaps"'), raw.replace(b'"u-7"', b"7")]
        nobody_s = [line.replace(b'"org-1"', b"1") for line in lines]
        return [
            *built(b"".join(line + b"\n" for line in lines), Privacy()),
            *built(b"".join(line + b"\n" for line in nobody_s), Privacy(), who="*"),
        ]

    assume(not any(holds(body, secret) for body in rejected(EVENT | place("~~~~"))))
    structural = {"ip", "timestamp"} & place(secret).keys()
    assert structural or not any(holds(body, secret) for body in rejected(EVENT | place(secret)))


def test_what_is_not_secret_stays_and_the_mask_is_told() -> None:
    event = EVENT | {
        "changes": [{"field": "password", "from": "old-one", "to": 987654}],
        "big": 12345678901234567890123,
        "x": 1.10,
    }
    document = one(event, Privacy())
    assert document["audit"]["changes"] == [{"field": "password", "from": MASKED, "to": MASKED}]
    assert document["audit"]["extra"] == {"big": 12345678901234567890123, "x": 1.1}
    assert document["tags"] == ["masked"]
    plain = one(event, None)
    for part in ("user", "organization", "source", "user_agent", "related", "log", "@timestamp"):
        assert document[part] == plain[part]
    assert json.loads(document["event"]["original"]) == event | {"changes": document["audit"]["changes"]}


@pytest.mark.parametrize(
    ("more", "secret"),
    [
        (b'"note":"bob@example.org","note":"x"', "bob@example.org"),
        (b'"password":"hunter22","password":null', "hunter22"),
        (b'"password":"hunter22","password":null,"note":"it was hunter22"', "hunter22"),
        (b'"config":{"password" : "hunter22", "password":"short"}', "hunter22"),
        (rb'"config":{"a\\":1,"pass\u0077ord":"hunter22","password":null,"b":"\u005c"}', "hunter22"),
        (rb'"config":"{\"password\":\"hunter22\",\"password\":null}"', "hunter22"),
        (b'"actor":{"type":"user","id":"u-7","email":"bob@example.org","email":null}', "bob@example.org"),
        (b'"resource":{"type":"project"},"list":[{"x":[{"token":"hunter22","token":[]}]}]', "hunter22"),
        (b'"env":{"name":"PASSWORD","value":"hunter22"},"env":1,"note":"hunter22"', "hunter22"),
    ],
)
def test_a_value_whose_name_stands_again_is_nowhere(more: bytes, secret: str) -> None:
    nothing_else = EVENT | {"actor": {"type": "user", "id": "u-7"}}
    (body,) = built(json.dumps(nothing_else).encode()[:-1] + b"," + more + b"}\n", Privacy(emails="mask"))
    assert not holds(body, secret)
    assert json.loads(body)["event"]["kind"] == "event"
    assert json.loads(body)["tags"] == ["masked"]


@pytest.mark.parametrize(
    "more",
    [
        r'"name":"Zo\u00eb","url":"https:\/\/example.com"',
        r'"a":"\u005c","b\\":"\"","c":"\\\"","d" : ": \":"',
        r'"text":"{\"a\": [{\"a\":1.50}, {\"a\":1}]}","list":[{"a":1},{"a":2}]',
    ],
)
def test_a_line_in_which_no_name_stands_twice_stays_byte_for_byte(more: str) -> None:
    raw = json.dumps(EVENT)[:-1] + "," + more + "}"
    document = json.loads(built(raw.encode() + b"\n", Privacy())[0])
    assert document["event"]["original"] == raw
    assert "tags" not in document


@pytest.mark.parametrize(
    "more",
    [
        {"password": "hunter22\ud83d", "note": "it was hunter22\ud83d"},
        {"config": json.dumps({"password": "hunter22", "note": "\ude00"})},
        {"config": [json.dumps({"a": ["\ud83d", json.dumps({"\ud83d": 1, "token": "hunter22"})]})]},
    ],
)
def test_a_line_with_half_of_a_surrogate_pair_is_masked_and_stays_an_event(more: dict[str, Any]) -> None:
    event = EVENT | {"resource": {"type": "project", "id": "p-3", "name": "Engine \ud83d"}}
    for each in (event | more, EVENT | more):
        (body,) = built(json.dumps(each).encode() + b"\n", Privacy())
        assert not holds(body, "hunter22")
        document = json.loads(body)
        assert document["event"]["kind"] == "event"
        assert document["tags"] == ["masked"]
    assert one(event, Privacy())["audit"]["resource"]["name"] == "Engine \ufffd"


def test_an_organization_is_told_of_a_line_that_is_no_event_whatever_halves_are_in_it() -> None:
    line = {
        "note": {"organization": {"id": "org-2"}, "name": "\ud83d"},
        "organization": {"id": "org-1"},
        "password": "hunter22",
    }
    (body,) = built(json.dumps(line).encode() + b"\n", Privacy())
    assert not holds(body, "hunter22")


@pytest.mark.parametrize(
    ("glob", "name", "other"),
    [
        ("card?no*", "x.card_no_1", "x.card_1"),
        ("*a[78]*z", "b.xa7_z", "b.xa_z"),
        ("[!x]b_c", "y.AbC", "y.xbC"),
        ("a_b.c_*", "aB.cD", "aB.dc"),
        ("card_no", "x.CARDNO", "x.cardno.y"),
    ],
)
def test_a_glob_may_have_wildcards_and_dots_anywhere(glob: str, name: str, other: str) -> None:
    names = Names((glob,), (), ())
    assert (names.choice(name), names.choice(other)) == ("mask", "keep")


@pytest.mark.parametrize(
    "name",
    ["PassWord", "passWord", "userPassWord", "PASSWORD", "passPhrase", "accesskey", "awsAccessKeyId", "X-API-KEY", "CARDNUMBER",
     "cardNumber", "Card Number", "card_Number_2"],
)  # fmt: skip
def test_a_name_is_known_however_it_is_written(name: str) -> None:
    privacy = Privacy(mask=("cardNumber*",))
    places: list[dict[str, Any]] = [
        {name: "hunter22"},
        {"deep": [{name: "hunter22"}]},
        {"env": [{"name": name, "value": "hunter22"}]},
    ]
    for place in places:
        assert not holds(built(json.dumps(EVENT | place).encode() + b"\n", privacy)[0], "hunter22")
    assert one(EVENT | {"changes": [{"field": name, "to": "hunter22"}]}, privacy)["audit"]["changes"][0]["to"] == MASKED


@pytest.mark.parametrize(
    "name", ["uiBanner", "ui_banner", "multiBank", "photoKen", "mapping", "spin", "keyboard", "compassWord"]
)
def test_other_names_are_not_taken_for_it(name: str) -> None:
    assert one(EVENT | {name: "hunter22"}, Privacy(mask=("*iban*",)))["audit"]["extra"] == {name: "hunter22"}


@pytest.mark.parametrize(
    "more",
    [
        {"env": [{"Name": "DB_PASSWORD", "Value": "hunter22"}]},
        {"diff": {"attribute": "Password", "oldValue": "other", "newValue": "hunter22"}},
        {"p": {"name": "settings", "key": "db_password", "value": "hunter22"}},
        {"changes": [{"field": "settings", "name": "db_password", "to": "hunter22"}]},
        {"changes": [{"field": "settings", "password": "hunter22", "to": 1}]},
        {"changes": [{"field": "settings.?token=hunter22&", "to": 1}]},
        {"changes": [{"field": "settings", "token=hunter22": 1}]},
    ],
)
def test_what_a_pair_or_a_change_names_is_nowhere(more: dict[str, Any]) -> None:
    assert not holds(built(json.dumps(EVENT | more).encode() + b"\n", Privacy())[0], "hunter22")


def test_a_pair_that_names_no_secret_stays() -> None:
    more = {
        "env": [{"Name": "LEVEL", "Value": "debug"}],
        "changes": [{"field": "members.bob", "to": "hunter22", "note": "was new"}],
    }
    assert json.loads(one(EVENT | more, Privacy())["event"]["original"]) == EVENT | more


def test_names_that_become_the_same_keep_their_values() -> None:
    event = EVENT | {
        "members": {"a@x.org": "admin", "b@x.org": "viewer", "[masked]": "literal", "[masked] 2": "too", "c@x.org": "owner"},
        "hits": {"203.0.113.7": 5, "203.0.113.9": 7},
        "d@x.org": 1,
        "e@x.org": 2,
        "actor": {**EVENT["actor"], "f@x.org": 3, "g@x.org": 4},
    }
    document = one(event, Privacy(emails="mask", ip="truncate"))
    extra, original = document["audit"]["extra"], json.loads(document["event"]["original"])
    assert sorted(extra["members"].values()) == ["admin", "literal", "owner", "too", "viewer"]
    assert extra["hits"] == {"203.0.113.0": 5, "203.0.113.0 2": 7}
    assert (extra[MASKED], extra[f"{MASKED} 2"]) == (1, 2)
    assert (extra[f"actor.{MASKED}"], extra[f"actor.{MASKED} 2"]) == (3, 4)
    assert (original[MASKED], original["actor"][MASKED]) == (1, 3)


def test_the_hash_is_that_of_the_line_as_it_was_unless_it_is_keyed() -> None:
    raw = json.dumps(EVENT | {"pin": "1234"}).encode()
    sha = hashlib.sha256(raw).hexdigest()
    plain, masked = one(json.loads(raw), None), one(json.loads(raw), Privacy())
    assert plain["event"]["hash"] == masked["event"]["hash"] == sha
    assert plain["event"]["id"] == masked["event"]["id"]
    keyed = one(json.loads(raw), Privacy(hash="hmac-sha-256"))
    assert keyed["event"]["hash"] == Keyed(KEY, "org-1").hash(raw).hex()
    assert keyed["event"]["id"] != plain["event"]["id"], "an identity by which the line could be guessed"
    assert keyed["event"]["id"] == one(json.loads(raw), Privacy(hash="hmac-sha-256"))["event"]["id"]


@pytest.mark.parametrize(
    ("text", "given_away"),
    [
        ("deploy --password=hunter22 --force", "hunter22"),
        ("GET /x?api_key=abcd1234&y=1", "abcd1234"),
        ("Authorization: Bearer eyJhbGciOiJ.abc-def", "eyJhbGciOiJ.abc-def"),
        ("postgres://app:s3cr3t@db:5432/x", "s3cr3t"),
        ('{"token": "tok-9999"}', "tok-9999"),
        ('{\\"token\\": \\"tok-9999\\"}', "tok-9999"),
        ("X-Api-Key: k-2222", "k-2222"),
        ("postgres://app:p@ssw0rd@db", "p@ssw0rd"),
    ],
)
def test_what_a_text_gives_away_is_hidden_in_the_whole_line(text: str, given_away: str) -> None:
    (body,) = built(json.dumps(EVENT | {"reason": text, "note": f"it was {given_away}."}).encode() + b"\n", Privacy())
    assert not holds(body, given_away)
    (kept,) = built(json.dumps(EVENT | {"reason": text}).encode() + b"\n", Privacy(secrets=False))
    assert holds(kept, given_away)


@pytest.mark.parametrize("text", ["invalid token: expired", "basic authentication", "no password", "the bearer of bad news"])
def test_prose_stays(text: str) -> None:
    assert one(EVENT | {"reason": text}, Privacy())["event"]["reason"] == text


def test_pseudonyms_tell_people_apart_within_an_organization_alone() -> None:
    privacy = Privacy(pseudonyms=("actor.id", "actor.name", "actor.email"))
    document = one(
        EVENT | {"reason": "Ada Lovelace (ada@example.com) asked", "owner": "u-7", "other": "the user u-7 ."}, privacy
    )
    keyed = Keyed(KEY, "org-1")
    assert document["user"] == {
        "id": keyed.pseudonym("u-7"),
        "name": keyed.pseudonym("Ada Lovelace"),
        "full_name": keyed.pseudonym("Ada Lovelace"),
        "email": keyed.pseudonym("ada@example.com"),
    }
    assert document["related"]["user"] == [document["user"][part] for part in ("id", "name", "email")]
    assert document["event"]["reason"] == f"{keyed.pseudonym('ada lovelace')} ({keyed.pseudonym('ADA@example.com')}) asked"
    assert re.fullmatch("p-[a-z2-7]{26}", keyed.pseudonym("u-7"))
    assert keyed.pseudonym("u-7") != Keyed(KEY, "org-2").pseudonym("u-7") != Keyed(b"x" * 32, "org-2").pseudonym("u-7")
    assert Keyed(KEY, "ORG-1").pseudonym("u-7") == keyed.pseudonym("u-7"), "stores do not tell organisations apart by case"


@settings(deadline=None)
@given(
    st.from_regex(r"[a-z0-9._+-]{3,20}@([a-z0-9-]{2,10}\.){1,3}[a-z]{2,5}", fullmatch=True),
    st.sampled_from(["mask", "pseudonym"]),
)
def test_an_email_address_is_nowhere(email: str, how: Any) -> None:
    event = EVENT | {
        "actor": {"type": "user", "id": email, "name": email, "email": email},
        "resource": {"type": "invitation", "id": "i-1", "name": f"to <{email}>"},
        "reason": f"{email} asked {email.upper()}",
        "list": [email, {email: 1}],
        email: 1,
        "ci": {"platform": "jenkins", email: 1},
    }
    (body,) = built(json.dumps(event).encode() + b"\n", Privacy(emails=how))
    assert not holds(body, email)
    assert not holds(body, email.upper())
    document = json.loads(body)
    assert document["user"]["id"] == Keyed(KEY, "org-1").pseudonym(email), "who it was is still told"
    assert document["user"]["email"] == document["user"]["id"]


@pytest.mark.parametrize(
    ("ip", "kept"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("2001:db8:1234:5678::77", "2001:db8:1234::"),
        ("2001:DB8:1234:5678:0:0:0:77", "2001:db8:1234::"),
        ("64:ff9b::203.0.113.77", "203.0.113.0"),
        ("64:ff9b::cb00:714d", "203.0.113.0"),
    ],
)
def test_an_address_is_truncated_everywhere(ip: str, kept: str) -> None:
    more = {"reason": f"from {ip}.", "forwarded": f"{ip}, 198.51.100.99", "peer": "198.51.100.98:443", "b": f"[{ip}]:80"}
    (body,) = built(json.dumps(EVENT | more | {"ip": ip}).encode() + b"\n", Privacy(ip="truncate"))
    document = json.loads(body)
    assert document["source"]["ip"] == kept
    assert document["related"]["ip"] == [kept]
    assert document["audit"]["location"].endswith(f", {kept}")
    for each in (ip, ip.lower(), "203.0.113.77", "198.51.100.99", "198.51.100.98", ":77"):
        assert not holds(body, each), each
    (body,) = built(json.dumps(EVENT | more | {"ip": ip}).encode() + b"\n", Privacy(ip="drop"))
    document = json.loads(body)
    assert "source" not in document
    assert document["audit"]["location"] == "Unknown"
    for each in (ip, ip.lower(), "203.0.113.77", "198.51.100.99", "203.0.113.0"):
        assert not holds(body, each), each


@pytest.mark.parametrize(
    "text",
    [
        "client:{} peer:198.51.100.98:443",
        "db:{}:5432",
        "{}:198.51.100.98",
        "1:2:{}",
        "::ffff:{}",
    ],
)
def test_an_address_behind_a_colon_is_truncated(text: str) -> None:
    event = EVENT | {"note": text.format("203.0.113.99"), "changes": [{"field": text.format("203.0.113.99"), "to": 1}]}
    (body,) = built(json.dumps(event).encode() + b"\n", Privacy(ip="truncate"))
    assert not holds(body, "203.0.113.99")
    assert not holds(body, "198.51.100.98")
    assert "203.0.113.0" in json.loads(body)["audit"]["extra"]["note"]


def test_an_address_of_version_6_behind_a_colon_is_truncated() -> None:
    document = one(EVENT | {"note": "client:2001:db8:1:2::99 [2001:db8:1:2::98]:443"}, Privacy(ip="truncate"))
    assert document["audit"]["extra"]["note"] == "client:2001:db8:1:: [2001:db8:1::]:443"


@pytest.mark.parametrize("text", ["at 12:30:45.123", "1.2.3.4.5", "v1.2.3.4", "Foo::Bad::Cafe", "00:1a:2b:3c:4d:5e", "1.2.3"])
def test_what_only_looks_like_an_address_stays(text: str) -> None:
    assert one(EVENT | {"note": text}, Privacy(ip="truncate"))["audit"]["extra"]["note"] == text


@pytest.mark.parametrize("who", ["Bob <bob@example.org>", "bob@example.org ", "\tbob@example.org", "okta|bob@example.org"])
def test_an_id_that_has_an_email_address_is_a_pseudonym(who: str) -> None:
    event = EVENT | {"actor": {"type": "user", "id": who, "email": "bob@example.org"}}
    (body,) = built(json.dumps(event).encode() + b"\n", Privacy(emails="mask"))
    assert not holds(body, "bob@example.org")
    assert json.loads(body)["user"]["id"] == Keyed(KEY, "org-1").pseudonym(who.strip())


@pytest.mark.parametrize("ip", ["bob@example.org", "from bob@example.org", "?token=bob@example.org"])
def test_an_email_address_or_a_secret_in_the_place_of_an_address_is_masked(ip: str) -> None:
    (body,) = built(json.dumps(EVENT | {"ip": ip}).encode() + b"\n", Privacy(emails="mask"))
    assert not holds(body, "bob@example.org")
    assert json.loads(body)["audit"]["rejection"]["pointer"] == "/ip"


def test_the_address_that_6to4_makes_a_network_of_is_truncated_too() -> None:
    document = one(EVENT | {"ip": "2002:cb00:714d:1::77", "note": "[2002:cb00:714e:1::77]"}, Privacy(ip="truncate"))
    assert document["source"]["ip"] == "2002:cb00:7100::"
    assert document["audit"]["extra"]["note"] == "[2002:cb00:7100::]"


def test_an_address_that_is_none_is_not_shown_by_the_reason_either() -> None:
    (body,) = built(json.dumps(EVENT | {"ip": "203.0.113.77, 10.9.8.7"}).encode() + b"\n", Privacy(ip="truncate"))
    assert json.loads(body)["audit"]["rejection"]["pointer"] == "/ip"
    assert not holds(body, "203.0.113.77")
    assert not holds(body, "10.9.8.7")


def test_versions_in_a_user_agent_are_no_addresses() -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.1.2 Safari/537.36"
    assert one(EVENT | {"user_agent": agent}, Privacy(ip="truncate"))["user_agent"]["original"] == agent


def test_severity_is_judged_by_what_was_really_said() -> None:
    event = EVENT | {"action": "role.assign", "resource": {"type": "member", "id": "ada@example.com"}, "token_role": "admin"}
    event |= {"changes": [{"field": "role", "to": "admin"}]}
    for privacy in (Privacy(emails="mask"), Privacy(mask=("token_role",)), Privacy(mask=("actor.email", "role"))):
        document = one(event, privacy)
        assert document["audit"]["severity"] == "critical"
        assert document["event"]["reason"] == "a privileged role was granted by the actor to the actor"
    other = event | {"resource": {"type": "member", "id": "bob@example.com"}}
    assert one(other, Privacy(emails="mask"))["audit"]["severity"] == "warning", "two masks are not one person"


def test_what_an_event_is_kept_and_found_by_cannot_be_hidden_by_naming_it_a_secret() -> None:
    for structural in ("org-1", "u-7xx", "project.update", "203.0.113.7", "project"):
        event = EVENT | {"actor": {**EVENT["actor"], "id": "u-7xx"}, "password": structural}
        document = one(event, Privacy())
        assert document["organization"]["id"] == "org-1"
        assert document["user"]["id"] == "u-7xx"
        assert document["event"]["action"] == "project.update"
        assert document["source"]["ip"] == "203.0.113.7"


@pytest.mark.parametrize(
    ("data", "senders", "who"),
    [
        (b'{"organization":{"id":"org-1"},"password":"hunter22"', frozenset(), "org-1"),
        (b'{"organization": {"name": "x", "id" :"org-1" },"password":"hunter22\xff"}', frozenset(), "org-1"),
        (b'{"password":"hunter22"', frozenset(), "*"),
        (b'{"password":"hunter22"', frozenset({"org-1", "org-2"}), "org-1"),
        (b'{"password":"hunter22"}', frozenset({"org-1"}), "org-1"),
        (b'["hunter22"]', frozenset({"org-1"}), "org-1"),
        (b'{"organization":"org-1","password":"hunter22","status":"hunter22"}', frozenset(), "org-1"),
        (b'{"organization":{"id":"org-1"},"x":' + b"[" * 5000 + b'"hunter22"' + b"]" * 5000 + b"}", frozenset(), "org-1"),
    ],
)
def test_a_line_that_cannot_be_masked_is_withheld(data: bytes, senders: frozenset[str], who: str) -> None:
    (body,) = built(data + b"\n", Privacy(), senders=senders, who=who)
    document = json.loads(body)
    assert not holds(body, "hunter22") or document["tags"] == ["masked"]
    assert document["event"]["kind"] == "pipeline_error"
    assert document["audit"]["rejection"]["reason"]
    assert document["tags"] in (["withheld"], ["masked"])
    assert document["event"]["hash"] == hashlib.sha256(data).hexdigest(), "its bytes can still be told to be the same"


def test_a_line_of_which_nobody_can_tell_whose_it_is_is_kept() -> None:
    (body,) = built(b'{"password":"hunter22"\n', Privacy())
    assert holds(body, "hunter22"), "the limit, as documented"


def test_a_line_that_the_store_refuses_is_masked_too() -> None:
    masks = Masks(lambda name: Privacy(), KEY)
    builder = Builder(Actors(100), PLACES, Platforms(), SEVERITIES, lambda name: "30d", masks=masks)
    data = json.dumps(EVENT | {"password": "hunter22"}).encode() + b"\n"
    head = header(data, offset=500)
    block = Block.of(head, sender="gw-1", now_ms=NOW_MS)
    (decoded,) = decode_block(head, data)
    assert not holds(builder.reject(block, decoded, LineError("refused by the store")).body, "hunter22")


def test_whatever_goes_wrong_nothing_is_stored_that_should_be_hidden(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: Mask, raw: bytes) -> bytes:
        raise RuntimeError(raw)

    monkeypatch.setattr(Mask, "text", broken)
    with caplog.at_level(logging.ERROR):
        (body,) = built(json.dumps(EVENT | {"password": "hunter22"}).encode() + b"\n", Privacy())
    assert not holds(body, "hunter22")
    assert "hunter22" not in caplog.text
    assert json.loads(body)["tags"] == ["withheld"]


def test_a_line_of_endless_secrets_is_masked_as_a_whole_and_in_time() -> None:
    many = {f"token{number}_token": f"value-{number}" for number in range(HIDDEN_MAX + 1)}
    document = one(EVENT | many | {"reason": "value-7"}, Privacy())
    assert document["event"]["reason"] == MASKED
    assert document["user"]["id"] == "u-7"
    for text in ("a@" * 200_000, ":" * 300_000 + "g", "token=" * 100_000, "://" * 200_000, "bearer " * 100_000, "1." * 200_000):
        one(EVENT | {"reason": text}, Privacy(emails="mask", ip="truncate"))
    deep: Any = "hunter22"
    for number in range(300):
        deep = {f"{number}" * 1000: deep, "password": "hunter22"}
    assert not holds(built(json.dumps(EVENT | {"deep": deep}).encode() + b"\n", Privacy())[0], "hunter22")
    strings = [f"value {number}" for number in range(20_000)]
    one(EVENT | {"strings": strings} | {f"k{number}_token": f"value-{number}" for number in range(HIDDEN_MAX)}, Privacy())


def test_many_hidden_values_are_found_in_long_texts_and_where_that_takes_too_long_the_rest_is_masked() -> None:
    emails = [f"{number:03d}abcd@example.org" for number in range(490)]
    note = " ".join(emails) + " and " + "0" * 20_000
    document = one(EVENT | {"note": note, "list": emails}, Privacy(emails="mask"))
    assert document["audit"]["extra"] == {"note": f"{MASKED} " * 490 + "and " + "0" * 20_000, "list": [MASKED] * 490}
    long = {f"note_{number:02d}": "0" * 20_000 for number in range(20)}
    document = one(EVENT | {"emails": emails, **long}, Privacy(emails="mask"))
    assert document["audit"]["extra"]["note_19"] == MASKED
    assert document["user"]["id"] == "u-7"


@pytest.mark.parametrize(
    "others", [("aaaa",), ("[masked]", "masked"), ("abcd", "cdefgh", "abcdefgh"), ("hunter22", "hunter2222")]
)
def test_hidden_values_that_overlap_are_replaced_each(others: tuple[str, ...]) -> None:
    secrets = {f"k{number}_token": other for number, other in enumerate(others)}
    text = " ".join(others) + " " + "".join(others) + "!"
    document = one(EVENT | secrets | {"note": text}, Privacy())
    rest = document["audit"]["extra"]["note"].replace(MASKED, "")
    assert not any(other in rest for other in others)
    assert rest.endswith("!")


def test_organizations_without_privacy_are_handed_through_as_they_are() -> None:
    masks = Masks(lambda name: None, b"")
    data = json.dumps(EVENT).encode() + b"\nnonsense\n"
    for decoded in decode_block(header(data), data):
        assert masks(decoded) is decoded


def test_the_sample_s_lines_stay_events_whatever_is_hidden() -> None:
    privacy = Privacy(mask=("replicas",), pseudonyms=("actor.*", "resource.name"), emails="pseudonym", ip="truncate")
    data = b"".join(Sample(11).lines("web", 500))
    for body in built(data, privacy, who="*"):
        document = json.loads(body)
        assert document["event"]["kind"] == "event"
        assert "@example.com" not in body.decode()
        assert document["user"]["id"].startswith("p-")


LINES = 20
NAMES = (
    "password", "PassWord", "passWord", "PASSPHRASE", "passPhrase", "DB_PASSWORD", "apiKey", "X-Api-Key", "accesskey",
    "Access Key", "clientSecret", "refreshToken", "Authorization", "cardNumber", "CARDNUMBER", "Card-Number",
)  # fmt: skip
Pairs = list[tuple[str, Any]]


class Planter:
    """Plants secrets in the fields of one line; an object is a list of pairs, so that a name can stand in it twice."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.planted: list[str] = []

    def secret(self) -> Any:
        """A value that is hidden by its name."""
        word = f"{self.chance.getrandbits(64):016x}"
        odd = self.chance.choice(["", "", ' "\\ü/', "@", "+&=", "\n"])
        value = self.chance.choice([word, word[:8] + odd + word[8:], self.chance.randrange(10**12, 10**13)])
        self.planted.append(str(value))
        return value

    def told(self) -> str:
        """A text that gives itself away, whatever its name."""
        chance, word = self.chance, f"{self.chance.getrandbits(64):016x}"
        address = f"198.51.{chance.randrange(100, 255)}.{chance.randrange(100, 255)}"
        six = f"2001:db8:77:{word[:3]}::a{word[4:7]}"
        kinds = [
            (f"{word}@example.org", ["{}", "Bob <{}>", " {} ", "mailto:{}?x=1", "asked {}, twice"]),
            (address, ["{}", "client:{}", "db:{}:5432", "{}/32", "{}:{}", "from {}."]),
            (six, ["{}", "[{}]:80", "client:{}", "{}, 10.0.0.1"]),
            (f"p@{word}", ["https://u:{}@db/x"]),
            (f"s3{word}Q", ["token={}", '{{"api_key": "{}"', "https://u:{}@db/x", "Bearer {}", "x --password='{}' y"]),
        ]
        given, texts = chance.choice(kinds)
        self.planted.append(given)
        return chance.choice(texts).format(given, given)

    def value(self) -> Any:
        """Any JSON with something hidden in it, deep down."""
        chance = self.chance
        value: Any = self.told() if chance.random() < 0.4 else [self.named()]
        for _ in range(chance.randrange(4)):
            value = chance.choice([lambda v: [("deep", v)], lambda v: ["x", v], lambda v: [("b", v), ("b", 1)], write])(value)
        return value

    def named(self) -> tuple[str, Any]:
        """A field whose name says that it is secret; maybe the same again, behind it, is not."""
        value = self.secret()
        return self.chance.choice(NAMES), self.chance.choice([value, [value], [("of", value)], [1, [("x", [value])]]])

    def fields(self) -> Pairs:
        """Fields of the line itself."""
        chance, name = self.chance, self.chance.choice(NAMES)
        kinds: list[Callable[[], Pairs]] = [
            lambda: [self.named()],
            lambda: [(f"extra_{chance.random()}", self.value())],
            lambda: [("note", self.told()), ("note", chance.choice([None, "x", []]))],
            lambda: [("twice", [self.named(), ("a", 1)]), ("twice", 7)],
            lambda: [("twice", [(name, self.secret()), (name, None), ("a", self.told())])],
            lambda: [("env", ["x", self.pair(name)])],
            lambda: [("keys", [(self.told(), 1), (self.told(), 2)])],
            lambda: [(name, [(str(self.secret()), 1)])],
            lambda: [("changes", [[("field", name), ("from", self.secret()), ("to", [("x", self.secret())])]])],
            lambda: [("changes", [[("field", self.told()), ("to", [self.named()]), (self.told(), 1)]])],
            lambda: [("ci", [("platform", "jenkins"), ("run_url", self.told()), self.named()])],
            lambda: [("organization", [("id", "org-1"), ("name", self.told()), self.named()])],
            lambda: [
                ("actor", [("type", "user"), ("id", str(self.secret())), ("name", str(self.secret())), ("email", self.told())])
            ],
            lambda: [("reason", self.told()), ("request_id", self.told()), ("session_id", self.told())],
        ]
        return chance.choice(kinds)()

    def pair(self, name: str) -> Pairs:
        chance = self.chance
        pairs = [
            (chance.choice(["name", "Name", "key", "KEY", "field", "attribute", "Header"]), name),
            (chance.choice(["value", "Value", "newValue", "old_value", "To", "after", "Values"]), self.secret()),
            ("x", 1),
        ]
        chance.shuffle(pairs)
        return pairs


def write(value: Any) -> str:
    """JSON; lists of pairs are objects."""
    if isinstance(value, list) and value and all(isinstance(each, tuple) for each in value):
        return "{" + ",".join(f"{json.dumps(key)}: {write(each)}" for key, each in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value, ensure_ascii=len(str(value)) % 2 == 0)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_is_planted_in_a_line_is_in_its_document(seed: int) -> None:
    print("seed", seed)
    chance = Random(seed)
    for number in range(LINES):
        planter = Planter(chance)
        fields = [*EVENT.items()]
        for _ in range(chance.randrange(1, 5)):
            fields.extend(planter.fields())
        fields.extend(("passed on", f"it was {each} or so") for each in chance.sample(planter.planted, 1))
        privacy = Privacy(
            mask=("*card_number*",),
            pseudonyms=("actor.id", "actor.name"),
            emails=chance.choice(["mask", "pseudonym"]),
            ip=chance.choice(["truncate", "drop"]),
        )
        line = write([(key, list(each.items()) if isinstance(each, dict) else each) for key, each in fields])
        json.loads(line)
        (body,) = built(line.encode() + b"\n", privacy)
        left = [each for each in planter.planted if holds(body, each)]
        assert not left, f"line {number}: {line}\n{body.decode()}"
        assert json.loads(body)["event"]["kind"] == "event", body


def organizations(tmp_path: Path, text: str, *, key: str = KEY.decode(), mode: int = 0o600) -> Path:
    file = tmp_path / "organizations.toml"
    file.write_text(text)
    secret = tmp_path / "pseudonym.key"
    secret.write_text(key)
    secret.chmod(mode)
    return file


POLICY = '[[organization]]\nid = "Org-*"\n[organization.privacy]\npseudonyms = ["actor.id"]\n'
NAMED = 'pseudonym_key_file = "pseudonym.key"\n'


def test_it_is_configured_per_organization(tmp_path: Path) -> None:
    masks = Policies.load(organizations(tmp_path, NAMED + POLICY), "30d").masks()
    assert masks is not None
    assert masks.hiding("ORG-7") is not None
    assert masks.hiding("other") is None
    assert Policies.load(None, "30d").masks() is None
    (decoded,) = decode_block(header(), json.dumps(EVENT).encode() + b"\n")
    assert isinstance(masks(decoded), Decoded)


def test_the_indexer_s_own_builder_hides_what_the_file_says(tmp_path: Path) -> None:
    settings = EnrichmentSettings(organizations=organizations(tmp_path, NAMED + POLICY))
    builder = builder_of(settings, places_of(settings), retention="30d")
    data = b"".join(json.dumps(EVENT | {"organization": {"id": name}}).encode() + b"\n" for name in ("org-1", "other"))
    head = header(data)
    block = Block.of(head, sender="", now_ms=NOW_MS)
    hidden, plain = (json.loads(builder.build(block, decoded).body) for decoded in decode_block(head, data))
    assert hidden["user"]["id"] == Keyed(KEY, "org-1").pseudonym("u-7")
    assert plain["user"]["id"] == "u-7"


@pytest.mark.parametrize(
    ("text", "key", "mode", "words"),
    [
        (POLICY, "", 0o600, "'pseudonym_key_file' is missing"),
        (NAMED + POLICY, "sh0rt", 0o600, "a key of 5 characters is too short"),
        (NAMED + POLICY, "x" * 40, 0o644, "readable by everybody"),
        (POLICY.replace("actor.id", "organization.id"), "", 0o600, "'organization.id' cannot be hidden"),
        (POLICY.replace("pseudonyms", "mask"), "", 0o600, "name it among pseudonyms"),
        (POLICY.replace("actor.id", "ip"), "", 0o600, 'say ip = "truncate"'),
        (POLICY.replace("pseudonyms", "pseudonym"), "", 0o600, "unknown key 'organization.0.privacy.pseudonym'"),
        ('[[organization]]\nid = "a"\n[organization.privacy]\nip = "hide"\n', "", 0o600, "'organization.0.privacy.ip'"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(tmp_path: Path, text: str, key: str, mode: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        Policies.load(organizations(tmp_path, text, key=key, mode=mode), "30d").masks()
    assert key not in str(caught.value) or not key


def test_a_pseudonym_can_be_told_by_who_has_the_key(tmp_path: Path) -> None:
    organizations(tmp_path, NAMED + POLICY)
    config = tmp_path / "indexer.toml"
    config.write_text('[enrichment]\norganizations = "organizations.toml"\n')
    run = CliRunner().invoke(command, ["--config", str(config), "--organization", "org-7", "u-7"], catch_exceptions=False)
    assert run.stdout.strip() == Keyed(KEY, "org-7").pseudonym("u-7")
    with pytest.raises(ConfigurationError, match="pseudonym_key_file"):
        CliRunner().invoke(command, ["--organization", "org-7", "u-7"], catch_exceptions=False)
