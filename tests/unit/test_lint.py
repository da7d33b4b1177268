"""Promises of ``auditship lint``: it says of each line what the indexer will say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditship.lint import lint
from auditship.sample import Sample

GOOD = list(Sample(3).lines("web", 50))


def test_good_lines_are_good(tmp_path: Path) -> None:
    file = tmp_path / "web.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"".join(GOOD) + GOOD[0].replace(b"\n", b"\r\n"))
    result = CliRunner().invoke(lint, [str(file)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "51 lines, 0 wrong" in result.stderr


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{}\n", "web.jsonl:2: /timestamp: "),
        (b"[1]\n", "not a JSON object"),
        (b"\n", "blank"),
        (b"\xff\n", "not UTF-8"),
        (b'{"\x1b[2J":1}\n', "web.jsonl:2: "),
        (re.sub(rb'"timestamp":"[^"]*"', b'"timestamp":"0001-01-01T00:00:00+14:00"', GOOD[0]), "/timestamp: before the year 1"),
        (GOOD[0].replace(b'"ip":"', b'"ip":"1.1.1.1, '), "/ip: one IP address is expected"),
        (b'{"padding":"' + b"x" * (1 << 20) + b'"}\n', "longer than"),
        (b"x" * (3 << 20) + b"\n", "longer than"),
    ],
)
def test_a_wrong_line_is_named_with_its_reason(tmp_path: Path, raw: bytes, words: str) -> None:
    file = tmp_path / "web.jsonl"
    file.write_bytes(GOOD[0] + raw + GOOD[1])
    result = CliRunner().invoke(lint, [str(file)])
    assert result.exit_code == 1
    assert words in result.stdout
    assert "\x1b" not in result.stdout
    assert "3 lines, 1 wrong" in result.stderr


def test_an_unfinished_last_line_is_told(tmp_path: Path) -> None:
    file = tmp_path / "web.jsonl"
    file.write_bytes(GOOD[0] + GOOD[1][:-1])
    result = CliRunner().invoke(lint, [str(file), "--json"])
    assert result.exit_code == 1
    finding, summary = map(json.loads, result.stdout.splitlines())
    assert (finding["line"], summary) == (2, {"file": str(file), "lines": 2, "wrong": 1})


def test_whoever_reads_no_further_is_told_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "web.jsonl"
    file.write_bytes(b"{}\n")
    unread, written = os.pipe()
    os.close(unread)
    with os.fdopen(written, "wb") as nobody:
        command = [sys.executable, "-m", "auditship.cli", "lint", str(file)]
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_standard_input_the_schema_and_a_missing_file() -> None:
    runner = CliRunner()
    assert runner.invoke(lint, ["-"], input=GOOD[0]).exit_code == 0
    assert json.loads(runner.invoke(lint, ["--schema"]).stdout)["title"] == "Audit line"
    assert runner.invoke(lint, []).exit_code == 2
    missing = runner.invoke(lint, ["/nowhere/web.jsonl"])
    assert "No such file" in str(missing.exception)
