"""What a person reads is harmless in every channel's form, whatever a gateway wrote."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import pytest
from alerting import critical

from indexer.alerts.cause import Causes
from indexer.alerts.channel import pagerduty, slack, syslog
from indexer.alerts.channel.smtp import mail_of
from indexer.alerts.event import Event, read
from indexer.alerts.message import TEXT_MAX, Links, Message, harmless, message_of
from indexer.store.contract import Hit

HOSTILE = {
    "line ends": "x\r\nBcc: everybody@example.com\n\n.\nQUIT",
    "slack": "<!channel> <!here> <@U123> <https://evil.example|harmless> & *bold*",
    "syslog": 'x" y="z"] [other@1 a="b"]\n<13>1 - - forged - - - ',
    "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "writing direction": "\u202egpj.exe\u2066 \u200b",
    "a megabyte": "A" * (1 << 20),
    "megabyte of escapes": "\x00" * (1 << 20),
    "surrogates": "\\ud800",
    "quotes": "'\"\\!' OR *:* ",
    "encoded line ends": "=?utf-8?q?x=0D=0ABcc:_everybody@example.com=0D=0A=0D=0AAll_is_well.?=",
    "encoded NUL": "=?utf-8?q?=00?=",
    "encoded writing direction": "=?utf-8?b?4oCuZ3BqLmV4ZQ==?=",
    "encoded nonsense": "=?unknown-8bit?q?=FF=FE?= =?us-ascii?q?=FF?= =?utf-8?q?=ED=A0=80?=",
}
FIELDS = (
    "organization",
    "actor_id",
    "actor",
    "label",
    "action",
    "resource",
    "location",
    "ip",
    "outcome",
    "reason",
    "rule",
    "rule_id",
)


def message(**values: str) -> Message:
    event = Event(id="e", dataset="web", ingested_ms=0, timestamp="2026-11-23T18:20:00+02:00", severity="critical", **values)
    (telling,) = Causes(quiet_s=900, update_s=60).take([event], 1_795_458_000_000)
    return message_of(telling, Links(page="https://audit.example/"))


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> Message:
    return message(**dict.fromkeys(FIELDS, request.param))


def test_every_text_is_printable_and_short(hostile: Message) -> None:
    for name, value in hostile.lines():
        assert value.isprintable(), name
        assert len(value) <= 2 * TEXT_MAX + 20
    assert hostile.title.isprintable()
    assert hostile.link.isascii()
    assert len(hostile.link) < 8 * TEXT_MAX
    assert not set(hostile.link) & set("<>\"' \n")


def test_slack_finds_nothing_to_act_upon(hostile: Message) -> None:
    text = json.dumps(slack.payload(hostile), ensure_ascii=False)
    assert not re.search("[<>]", text)
    assert "&" not in re.sub("&(amp|lt|gt);", "", text)
    assert len(text) < 20_000


def test_mail_has_our_headers_only_and_ends_where_we_end_it(hostile: Message) -> None:
    raw = bytes(mail_of(hostile, "auditship@example.com", ["soc@example.com"], datetime(2026, 11, 25, tzinfo=UTC)))
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r\n.\r\n" not in raw
    found = message_from_bytes(raw, policy=default)
    assert found["To"] == "soc@example.com"
    assert found.keys() == [
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "Content-Type",
        "Content-Transfer-Encoding", "MIME-Version",
    ]  # fmt: skip
    assert found["Subject"] == f"[auditship critical] {hostile.title}"
    body = [hostile.title, "", *(f"{name + ':':<14}{value}" for name, value in hostile.lines()), "", hostile.link, ""]
    assert found.get_content() == "\r\n".join(body)


def test_syslog_has_one_message_with_one_element(hostile: Message) -> None:
    data = syslog.packed(hostile, "host name\n", 7).decode()
    assert "\n" not in data
    value = r'"(?:[^"\\\]]|\\["\\\]])*"'
    match = re.fullmatch(rf"<106>1 (\S+) hostname auditship 7 alert \[auditship@32473((?: [a-z]+={value})+)\] \ufeff(.*)", data)
    assert match, data[:500]
    assert match[1] == "2026-11-23T16:20:00.000Z"


def test_pagerduty_takes_it(hostile: Message) -> None:
    event = pagerduty.payload(hostile, "key")
    assert isinstance(event["payload"], dict)
    assert len(event["payload"]["summary"]) <= 1024
    assert event["payload"]["severity"] == "critical"


def test_the_columns_are_those_of_the_log() -> None:
    entry = critical(1, source={"ip": "203.0.113.7"}, event={"action": "secret.read", "outcome": "failure", "reason": "no"})
    event = read(Hit(entry.id, "web", "30d", entry.time_ms, entry.body))
    (telling,) = Causes(quiet_s=900, update_s=60).take([event], 1_795_458_000_000)
    lines = dict(message_of(telling, Links()).lines())
    assert lines["Actor"] == "Ada Lovelace 1 · Chrome on macOS"
    assert lines["Action"] == "secret.read"
    assert lines["Resource"] == "project: Project 1"
    assert lines["Location"] == "Berlin, Berlin, 203.0.113.1"
    assert lines["Status"] == "failure"
    assert lines["Severity"] == "critical"
    assert lines["Timestamp"].endswith("Z")
    assert lines["Reason"] == "no"


def test_links_find_the_cause_and_nothing_else() -> None:
    found = message(organization="o\"'! & x", actor_id="u-1", action="a.b", outcome="failure")
    assert found.link == (
        "https://audit.example/?q=organization.id%3A%22o%5C%22%27%21%20%26%20x%22%20AND%20event.action%3A%22a.b%22"
        "%20AND%20event.outcome%3A%22failure%22%20AND%20user.id%3A%22u-1%22"
    )
    event = Event(id="e", dataset="web", ingested_ms=0, timestamp="", severity="critical", actor_id="it's!")
    assert "query:'user.id:%22it!'s!!%22')" in Links(kibana="https://kibana.example/s/soc").of(event)


def test_a_text_that_is_cut_says_so() -> None:
    assert harmless("é" * 400) == "é" * TEXT_MAX + "…"
    assert harmless("a\x1bb") == r"a\x1bb"
