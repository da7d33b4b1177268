"""Each organisation's documents are kept as long as its policy says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from auditship.errors import ConfigurationError
from indexer.commands.retention import explained
from indexer.enrich.severity import Severities
from indexer.organizations import HOLD, Policies
from indexer.retention import exceptions
from indexer.store.contract import Segment


def test_the_first_pattern_that_matches_wins(tmp_path: Path) -> None:
    file = tmp_path / "organizations.toml"
    file.write_text('[[organization]]\nid = "bank-7"\nretention = "90d"\n[[organization]]\nid = "bank-*"\nretention = "365d"\n')
    policies = Policies.load(file, "30d")
    found = [policies.retention(name) for name in ("bank-7", "bank-8", "other", "xbank-8", "bank-8")]
    assert found == ["90d", "365d", "30d", "30d", "365d"]
    assert policies.classes == ["30d", "365d", "90d"]


def test_without_a_file_the_default_holds() -> None:
    assert Policies.load(None, "60d").retention("anybody") == "60d"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[organization]]\nid = "a"\nretention = "a month"\n', "retention"),
        ('[[organisation]]\nid = "a"\n', "organisation"),
        ('[[organization]]\nid = "a"\nlegal_hold = "perhaps"\n', "legal_hold"),
        ("[[organization", "not TOML"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "organizations.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as error:
        Policies.load(file, "30d")
    assert "organizations.toml" in str(error.value)


POLICIES = """
[[organization]]
id = "Acme-*"
legal_hold = true
[[organization]]
id = "bank"
retention = "365d"
"""


def held(tmp_path: Path) -> Policies:
    file = tmp_path / "organizations.toml"
    file.write_text(POLICIES)
    return Policies.load(file, "30d")


def test_new_documents_under_a_hold_have_a_class_of_their_own_and_everybody_knows_it(tmp_path: Path) -> None:
    policies = held(tmp_path)
    assert [policies.retention(name) for name in ("Acme-1", "bank", "other")] == [HOLD, "365d", "30d"]
    assert policies.classes == ["30d", HOLD, "365d"]
    assert policies.policy("acme-1").legal_hold, "a store gives ids back in lower case"
    assert (policies.policy("bank").retention, policies.policy("other").retention) == ("365d", "30d")


@pytest.mark.parametrize("name", ["ACME-1", "acme-1", "Bank", "OTHER"])
def test_the_case_of_an_id_counts_neither_for_new_documents_nor_for_stored_ones(tmp_path: Path, name: str) -> None:
    policies = held(tmp_path)
    expected = {"a": HOLD, "b": "365d", "o": "30d"}[name[0].lower()]
    assert policies.retention(name) == explained(name, policies, [])["class"] == expected
    assert policies.policy(name).legal_hold is (expected == HOLD)


def test_a_segment_is_kept_while_anybody_in_it_is_under_a_hold(tmp_path: Path) -> None:
    segments = [
        Segment("one", "30d", {"acme-1": 1, "other": 500}),
        Segment("two", "30d", {"other": 5}),
        Segment("three", HOLD, {"acme-2": 7}),
        Segment("four", HOLD, {"bank": 3, "other": 1}),
        Segment("five", HOLD, {"other": 1}),
        Segment("six", "30d", None),
    ]
    assert exceptions(segments, held(tmp_path)) == {"one": None, "three": None, "four": 365, "five": 30, "six": None}
    assert exceptions(segments[-1:], Policies.load(None, "30d")) == {}, "nobody is under a hold"


def test_it_is_explained_to_whoever_asks(tmp_path: Path) -> None:
    segments = [Segment("one", "30d", {"acme-1": 4}), Segment("two", HOLD, {"acme-1": 2}), Segment("three", "30d", {"x": 1})]
    segments.append(Segment("four", "30d", None))
    assert explained("Acme-1", held(tmp_path), segments) == {
        "organization": "Acme-1",
        "policy": "Acme-*",
        "retention": "30d",
        "legal_hold": True,
        "class": HOLD,
        "stored": [
            {"class": "30d", "documents": 4, "segments": 1, "kept_segments": 1},
            {"class": HOLD, "documents": 2, "segments": 1, "kept_segments": 1},
        ],
        "unread_segments": 1,
    }


def test_an_id_that_is_very_long_is_remembered_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "organizations.toml"
    file.write_text(
        '[[organization]]\nid = "*"\nretention = "90d"\n[organization.privacy]\nmask = ["card"]\n'
        '[[organization.severity]]\naction = ["vault.open"]\nseverity = "critical"\nreason = "it was opened"\n'
    )
    policies = Policies.load(file, "30d")
    severities, masks = Severities.load(None, policies.severity), policies.masks()
    assert masks is not None
    name = "x" * 100_000
    before = sys.getrefcount(name)
    assert policies.retention(name) == "90d"
    assert severities.table(name).find("vault.open", "success", "vault").severity == "critical"
    assert masks.hiding(name) is not None
    assert sys.getrefcount(name) == before
