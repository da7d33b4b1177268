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
from indexer.commands.token import token
from indexer.settings import IndexerSettings

ROOT = Path(__file__).parents[2]
SECRETS = ("ELASTIC_PASSWORD", "KIBANA_PASSWORD", "KIBANA_ENCRYPTION_KEY")


@pytest.fixture
def compose() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return whole


def test_everything_that_is_named_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {"elasticsearch", "kibana", "setup", "indexer", "agent", "web", "cli", "api"} <= services.keys()
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
    assert called == {"setup", "indexer", "agent"} <= COMMANDS.keys()


def test_services_of_ours_have_no_rights(compose: dict[str, Any]) -> None:
    ours = [service for service in compose["services"].values() if service.get("image") == "auditship"]
    assert len(ours) == 7
    for service in ours:
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert not service.get("privileged")
        assert "user" not in service, "the image's own"


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_stands_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for line in text.splitlines():
        if re.match(r"\s+\w*(PASSWORD|KEY)\w*:", line):
            assert re.search(r": \$\{(\w+):\?set it in \.env", line), line
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(SECRETS)


def test_the_indexer_s_configuration_is_good(compose: dict[str, Any], tmp_path: Path) -> None:
    made = CliRunner().invoke(token, ["new", "agent"])
    (tmp_path / "indexer.toml").write_text(compose["configs"]["indexer"]["content"] + made.stderr)
    settings = load(IndexerSettings, tmp_path / "indexer.toml")
    assert settings.store.kind == "elasticsearch"
    assert settings.agents[0].name == "agent"


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
    command = [client, "compose", "--env-file", tmp_path / "env", "--file", ROOT / "docker-compose.yml", "config", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
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
