"""Whatever stands in a watched file: each line ends as a document or as a rejected line, and none stops those behind it."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import Product
from support import obey_permissions

from auditship.sample import Sample

START_MS = 1_795_458_000_000
GOOD = [line.rstrip(b"\n") for line in Sample(7).lines("web", 40)]
BAD = {
    b"not json at all": ("not JSON", None),
    b"[1, 2, 3]": ("not a JSON object", None),
    b'"text"': ("not a JSON object", None),
    b"{}": ("missing", "/timestamp"),
    b"": ("blank", None),
    GOOD[0].replace(b'"status":"', b'"status":"un'): ("Invalid enum value", "/status"),
    GOOD[1].replace(b'"organization":{"id":"', b'"organization":{"id":["').replace(b'","name"', b'"],"name"', 1): (
        "Expected str",
        "/organization/id",
    ),
    GOOD[2][:-20]: ("not JSON", None),
    b"\xff\xfe\xfd not text": ("not UTF-8", None),
    b'{"a":"\0"}': ("not JSON", None),
    GOOD[3][:-1] + b',"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}": ("nested too deeply", None),
}


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    with Product(tmp_path) as product:
        yield product


def test_bad_lines_are_kept_with_reason_and_pointer_and_good_ones_flow_on(product: Product) -> None:
    lines = [each for pair in zip(GOOD, BAD, strict=False) for each in pair] + GOOD[len(BAD) :]
    (product.logs / "web.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    product.start_indexer()
    product.ship()
    documents = product.export()
    events = [each for each in documents if each["event"]["kind"] == "event"]
    rejected = [each for each in documents if each["event"]["kind"] == "pipeline_error"]
    assert Counter(each["event"]["original"].encode() for each in events) == Counter(GOOD)
    found = {original(each): each["audit"]["rejection"] for each in rejected}
    assert found.keys() == BAD.keys()
    for line, (reason, pointer) in BAD.items():
        assert reason in found[line]["reason"]
        assert found[line].get("pointer") in (pointer, "" if pointer is None else pointer)


def original(document: dict) -> bytes:
    exact = document["audit"]["rejection"].get("bytes")
    return base64.b64decode(exact) if exact else document["event"]["original"].encode()


def test_a_line_of_ten_mebibytes_is_cut_and_flagged_and_its_neighbours_are_whole(product: Product) -> None:
    huge = b'{"padding":"' + b"x" * (10 << 20) + b'"}'
    (product.logs / "web.jsonl").write_bytes(b"\n".join([GOOD[0], huge, GOOD[1], b""]))
    product.start_indexer()
    product.ship()
    documents = product.export()
    (cut,) = (each for each in documents if each["event"]["kind"] != "event")
    assert f"{len(huge) + 1} bytes" in cut["audit"]["rejection"]["reason"]
    assert huge.startswith(original(cut)[:1000])
    assert {each["event"]["original"].encode() for each in documents if each is not cut} == {GOOD[0], GOOD[1]}
    assert {each["log"]["offset"] for each in documents} == {0, len(GOOD[0]) + 1, len(GOOD[0]) + len(huge) + 2}


def test_carriage_returns_byte_order_mark_and_nuls_around_lines_are_no_part_of_them(product: Product) -> None:
    (product.logs / "web.jsonl").write_bytes(
        b"\xef\xbb\xbf" + GOOD[0] + b"\r\n" + b"\0" * 10_000 + GOOD[1] + b"\n" + GOOD[2] + b"\r\n"
    )
    product.start_indexer()
    product.ship()
    found = {each["event"]["original"].encode(): each.get("tags", []) for each in product.export()}
    assert found == {GOOD[0]: ["bom", "crlf"], GOOD[1]: ["nul_prefix"], GOOD[2]: ["crlf"]}


def test_an_empty_file_and_an_unfinished_line_ship_nothing_yet(product: Product) -> None:
    (product.logs / "web.jsonl").write_bytes(b"")
    (product.logs / "cli.jsonl").write_bytes(GOOD[0] + b"\n" + GOOD[1])
    product.start_indexer()
    product.ship()
    assert [each["event"]["original"].encode() for each in product.export()] == [GOOD[0]]
    with (product.logs / "cli.jsonl").open("ab") as file:
        file.write(b"\n")
    product.ship()
    assert Counter(each["event"]["original"].encode() for each in product.export()) == Counter(GOOD[:2])


def test_a_file_without_read_permission_holds_up_no_other(product: Product) -> None:
    closed = product.logs / "cli.jsonl"
    closed.write_bytes(GOOD[0] + b"\n")
    closed.chmod(0)
    (product.logs / "web.jsonl").write_bytes(GOOD[1] + b"\n")
    product.start_indexer()
    shipping = product.start("agent", "--config", "agent.toml", "--once", preexec_fn=obey_permissions)
    assert shipping.wait(60) == 1, "not every line was acknowledged"
    assert "cli.jsonl: Permission denied" in product.said("agent")
    assert [each["event"]["original"].encode() for each in product.export()] == [GOOD[1]]


@pytest.mark.parametrize("name", ["agent", "indexer"])
def test_an_unknown_key_in_the_configuration_is_named_and_nothing_starts(product: Product, name: str) -> None:
    file = product.home / f"{name}.toml"
    file.write_text("colour = 3\n" + file.read_text())
    process = product.start(name, "--config", f"{name}.toml")
    assert process.wait(30) == 2
    assert f"{name}.toml: unknown key 'colour'" in product.said(name)
