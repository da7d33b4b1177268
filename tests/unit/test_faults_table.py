"""The table of faults is whole, and the tests that it names exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))

from selftest import BUGS, ROOT

TESTS = Path(__file__).parents[1]
TABLE = (TESTS.parent / "docs" / "faults.md").read_text()
ROWS = 58


def test_every_fault_has_its_row() -> None:
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", TABLE, re.MULTILINE)] == list(range(1, ROWS + 1))


def test_every_test_that_is_named_exists() -> None:
    last = ""
    found = re.findall(r"`(…|[a-z_]+/[a-z_]+\.py)?(?:::)?(test_[a-z0-9_]+…?)?`", TABLE)
    named = 0
    for file, test in found:
        if not file and not test:
            continue
        last = last if file in ("", "…") else file
        text = (TESTS / last).read_text()
        name = test.rstrip("…")
        everywhere = "".join(each.read_text() for each in TESTS.rglob("test_*.py"))
        assert f"def {name}" in (text if file != "…" else everywhere), (file, test)
        named += bool(test)
    assert named > 40


def test_every_bug_of_the_self_test_can_be_planted() -> None:
    for bug in BUGS:
        assert (ROOT / bug.file).read_text().count(bug.good) == 1, bug.name
