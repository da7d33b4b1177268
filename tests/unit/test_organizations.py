"""Each organisation's documents are kept as long as its policy says."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditship.errors import ConfigurationError
from indexer.organizations import Policies


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
        ("[[organization", "not TOML"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "organizations.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as error:
        Policies.load(file, "30d")
    assert "organizations.toml" in str(error.value)
