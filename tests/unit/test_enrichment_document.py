"""What docs/enrichment.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from indexer.enrich import demo_database
from indexer.enrich.actor import Actors
from indexer.enrich.hidden import HIDDEN_MAX, REPEAT_MIN
from indexer.enrich.location import Places, location_text
from indexer.enrich.platform import Platforms
from indexer.enrich.privacy import Privacy
from indexer.organizations import Policies

TEXT = (Path(__file__).parents[2] / "docs/enrichment.md").read_text(encoding="utf-8")


def table(header: str) -> list[list[str | None]]:
    """The rows of a table, without its marks; "none" and an empty cell are none."""
    lines = TEXT.partition(header + "\n")[2].partition("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return [[None if cell in ("", "none") else cell for cell in row] for row in cells]


@pytest.mark.parametrize("row", table("| actor | user agent | label |"))
def test_labels(row: list[str]) -> None:
    actor, user_agent, label = row
    assert Actors(10).label(actor, user_agent).text == label


@pytest.mark.parametrize("row", table("| actor | `ip` | pipeline | `audit.location` |"))
def test_locations(row: list[str]) -> None:
    actor, ip, pipeline, location = row
    place = Places(demo_database.path(), None, 10).look_up(ip) if ip else None
    assert location_text(place, Platforms().name(pipeline), automated=actor != "user") == location


def test_numbers() -> None:
    assert f"In a line with more than {HIDDEN_MAX}" in TEXT
    assert f"less than {['zero', 'one', 'two', 'three', 'four'][REPEAT_MIN]} characters" in TEXT
    assert {key for key, *_ in table("| key | default | what it does |")} == set(Privacy.model_fields)


def test_the_examples_are_good(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n# organizations.toml\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 2
    key = tmp_path / "pseudonym.key"
    key.write_text("x" * 64)
    key.chmod(0o600)
    for example in examples:
        file = tmp_path / "organizations.toml"
        file.write_text(example.replace("/etc/auditship/pseudonym.key", str(key)))
        policies = Policies.load(file, "30d")
        assert policies.find("org-bank-1").severity or policies.masks() is not None
