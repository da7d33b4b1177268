"""Promises of docker-compose.yml and the Dockerfile that can be seen without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from auditship.cli import COMMANDS
from auditship.settings import load
from indexer.alerts.settings import AlertsSettings, CommandSettings
from indexer.commands.token import token
from indexer.settings import IndexerSettings

ROOT = Path(__file__).parents[2]
SECRETS = ("ELASTIC_PASSWORD", "KIBANA_PASSWORD", "KIBANA_ENCRYPTION_KEY")


@pytest.fixture
def compose() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return whole


@pytest.fixture
def three() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.three.yml").read_text())
    return whole


def test_everything_that_is_named_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {"elasticsearch", "kibana", "setup", "indexer", "rules", "alerts", "agent", "web", "cli", "api"} <= services.keys()
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, (name, needed)
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], (name, needed)
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in compose["volumes"], (name, volume)
        for config in service.get("configs", ()):
            assert config["source"] in compose["configs"], (name, config)


def test_commands_are_ours_and_known(compose: dict[str, Any]) -> None:
    ours = [
        service for service in compose["services"].values() if service["image"] == "auditship" and "entrypoint" not in service
    ]
    called = {service["command"][0] for service in ours}
    assert called == {"setup", "indexer", "rules", "alerts", "agent"} <= COMMANDS.keys()


def test_services_of_ours_have_no_rights(compose: dict[str, Any]) -> None:
    ours = [service for service in compose["services"].values() if service.get("image") == "auditship"]
    assert len(ours) == 9
    for service in ours:
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert not service.get("privileged")
        assert "user" not in service, "the image's own"


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_has_a_limit_of_memory_a_pinned_version_and_starts_again(
    compose: dict[str, Any], three: dict[str, Any]
) -> None:
    for name, service in [*compose["services"].items(), *three["services"].items()]:
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["image"] == "auditship" or re.search(r"\$\{ELASTIC_VERSION:-\d+\.\d+\.\d+\}$", service["image"]), name
        assert service["restart"] in {"unless-stopped", "on-failure:5"}, name


def test_three_nodes_know_each_other_and_keep_apart_what_they_store(compose: dict[str, Any], three: dict[str, Any]) -> None:
    nodes = {name: service for name, service in three["services"].items() if name.startswith("elasticsearch")}
    assert len(nodes) == 3
    assert "elasticsearch" in nodes.keys() & compose["services"].keys()
    for name, node in nodes.items():
        environment = node["environment"]
        assert environment["node.name"] == name
        for setting in ("cluster.initial_master_nodes", "discovery.seed_hosts"):
            assert environment[setting].split(",") == list(nodes)
        assert environment["xpack.security.transport.ssl.enabled"] == "true"
        assert environment["discovery.type"] != compose["services"]["elasticsearch"]["environment"]["discovery.type"]
        assert {each.partition(":")[0] for each in node["volumes"]} <= three["volumes"].keys()
        assert "wait_for_nodes" in node["healthcheck"]["test"][1]
    assert len({node["volumes"][0].partition(":")[0] for node in nodes.values()}) == 3
    assert not {node["volumes"][0].partition(":")[0] for node in nodes.values()} & compose["volumes"].keys()


@pytest.mark.parametrize(("file", "secrets"), [("docker-compose.yml", SECRETS), ("docker-compose.three.yml", SECRETS[:1])])
def test_no_password_stands_in_the_file(file: str, secrets: tuple[str, ...]) -> None:
    text = (ROOT / file).read_text()
    for line in text.splitlines():
        if re.match(r"\s+\w*(PASSWORD|KEY)\w*:", line):
            assert re.search(r": \$\{(\w+):\?set it in \.env", line), line
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(secrets)


def test_make_env_writes_new_passwords_for_their_owner_alone_and_never_over_old_ones(tmp_path: Path) -> None:
    command = ["make", "-f", ROOT / "Makefile", "env"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    file = tmp_path / ".env"
    assert file.stat().st_mode & 0o777 == 0o600
    made = dict(line.split("=") for line in file.read_text().splitlines())
    assert made.keys() == set(SECRETS)
    assert len({value for value in made.values() if re.fullmatch(r"[0-9a-f]{32}", value)}) == 3
    before = file.read_bytes()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0
    assert file.read_bytes() == before


def test_the_indexer_s_configuration_is_good(compose: dict[str, Any], tmp_path: Path) -> None:
    made = CliRunner().invoke(token, ["new", "agent"])
    (tmp_path / "indexer.toml").write_text(compose["configs"]["indexer"]["content"] + made.stderr)
    settings = load(IndexerSettings, tmp_path / "indexer.toml")
    assert settings.store.kind == "elasticsearch"
    assert settings.agents[0].name == "agent"


def test_the_detections_begin_where_they_were_and_can_be_asked_how_they_are(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose["services"]["rules"]
    assert service["command"][1:] == ["run", "--follow", "--config", "/run/auditship/indexer.toml"]
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    (tmp_path / "indexer.toml").write_text(compose["configs"]["indexer"]["content"].replace("0.0.0.0", "127.0.0.1"))
    settings = load(IndexerSettings, tmp_path / "indexer.toml").detections
    assert settings.metrics_listen is not None
    assert f'"http://{settings.metrics_listen}/readyz"' in service["healthcheck"]["test"][-1]
    assert settings.cursor_file is None
    assert "detections:/var/lib/auditship" in service["volumes"], "the cursor's folder, where none is named"


def test_people_are_told_through_a_file_until_there_is_another_channel(compose: dict[str, Any], tmp_path: Path) -> None:
    service, text = compose["services"]["alerts"], compose["configs"]["alerts"]["content"]
    assert service["command"] == ["alerts", "--config", service["configs"][0]["target"]]
    (tmp_path / "alerts.toml").write_text(text.replace("/var/lib/auditship", str(tmp_path)))
    settings = load(AlertsSettings, tmp_path / "alerts.toml")
    assert f'"http://{settings.metrics_listen}/readyz"' in service["healthcheck"]["test"][-1]
    assert f"alerts:{tomllib.loads(text)['state_dir']}" in service["volumes"]
    (channel,) = settings.channel
    assert isinstance(channel, CommandSettings)
    for message in ('{"n":1}\n', '{"n":2}\n'):
        subprocess.run(channel.command, input=message, text=True, check=True, timeout=10)
    assert (tmp_path / "alerts.ndjson").read_text() == '{"n":1}\n{"n":2}\n'


def test_the_agent_watches_what_the_gateways_write(compose: dict[str, Any]) -> None:
    settings = tomllib.loads(compose["configs"]["agent"]["content"])
    for watch in settings["watch"]:
        gateway, path, *_ = compose["services"][watch["gateway"]]["command"]
        assert gateway == watch["gateway"]
        assert Path(path).match(watch["paths"][0])
    assert settings["indexer"]["urls"] == ["https://indexer:8443"]


def test_compose_itself_accepts_the_file_where_it_is_installed(tmp_path: Path) -> None:
    client = shutil.which("docker")
    known = (
        client and subprocess.run([client, "compose", "version"], capture_output=True, check=False, timeout=30).returncode == 0
    )
    if not known:
        return  # what can be told without it, the tests above tell
    (tmp_path / "env").write_text("".join(f"{name}={'0' * 32}\n" for name in SECRETS))
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    one = ["--file", ROOT / "docker-compose.yml"]
    for files in (one, [*one, "--file", ROOT / "docker-compose.three.yml"]):
        command = [client, "compose", "--env-file", tmp_path / "env", *files, "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr


def test_the_image_runs_as_nobody_special_and_holds_every_package() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["auditship"]
    assert text.index("USER auditship") > text.rindex("FROM")
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = " ".join(re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)).split()
    assert sorted(copied) == sorted(allowed)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
