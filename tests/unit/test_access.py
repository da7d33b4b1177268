"""Who may send and who may search."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support import header

from auditship.errors import ConfigurationError
from auditship.settings import load
from indexer.access import Access, token_hash
from indexer.commands.token import token
from indexer.receive import Refusal
from indexer.settings import AgentEntry, IndexerSettings, ReaderEntry

TOKEN = "a-token-of-the-tests"


def access(**changes: object) -> Access:
    return Access(IndexerSettings(**changes))


def status(call: object, *arguments: object) -> int:
    try:
        call(*arguments)  # type: ignore[operator]
    except Refusal as refusal:
        assert TOKEN not in refusal.reason
        return refusal.status
    return 200


GATEWAY_1 = AgentEntry(name="gw-1", token_sha256=token_hash(TOKEN), gateways=("web",), organizations=("org-1",))


@pytest.mark.parametrize(
    ("authorization", "gateway", "expected"),
    [
        (f"Bearer {TOKEN}", "web", 200),
        (f"bearer {TOKEN}", "web", 200),
        (f"Bearer {TOKEN}", "api", 403),
        (f"Bearer {TOKEN}x", "web", 401),
        (f"Basic {TOKEN}", "web", 401),
        (TOKEN, "web", 401),
        ("", "web", 401),
        (None, "web", 401),
        ("Bearer \udcff", "web", 401),
    ],
)
def test_an_agent_sends_only_with_its_token_and_for_its_gateways(
    authorization: str | None, gateway: str, expected: int
) -> None:
    assert status(access(agents=(GATEWAY_1,)).sender, authorization, header(gateway=gateway)) == expected


def test_a_sender_is_known_by_name_and_organizations() -> None:
    sender = access(agents=(GATEWAY_1,)).sender(f"Bearer {TOKEN}", header())
    assert (sender.name, sender.organizations) == ("gw-1", {"org-1"})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8443", 200),
        ("localhost", 200),
        ("[::1]:8443", 200),
        ("evil.example", 421),
        ("[", 421),
        ("[x]", 421),
        ("", 421),
        (None, 421),
    ],
)
def test_on_a_loopback_address_only_this_machine_is_meant(host: str | None, expected: int) -> None:
    assert status(access().check_host, host) == expected


def test_readers_need_their_own_token_where_there_are_any() -> None:
    readers = (ReaderEntry(name="ada", token_sha256=token_hash(TOKEN)),)
    assert status(access(readers=readers).reader, f"Bearer {TOKEN}") == 200
    assert status(access(readers=readers).reader, None) == 401
    assert status(access(agents=(GATEWAY_1,), readers=readers).reader, "Bearer other") == 401
    assert status(access().reader, None) == 200


def test_a_reader_s_list_that_was_emptied_is_refused_and_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "indexer.toml"
    file.write_text(f'[[readers]]\nname = "ada"\ntoken_sha256 = "{token_hash(TOKEN)}"\norganizations = []\n')
    with pytest.raises(ConfigurationError, match="an empty list"):
        load(IndexerSettings, file)


@pytest.mark.parametrize("table", ["agents", "readers"])
def test_a_token_that_stands_twice_is_refused_and_both_are_named(tmp_path: Path, table: str) -> None:
    file = tmp_path / "indexer.toml"
    entries = [f'[[{table}]]\nname = "{name}"\ntoken_sha256 = "{token_hash(name[0])}"\n' for name in ("ada", "bob", "alf")]
    file.write_text("".join(entries))
    with pytest.raises(ConfigurationError, match="'ada' and 'alf' have the same token_sha256"):
        load(IndexerSettings, file)
    file.write_text("".join(entries[:2]))
    assert [each.name for each in getattr(load(IndexerSettings, file), table)] == ["ada", "bob"]


def test_a_reader_of_some_organizations_sees_theirs_and_no_metrics() -> None:
    some = access(readers=(ReaderEntry(name="ada", token_sha256=token_hash(TOKEN), organizations=("org-1",)),))
    assert some.reader(f"Bearer {TOKEN}") == ("org-1",)
    assert status(some.check_unlimited_reader, f"Bearer {TOKEN}") == 403
    every = access(readers=(ReaderEntry(name="ada", token_sha256=token_hash(TOKEN)),))
    assert every.reader(f"Bearer {TOKEN}") == ()
    assert status(every.check_unlimited_reader, f"Bearer {TOKEN}") == 200
    assert status(every.check_unlimited_reader, None) == 401


@pytest.mark.parametrize(
    "text",
    ['listen = "0.0.0.0:8443"', 'listen = "0.0.0.0:8443"\ncertificate_file = "a"\ncertificate_key_file = "b"'],
)
def test_an_address_that_others_can_reach_needs_certificate_and_tokens(tmp_path: Path, text: str) -> None:
    file = tmp_path / "indexer.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="can be reached by others"):
        load(IndexerSettings, file)


def test_a_new_token_is_printed_once_and_its_hash_fits_the_configuration(tmp_path: Path) -> None:
    result = CliRunner().invoke(token, ["new", "gw-1", "--gateway", "web", "--gateway", "cli"])
    made = result.stdout.strip()
    file = tmp_path / "indexer.toml"
    file.write_text(result.stderr)
    settings = load(IndexerSettings, file)
    assert made not in result.stderr
    assert settings.agents[0].gateways == ("web", "cli")
    assert Access(settings).sender(f"Bearer {made}", header()).name == "gw-1"
