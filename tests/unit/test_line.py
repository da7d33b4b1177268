"""Promises of the line: every line is an event or has a reason, and the published schema says the same as the decoder."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from auditship.line import Familiar, LineError, decode
from auditship.line import _decode_with_extra as decode_with_extra
from auditship.sample import Sample

SCHEMA = json.loads(files("auditship").joinpath("line.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
BASE: dict[str, Any] = {
    "timestamp": "2026-11-23T10:00:00Z",
    "organization": {"id": "org-1"},
    "actor": {"type": "user", "id": "u-7"},
    "action": "project.update",
    "resource": {"type": "project"},
    "status": "success",
}
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def outcome(raw: bytes) -> str | None:
    """The reason why a line is none, or None."""
    try:
        decode(raw)
    except LineError as error:
        assert error.reason
        assert error.pointer == "" or error.pointer.startswith("/")
        return error.reason
    return None


@given(st.binary(max_size=400))
def test_any_bytes_are_an_event_or_have_a_reason(raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return  # the caller's to tell
    outcome(raw)


@given(st.data())
def test_any_damage_to_a_line_is_told_and_nothing_else_happens(data: st.DataObject) -> None:
    line = next(Sample(data.draw(st.integers(0, 50))).lines("web", 1))[:-1]
    at = data.draw(st.integers(0, len(line) - 1))
    damaged = line[:at] + data.draw(st.text(max_size=3)).encode() + line[data.draw(st.integers(at, len(line))) :]
    try:
        damaged.decode()
    except UnicodeDecodeError:
        return
    outcome(damaged)


@pytest.mark.parametrize(
    "raw", [b"[" * 200_000, b'{"a":' * 100_000, b"9" * 5000, b'"\\ud800"', b'{"a":"\\ud800', b'{"timestamp":1e999}']
)
def test_hostile_shapes_have_a_reason(raw: bytes) -> None:
    assert outcome(raw)


fields = st.sampled_from([*SCHEMA["properties"], "extra"])


@given(st.dictionaries(fields, any_json, max_size=3), st.lists(fields, max_size=2))
def test_schema_and_decoder_say_the_same(changes: dict[str, Any], missing: list[str]) -> None:
    value = {**BASE, **changes}
    for name in missing:
        value.pop(name, None)
    if _has_integral_float(value.get("timestamp")):
        return  # JSON Schema takes 1.0 for an integer
    valid = VALIDATOR.is_valid(value)
    reason = outcome(json.dumps(value).encode())
    if reason is not None and "out of range" in reason.lower():
        return
    assert valid == (reason is None), (value, reason)


def _has_integral_float(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"timestamp": None}, "/timestamp"),
        ({"timestamp": "2026-11-23T10:00:00"}, "/timestamp"),
        ({"timestamp": 1.5}, "/timestamp"),
        ({"organization": {}}, "/organization/id"),
        ({"organization": "org-1"}, "/organization"),
        ({"actor": {"type": "robot", "id": "x"}}, "/actor/type"),
        ({"actor": {"type": "user", "id": ""}}, "/actor/id"),
        ({"status": "maybe"}, "/status"),
        ({"changes": [{"from": 1}]}, "/changes/0/field"),
        ({"ci": {"run_id": 7}}, "/ci/run_id"),
        ({"user_agent": 7, "unknown": 1}, "/user_agent"),
    ],
)
def test_a_wrong_field_is_pointed_at(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(LineError) as caught:
        decode(json.dumps({**BASE, **changes}).encode())
    assert caught.value.pointer == pointer


def test_what_nobody_has_heard_of_is_kept_with_its_place() -> None:
    value = {**BASE, "trace": {"span": [1, 2]}, "actor": {**BASE["actor"], "role": "admin"}, "big": 12345678901234567890}
    line, extra = decode(json.dumps(value).encode())
    assert line.actor.id == "u-7"
    assert json.loads(extra) == {"trace": {"span": [1, 2]}, "actor.role": "admin", "big": 12345678901234567890}
    assert decode(json.dumps(BASE).encode())[1] == b""


HALVES = ["\ud83d", "\ude00", "a\ud83d b", "\ud83d\ud83d\ude00", "\\\ud83d", "\\ud83d", "\\ud83d\ude00", "\ud83dA"]


@pytest.mark.parametrize("text", HALVES, ids=ascii)
def test_half_of_a_surrogate_pair_is_read_as_the_sign_for_what_cannot_be_read(text: str) -> None:
    value = {**BASE, "reason": text, "team": text, "changes": [{"field": "f", "to": [text]}], text: 1}
    line, extra = decode(json.dumps(value).encode())
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert line.reason == whole
    assert line.changes is not None
    assert json.loads(bytes(line.changes[0].to)) == [whole]
    assert json.loads(extra) == {"team": whole, whole: 1}
    assert decode(json.dumps({**BASE, "reason": "\ud83d"}).replace("d83d", "D83D").encode())[0].reason == "\ufffd"
    with pytest.raises(LineError) as caught:
        decode(json.dumps({**value, "status": "maybe"}).encode())
    assert caught.value.pointer == "/status"


extras = st.dictionaries(
    st.sampled_from(["trace", "n", "träce", 'a"b', "actor.role", "extra_0", "timestamp "]) | st.text(max_size=4),
    st.sampled_from([0, "é\\u0041", None, [1, {"a": "\u2028"}], {"role": {}}, 1e300]),
    max_size=3,
)


@given(st.lists(st.tuples(extras, st.booleans()), max_size=8))
def test_fields_that_were_met_often_come_out_as_those_that_were_not(lines: list[tuple[dict[str, Any], bool]]) -> None:
    familiar = Familiar()
    familiar.OFTEN = 1  # type: ignore[misc]
    for more, is_escaped in lines:
        raw = json.dumps({**more, **BASE}, ensure_ascii=is_escaped).encode("utf-8", "surrogatepass")
        try:
            line, extra = decode_with_extra(raw)
        except (LineError, UnicodeDecodeError):
            assert familiar.decode(raw) is None
            continue
        familiar.meet(json.loads(extra))
        found = familiar.decode(raw)
        if all(name.isascii() and name.isidentifier() for name in more):
            assert found is not None or not more
        if found is not None:
            assert structs.asdict(found[0]).items() >= structs.asdict(line).items()
            assert found[1] == (extra if more else b"")


def test_what_was_met_often_is_decoded_in_one_go_and_nobody_can_keep_it_busy() -> None:
    familiar = Familiar()
    raw = json.dumps({**BASE, "n": 1}).encode()
    assert familiar.decode(raw) is None
    for _ in range(familiar.OFTEN):
        familiar.meet(["n"])
    found = familiar.decode(raw)
    assert found is not None
    assert (found[0].actor.id, found[1]) == ("u-7", b'{"n":1}')
    twice = raw[:-1] + b',"n":2}'
    assert familiar.decode(twice) == (found[0], b'{"n":2}') or json.loads(decode_with_extra(twice)[1]) == {"n": 2}
    for number in range(3 * familiar.LEARNT_MAX):
        for _ in range(familiar.OFTEN):
            familiar.meet([f"new-{number}", "x" * 100])
    assert familiar.learnt <= familiar.LEARNT_MAX
    for wrong in (b"{", b'{"n":1}', raw.replace(b'"u-7"', b'"u-7","role":1')):
        assert familiar.decode(wrong) is None


def test_sample_lines_are_events_and_repeat_from_their_seed() -> None:
    for gateway in ("web", "cli", "api"):
        lines = list(Sample(5, numbered=True).lines(gateway, 300))
        assert lines == list(Sample(5, numbered=True).lines(gateway, 300))
        assert len(set(lines)) == 300
        for line in lines:
            assert line.count(b"\n") == 1
            VALIDATOR.validate(json.loads(line))
            decode(line[:-1])
