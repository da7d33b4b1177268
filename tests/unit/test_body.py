"""A body is read whatever numbers gateways wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sample_entries import beyond, entry
from stores import NOW_MS, Store

from auditship.cli import cli
from indexer.store.body import document_of
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter

TEXT = st.text() | st.sampled_from(['"1e999"', "\\", '\\" 1e999', "1e999"])
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(JSON, st.sampled_from(["1e999", "-1E+400", "9" * 400, "-" + "9" * 5000]))
def test_numbers_beyond_a_double_are_their_text_and_all_else_is_as_it_was(value: Any, number: str) -> None:
    body = b'{"beyond":%b,"value":%b}' % (number.encode(), json.dumps(value).encode())
    assert document_of(body) == {"beyond": number, "value": value}


def test_what_is_not_json_is_told() -> None:
    with pytest.raises(ValueError, match="unexpected"):
        document_of(b'{"a":1e999')


def test_an_export_has_what_follows_such_a_number(tmp_path: Path) -> None:
    folder, out = tmp_path / "store", tmp_path / "all.csv"
    (tmp_path / "indexer.toml").write_text(f'[store]\npath = "{folder}"\n')
    store = Store(lambda: EmbeddedWriter(folder, lambda: NOW_MS), EmbeddedReader(folder, lambda: NOW_MS), lambda: None)
    store.append([entry(0), beyond(1), entry(2)])
    arguments = ["export", "--format", "csv", "--out", str(out), "--config", str(tmp_path / "indexer.toml")]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    with out.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [entry(n).id for n in range(3)]
