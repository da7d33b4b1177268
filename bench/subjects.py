"""What is compared: each peer and ours as something that ships a log, sees that every line came once, and says what that took.

A process that is started here does not outlive its measurement, whatever happens in it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import obtain
import urllib3
from comparison import InexactError, check
from figures import Usage, finish, free_port
from indexing import await_ready
from obtain import Peer

from auditship import __version__
from indexer.enrich import demo_database

CONFIGURATIONS = Path(__file__).parent / "peers"
SETTLE_S = 1.0
"""So long the sink is watched after the last line: a line that comes twice comes soon."""
END_S_MAX = 30
_SHOWN_MAX = 300


class UnfinishedError(Exception):
    """Not all lines came in the time there was, or a process ended early."""


class Site(NamedTuple):
    """Where one measurement takes place."""

    folder: Path
    log: Path
    lines: int
    port: int
    deadline: float

    @property
    def url(self) -> str:
        """The sink's."""
        return f"http://127.0.0.1:{self.port}"

    def tally(self) -> dict[str, int]:
        """What the sink has seen."""
        found: dict[str, int] = urllib3.request("GET", f"{self.url}/tally", timeout=10, retries=False).json()
        return found

    def said(self, name: str) -> str:
        """The end of what a process has said on standard error."""
        return " ".join((self.folder / f"{name}.err").read_text(errors="replace")[-_SHOWN_MAX:].split())

    def seconds_left(self) -> float:
        """Until the measurement is given up."""
        return max(self.deadline - time.monotonic(), 0.1)


class Subject(NamedTuple):
    """Something that is measured: ``run`` ships the site's log, sees that every line came once, and returns what that took."""

    name: str
    mode: str
    version: str
    run: Callable[[Site], list[Usage]]


@contextmanager
def started(
    site: Site, name: str, command: list[str], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block; what it says is in ``<name>.err``."""
    with (site.folder / f"{name}.err").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:  # nobody has waited for it: something went wrong
            process.kill()
            process.wait()


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has, without taking its usage from whoever waits for it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def await_lines(site: Site, name: str, process: subprocess.Popen[bytes]) -> None:
    """Returns a moment after the sink has seen all lines.

    Raises:
        UnfinishedError: that has not come about.
    """
    while (seen := site.tally()["different"]) < site.lines:
        if has_ended(process):
            raise UnfinishedError(f"ended early, after {seen:,} lines: {site.said(name)}")
        if time.monotonic() > site.deadline:
            raise UnfinishedError(f"not finished: {seen:,} of {site.lines:,} lines came in time")
        time.sleep(0.2)
    time.sleep(SETTLE_S)


def peer(name: str, mode: str, found: Peer, arguments: Callable[[Site], list[str]]) -> Subject:
    """A subject that follows a file: it is ended once the sink has seen every line."""

    def run(site: Site) -> list[Usage]:
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": str(site.folder), **found.environment}
        environment |= {"PORT": str(site.port), "LOG": str(site.log), "STATE": str(site.folder), "MODE": mode}
        environment |= {"JSON": str(mode == "json").lower(), "RAW": str(mode == "raw").lower()}
        with started(site, name, [*found.command, *arguments(site)], environment) as process:
            await_lines(site, name, process)
            usage = finish(process, stop=True, timeout_s=END_S_MAX)
        if usage.status == -signal.SIGKILL:
            raise UnfinishedError(f"not finished: it did not end within {END_S_MAX} s: {site.said(name)}")
        check(site.tally(), site.lines)
        return [usage]

    return Subject(name, mode, found.version, run)


def rsyslog(mode: str) -> Subject:
    """See ``peers/rsyslog.conf``."""
    return peer(
        "rsyslog",
        mode,
        obtain.rsyslog(),
        lambda site: ["-f", str(CONFIGURATIONS / "rsyslog.conf"), "-i", str(site.folder / "pid")],
    )


def syslog_ng(mode: str) -> Subject:
    """See ``peers/syslog-ng.conf``."""
    files = {"-R": "persist", "-p": "pid", "-c": "control"}
    return peer(
        "syslog-ng",
        mode,
        obtain.syslog_ng(),
        lambda site: [
            *("-f", str(CONFIGURATIONS / "syslog-ng.conf")),
            *(part for flag, file in files.items() for part in (flag, str(site.folder / file))),
        ],
    )


def filebeat(mode: str) -> Subject:
    """See ``peers/filebeat.yml``, which may belong to another user than the one who measures."""
    return peer(
        "Filebeat",
        mode,
        obtain.filebeat(),
        lambda site: [
            *("-c", str(CONFIGURATIONS / "filebeat.yml"), "--strict.perms=false"),
            *("--path.home", str(site.folder), "--path.data", str(site.folder / "data"), "--path.logs", str(site.folder)),
        ],
    )


def agent(mode: str) -> Subject:
    """Our agent alone: the sink answers as an indexer does."""

    def run(site: Site) -> list[Usage]:
        used = [ship(site, site.url)]
        check(site.tally(), site.lines)
        return used

    return Subject("agent", mode, __version__, run)


def pipeline(mode: str) -> Subject:
    """Our agent and our indexer, which enriches with all it has and sends bulks to the sink."""

    def run(site: Site) -> list[Usage]:
        store = f'kind = "elasticsearch"\n[elasticsearch]\nurls = ["{site.url}"]'
        with indexer(site, store) as (process, url):
            used = [ship(site, url), finish(process, stop=True, timeout_s=END_S_MAX)]
        check(site.tally(), site.lines)
        return used

    return Subject("agent + indexer", mode, __version__, run)


def discarding(mode: str) -> Subject:
    """The same in front of a store that discards (``discard.py``): no bulks are made. The store counts."""

    def run(site: Site) -> list[Usage]:
        with indexer(site, 'path = "store"', program="discard.py") as (process, url):
            used = [ship(site, url), finish(process, stop=True, timeout_s=END_S_MAX)]
        count = re.search(r"events discarded: (\d+)", site.said("indexer"))
        if not count or int(count[1]) != site.lines:
            raise InexactError(f"inexact: the store saw {count[1] if count else 'none'} of {site.lines:,} lines")
        return used

    return Subject("agent + indexer", mode, __version__, run)


@contextmanager
def indexer(site: Site, store: str, program: str = "") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An indexer that is ready, and its address; ``program`` is one of this folder, in the place of the real one."""
    port, config = free_port(), site.folder / "indexer.toml"
    url = f"http://127.0.0.1:{port}"
    city = demo_database.path()
    config.write_text(f'listen = "127.0.0.1:{port}"\n[store]\n{store}\n[enrichment]\ncity_database = "{city}"\n')
    real = ["-m", "auditship.cli", "indexer", "--config", str(config)]
    command = [str(Path(__file__).parent / program), str(port), str(config)] if program else real
    with started(site, "indexer", [sys.executable, *command]) as process:
        await_ready(urllib3.PoolManager(), url)
        yield process, url


def ship(site: Site, url: str) -> Usage:
    """Our agent, once over the log.

    Raises:
        UnfinishedError: not every line was acknowledged.
    """
    config = site.folder / "agent.toml"
    config.write_text(f'state_dir = "agent"\n[indexer]\nurls = ["{url}"]\n[[watch]]\ngateway = "web"\npaths = ["{site.log}"]\n')
    with started(site, "agent", [sys.executable, "-m", "auditship.cli", "agent", "--config", str(config), "--once"]) as process:
        usage = finish(process, timeout_s=site.seconds_left())
    if usage.status:
        raise UnfinishedError(f"not finished: the agent's status is {usage.status}: {site.said('agent')}")
    return usage


SUBJECTS: Mapping[tuple[str, str], Callable[[str], Subject]] = {
    ("agent", "raw"): agent,
    ("agent + indexer", "enriched"): pipeline,
    ("agent + indexer", "enriched, no bulks"): discarding,
    ("Filebeat", "json"): filebeat,
    ("Filebeat", "raw"): filebeat,
    ("rsyslog", "json"): rsyslog,
    ("rsyslog", "raw"): rsyslog,
    ("syslog-ng", "json"): syslog_ng,
    ("syslog-ng", "raw"): syslog_ng,
}
