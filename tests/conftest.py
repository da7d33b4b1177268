"""Fixtures that several kinds of tests share: a real Elasticsearch, started when the first test asks for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import elasticsearch_node
import pytest
from elasticsearch_node.install import FETCH_TIMEOUT_S, installed
from support import set_up

from indexer.settings import ElasticsearchSettings

_MISSING = pytest.StashKey[str]()
_LEFT_OUT = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever uses the server is marked; where it has to be fetched first, with the time that takes.

    What needs a program that is not on this machine is left out; the summary says so.
    """
    left_out = [item for item in items if any(not any(map(which, mark.args)) for mark in item.iter_markers("program"))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
        programs = {" or ".join(mark.args) for item in left_out for mark in item.iter_markers("program")}
        config.stash[_LEFT_OUT] = f"{len(left_out)} tests, for want of {', '.join(sorted(programs))}"
    for item in items:
        if _uses_server(item):
            item.add_marker(pytest.mark.elasticsearch)
            if not installed():
                item.add_marker(pytest.mark.timeout(FETCH_TIMEOUT_S))


def _uses_server(item: pytest.Item) -> bool:
    """By a fixture of its own, or as the one of both stores that it is run with."""
    call = getattr(item, "callspec", None)
    return "elasticsearch_server" in getattr(item, "fixturenames", ()) or bool(
        call and call.params.get("store") == "elasticsearch"
    )


@pytest.fixture(scope="session")
def _elasticsearch(request: pytest.FixtureRequest) -> Iterator[elasticsearch_node.Server | str]:
    """The session's server, or why there is none. Its progress is told on standard error."""
    try:
        found = elasticsearch_node.server()
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            server = found.__enter__()
    except elasticsearch_node.NodeError as error:
        request.config.stash[_MISSING] = str(error)
        yield str(error)
        return
    try:
        yield server
    finally:
        found.__exit__(None, None, None)


@pytest.fixture
def elasticsearch_server(_elasticsearch: elasticsearch_node.Server | str) -> elasticsearch_node.Server:
    """A real server; without one the test is skipped, or fails where ``AUDITSHIP_TEST_REQUIRE_ES`` is set."""
    if isinstance(_elasticsearch, str):
        if os.environ.get("AUDITSHIP_TEST_REQUIRE_ES"):
            pytest.fail(_elasticsearch, pytrace=False)
        pytest.skip("no Elasticsearch")  # the summary says, once, what to install
    return _elasticsearch


@pytest.fixture(scope="session")
def _key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
def elasticsearch_settings(elasticsearch_server: elasticsearch_node.Server, _key_folder: Path) -> ElasticsearchSettings:
    """A cluster as ``auditship setup`` leaves it, with empty data streams, and the keys that it made."""
    return set_up(elasticsearch_server, _key_folder, empty=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One loud sentence where tests could not run for want of a server, or of another program."""
    if left_out := config.stash.get(_LEFT_OUT, ""):
        terminalreporter.write_line(f"LEFT OUT: {left_out}", yellow=True, bold=True)
    if sentence := config.stash.get(_MISSING, ""):
        terminalreporter.write_line(f"ELASTICSEARCH TESTS DID NOT RUN: {sentence}", red=True, bold=True)
