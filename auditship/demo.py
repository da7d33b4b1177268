"""``auditship demo``: the whole product on one machine, each part a process of its own, as it would run for real.

Three gateways write to files, one agent tails them, one indexer takes, enriches and stores; unless the run is bounded, the
detections look at what arrives. A bounded run ends with a JSON summary: ``lost`` and ``duplicates`` come from comparing the
files that the gateways wrote with what ``auditship export`` returns from the store, line by line; no part's own counters are
asked. All processes end with this one, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import click
import orjson

from auditship.errors import AuditshipError

GATEWAYS: Final = ("web", "cli", "api")
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 20.0
SHIP_TIMEOUT_S: Final = 3600.0
_PR_SET_PDEATHSIG: Final = 1

INDEXER_TOML: Final = """\
listen = "127.0.0.1:{port}"

[store]
kind = "embedded"
path = "store"
{enrichment}"""

AGENT_TOML: Final = """\
state_dir = "state"

[indexer]
urls = ["http://127.0.0.1:{port}"]
"""

WATCH_TOML: Final = """
[[watch]]
gateway = "{gateway}"
paths = ["logs/{gateway}/*.jsonl"]
"""


class DemoError(AuditshipError):
    """A part of the demo did not do what it should."""


@click.command()
@click.option("--events", type=click.IntRange(1, 100_000_000), help="Write that many events at full speed.")
@click.option("--exit", "leave", is_flag=True, help="With --events: end when all are stored, with a JSON summary.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 100_000), default=20.0, show_default=True, help="Events per second otherwise."
)
@click.option("--port", type=click.IntRange(1, 65535), help="The page's port; a free one otherwise.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Keep files and store here instead of a temporary folder."
)
@click.option("--city-database", type=click.Path(exists=True, path_type=Path), help="Another one than the demo's own.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed writes the same events.")
def demo(
    *,
    events: int | None,
    leave: bool,
    rate: float,
    port: int | None,
    folder: Path | None,
    city_database: Path | None,
    seed: int,
) -> None:
    r"""See it all at work on this machine: three gateways, the agent, the indexer with the embedded store, the page.

    \b
    auditship demo
    auditship demo --events 20000 --exit

    Ends with Ctrl-C. With --exit the status is 0 only if no event was lost and none stored twice.
    """
    if leave and events is None:
        raise click.UsageError("--exit goes with --events")
    with contextlib.ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="auditship-demo-")))
        run = stack.enter_context(_running(home, port or _free_port(), city_database))
        if events is None:
            _watch(run, rate, seed)
        else:
            summary = _batch(run, events, seed)
            click.echo(json.dumps(summary))
            if leave:
                sys.exit(0 if summary["lost"] == summary["duplicates"] == 0 else 1)
            _watch(run, rate, seed)


class _Run:
    """The demo's folder and the processes started in it."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Starts ``python -m …`` in the folder; its messages go to ours."""
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-m", *command],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others in order
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads here
        )
        self._processes.append(process)
        return process

    def auditship(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts one of our own commands."""
        return self.start("auditship.cli", *arguments)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Asks a process to end, and kills it if it does not."""
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """The latest first: what writes, then what ships, then what stores."""
        for process in reversed(self._processes):
            self.stop(process)

    def write(self, gateway: str, seed: int, *options: str) -> subprocess.Popen[bytes]:
        """Starts a gateway."""
        path = f"logs/{gateway}/{gateway}.jsonl"
        own_seed = seed * len(GATEWAYS) + GATEWAYS.index(gateway)
        return self.start("auditship.demo_gateway", gateway, path, "--seed", str(own_seed), *options)


@contextlib.contextmanager
def _running(home: Path, port: int, city_database: Path | None) -> Iterator[_Run]:
    """The indexer and its store, ready; everything that the run starts ends with it."""
    for gateway in GATEWAYS:
        (home / "logs" / gateway).mkdir(parents=True, exist_ok=True)
    city_database = city_database or Path(str(files("indexer.enrich").joinpath("demo.mmdb")))
    enrichment = f"\n[enrichment]\ncity_database = {json.dumps(str(city_database.absolute()))}\n"
    (home / "indexer.toml").write_text(INDEXER_TOML.format(port=port, enrichment=enrichment))
    (home / "agent.toml").write_text(
        AGENT_TOML.format(port=port) + "".join(WATCH_TOML.format(gateway=gateway) for gateway in GATEWAYS)
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = _Run(home, port)
    try:
        _await_ready(run.auditship("indexer", "--config", "indexer.toml"), run.url)
        yield run
    except KeyboardInterrupt:
        click.echo("\nending", err=True)
    finally:
        run.stop_all()


def _watch(run: _Run, rate: float, seed: int) -> None:
    """Gateways write at a steady pace until Ctrl-C."""
    processes = [run.auditship("agent", "--config", "agent.toml")]
    processes.append(run.auditship("rules", "run", "--follow", "--config", "indexer.toml"))
    processes += [run.write(gateway, seed, "--rate", str(rate / len(GATEWAYS))) for gateway in GATEWAYS]
    program = sys.argv[0] if Path(sys.argv[0]).name == "auditship" else "auditship"
    click.echo(
        f"""
  the page    {run.url}/
  search      {program} search 'audit.severity:critical' --config {run.home}/indexer.toml
  follow      {program} tail --config {run.home}/indexer.toml
  alerts      {program} tail --dataset alert --config {run.home}/indexer.toml
  the files   {run.home}/logs/
  Ctrl-C ends all of it.
""",
        err=True,
    )
    while True:
        for process in processes:
            if process.poll() is not None:
                raise DemoError(f"{' '.join(map(str, process.args[2:4]))} ended with status {process.returncode}")  # type: ignore[index]
        time.sleep(0.5)


def _batch(run: _Run, events: int, seed: int) -> dict[str, float]:
    """Writes that many events while the agent ships them; compares what was written with what is stored."""
    began = time.monotonic()
    agent = run.auditship("agent", "--config", "agent.toml")
    shares = [events // len(GATEWAYS) + (at < events % len(GATEWAYS)) for at in range(len(GATEWAYS))]
    writers = [
        run.write(gateway, seed, "--count", str(share)) for gateway, share in zip(GATEWAYS, shares, strict=True) if share
    ]
    for writer in writers:
        if writer.wait(SHIP_TIMEOUT_S):
            raise DemoError(f"a gateway ended with status {writer.returncode}")
    click.echo(f"written: {events} events; shipping the rest", err=True)
    run.stop(agent)
    if run.auditship("agent", "--config", "agent.toml", "--once").wait(SHIP_TIMEOUT_S):
        raise DemoError("the agent could not ship everything; its messages are above")
    took_s = time.monotonic() - began
    written = Counter(_fingerprint(line) for path in run.home.glob("logs/*/*.jsonl") for line in _lines(path))
    stored, rejected = _stored(run.home)
    return {
        "written": written.total(),
        "stored": stored.total(),
        "rejected": rejected,
        "lost": (written - stored).total(),
        "duplicates": (stored - written).total(),
        "events_per_s": round(written.total() / took_s),
    }


def _stored(home: Path) -> tuple[Counter[bytes], int]:
    """The fingerprints of all lines in the store, and how many of them are rejected ones."""
    found: Counter[bytes] = Counter()
    rejected = 0
    command = [sys.executable, "-m", "auditship.cli", "export", "--config", "indexer.toml", "--format", "ndjson", "--out", "-"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE) as process:  # noqa: S603 - likewise
        assert process.stdout is not None
        for body in process.stdout:
            event = orjson.loads(body)["event"]
            found[_fingerprint(event["original"].encode())] += 1
            rejected += event["kind"] != "event"
    if process.returncode:
        raise DemoError(f"the export ended with status {process.returncode}")
    return found, rejected


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def _fingerprint(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def _await_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Returns once the indexer could take a block."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"the indexer ended with status {process.returncode}; its messages are above")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310 - our own address
                if answer.status == 200:  # noqa: PLR2004
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise DemoError(f"the indexer is not ready after {START_TIMEOUT_S:.0f} s; its messages are above")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    """In a child, on Linux: ends with the demo even if that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    demo()
