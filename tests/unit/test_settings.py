"""Promises of the configuration: whatever is wrong in it is refused at start, by file and key."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.settings import AgentSettings
from auditship.errors import ConfigurationError
from auditship.settings import is_loopback, load, read_secret, read_token
from indexer.alerts.settings import AlertsSettings
from indexer.commands.again import try_to_listen
from indexer.commands.indexer import _checked
from indexer.settings import IndexerSettings

AGENT = """
state_dir = "state"
[indexer]
urls = ["https://indexer.example:8443"]
token_file = "token"
[[watch]]
gateway = "web"
paths = ["logs/*.jsonl"]
"""


@pytest.mark.parametrize(
    "wrong",
    [
        'kind = "webhook"\nurl = "http://soc.example/hooks/s3cr3t-in-clear"',
        'kind = "webhook"\nurl = "https://soc.example/hooks/s3cr3t in clear"',
        'kind = "slack"\nsecret_env = "s3cr3t-not-a-name"',
        'kind = "webhook"\nurl = "https://soc.example/"\nsecret = "s3cr3t"',
    ],
)
def test_a_wrong_value_that_may_be_a_secret_is_not_shown(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"channel\.0") as caught:
        load(AlertsSettings, write(tmp_path, f'[[channel]]\nname = "a"\n{wrong}\n'))
    assert "s3cr3t" not in str(caught.value)


def write(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text)
    return file


def test_relative_paths_begin_at_the_file(tmp_path: Path) -> None:
    settings = load(AgentSettings, write(tmp_path, AGENT))
    assert settings.state_dir == tmp_path / "state"
    assert settings.indexer.token_file == tmp_path / "token"
    assert settings.watch[0].paths == (tmp_path / "logs/*.jsonl",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("state_dir", "state_directory"), "unknown key 'state_directory'; known here: .*state_dir"),
        (("token_file", "tokenfile"), "unknown key 'indexer.tokenfile'; known here: .*token_file"),
        (("gateway =", "gatewy ="), "unknown key 'watch.0.gatewy'"),
        (('"web"', '"rejected"'), "'watch.0.gateway': 'rejected' is a name of auditship's own"),
        (('"web"', '"Web UI"'), "'watch.0.gateway': a gateway's name is"),
        (("https://indexer", "http://indexer"), "plain HTTP is for loopback"),
        (("https://indexer.example:8443", "indexer:8443"), "'indexer.urls.0'"),
        (("example:8443", "example:84443"), "'indexer.urls.0': Port out of range"),
        (("state_dir =", 'metrics_listen = "127.0.0.1:99464"\nstate_dir ='), "'metrics_listen': Port out of range"),
        (('urls = ["https://indexer.example:8443"]', ""), "'indexer.urls' is missing"),
        (("state_dir =", "window_bytes = 1\nstate_dir ="), "'window_bytes': .*greater than or equal"),
        (('"state"', "5 five"), "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    file = write(tmp_path, AGENT.replace(*change))
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(AgentSettings, file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("listen", ["9466", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "http://127.0.0.1:9466"])
def test_where_the_detections_are_to_listen_is_an_address_and_a_port(tmp_path: Path, listen: str) -> None:
    file = write(tmp_path, f'[detections]\nmetrics_listen = "{listen}"\n')
    with pytest.raises(ConfigurationError, match=r"'detections\.metrics_listen'"):
        load(IndexerSettings, file)


def test_the_environment_stands_above_the_file_and_is_checked_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, AGENT)
    monkeypatch.setenv("AUDITSHIP_AGENT__SCAN_INTERVAL_S", "7")
    monkeypatch.setenv("AUDITSHIP_AGENT__INDEXER__ANSWER_TIMEOUT_S", "9")
    settings = load(AgentSettings, file)
    assert (settings.scan_interval_s, settings.indexer.answer_timeout_s) == (7, 9)
    assert settings.indexer.urls == ("https://indexer.example:8443",)
    monkeypatch.setenv("AUDITSHIP_AGENT__SCAN_INTERVALL_S", "7")
    with pytest.raises(ConfigurationError, match="AUDITSHIP_AGENT__SCAN_INTERVALL_S"):
        load(AgentSettings, file)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    file = write(tmp_path, '[[agents]]\nname = "gw"\ntoken_sha256 = "not-a-hash-but-perhaps-the-token"\n')
    with pytest.raises(ConfigurationError, match=r"agents\.0\.token_sha256") as caught:
        load(IndexerSettings, file)
    assert "perhaps" not in str(caught.value)


def test_a_secret_s_file_is_closed_to_others_and_not_empty(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  secret\n")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="readable by everybody"):
        read_secret(file)
    file.chmod(0o640)
    assert read_secret(file) == "secret"
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="empty"):
        read_secret(file)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_secret(tmp_path / "none")
    file.write_bytes("\ufeffgeheim, ü\r\n".encode())
    assert read_secret(file) == "geheim, ü", "a file that an editor began with a mark"
    file.write_bytes("secret".encode("utf-16"))
    with pytest.raises(ConfigurationError, match="not text in UTF-8"):
        read_secret(file)


def test_a_token_is_one_line_that_a_header_can_hold_and_is_not_shown_where_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cr3t.-_~+/=\n")
    file.chmod(0o600)
    assert read_token(file) == "s3cr3t.-_~+/="
    for wrong in ("s3cr3t\nanother", "s3cr3t\x00", "s3cr3tü"):
        file.write_text(wrong)
        with pytest.raises(ConfigurationError, match=r"token: not a token") as caught:
            read_token(file)
        assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://[::1]:8443/", "localhost:9", "127.8.9.1:80"])
def test_loopback_is_known(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.example.com", "http://example.com", "0.0.0.0:80", "", "http://localhost.evil"]
)
def test_other_places_are_not_loopback(url: str) -> None:
    assert not is_loopback(url)


def test_a_reload_is_refused_where_a_program_could_not_begin_again(tmp_path: Path) -> None:
    config = tmp_path / "indexer.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        for wanted in (None, listen):
            try_to_listen(wanted, listen)
        with pytest.raises(ConfigurationError, match="Address already in use"):
            try_to_listen(listen, None)
    config.write_text('[store]\nkind = "elasticsearch"\n[elasticsearch]\nwriter_key_file = "no-such.key"\n')
    with pytest.raises(ConfigurationError, match=r"no-such\.key"):
        _checked(config)
