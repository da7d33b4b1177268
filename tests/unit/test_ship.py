"""Promises of a shipper that need no indexer: its credentials, and what a defect of its own means."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from agent import ship
from agent.block import Block
from agent.run import sent
from agent.settings import IndexerSettings
from agent.ship import Shipper, Verdict
from auditship.errors import ConfigurationError


def token_in(folder: Path) -> Path:
    file = folder / "token"
    file.write_text("one\n")
    file.chmod(0o600)
    return file


def refreshed(shipper: Shipper) -> str | None:
    """The token after another look at the files."""
    shipper._look_at = 0.0
    shipper._refresh()
    return shipper._token


def test_a_token_is_taken_once_its_file_is_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "auditship.agent")
    file = token_in(tmp_path)
    shipper = Shipper(IndexerSettings(urls=("https://localhost:1",), token_file=file), "1")
    file.write_text("two\n")
    file.chmod(0o604)
    assert refreshed(shipper) == "one"
    assert "chmod o-rwx" in caplog.text
    file.chmod(0o600)  # as the message says: nothing else of the file changes
    assert refreshed(shipper) == "two"
    file.write_bytes("three".encode("utf-16"))
    assert refreshed(shipper) == "two"
    file.write_text("four\n")
    assert refreshed(shipper) == "four"


def test_an_address_that_is_none_is_told_as_such() -> None:
    settings = IndexerSettings.model_construct(**{**IndexerSettings(urls=("https://a:1",)).__dict__, "urls": ("https://[a:1",)})
    with pytest.raises(ConfigurationError, match=r"indexer\.urls"):
        Shipper(settings, "1")


def test_a_defect_leaves_the_block_to_be_sent_again_and_shows_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    shipper = Shipper(IndexerSettings(urls=("http://127.0.0.1:1",)), "1")
    block: Any = Block(None, None, b"", None)  # type: ignore[arg-type]

    def fail(_: object) -> None:
        raise ValueError("Invalid header value b'Bearer s3cr3t'")

    monkeypatch.setattr(ship.Shipper, "_refresh", fail)
    outcome = sent(shipper, block)
    assert (outcome.block, outcome.verdict) == (block, Verdict.UNKNOWN)
    assert outcome.detail.startswith("not sent, a defect: ValueError in fail, line ")
