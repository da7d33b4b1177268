"""How soon a person is told: from the ``write()`` of a critical line to a webhook's receipt of its message.

    python bench/alerts.py --rate 1000 --seconds 30
    python bench/alerts.py --elasticsearch

An open loop: a gateway appends lines when they are due, whatever has become of those before. One line in a hundred is a
critical event of an organisation of its own, so that each of them is a cause and makes a message; what else is critical in the
sample is grouped as in life. Agent, indexer, store and ``auditship alerts`` are the real ones; the receiver remembers each
message durably before it answers, and notes when it came. The first two seconds do not count.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import urllib3
from append import append
from elasticsearch_node import NodeError
from elasticsearch_node import server as elasticsearch
from figures import SEED, START_MS, cpu_s, figure, finish, free_port, percentile_99, start
from indexing import await_ready
from latency import await_agent, configured
from pipeline import configure

from auditship.gateway import encode
from auditship.sample import Sample
from auditship.settings import load
from indexer.settings import IndexerSettings
from indexer.store.select import open_reader

EVERY = 100
"""One line in so many is a probe."""
WARM_S = 2.0
WAIT_S_MAX = 30.0
BAR_MS = 2000
TESTS = Path(__file__).parents[1] / "tests"


def lines_of(count: int) -> list[bytes]:
    """The lines of a run: the sample's, every hundredth a probe in its place."""
    sample = Sample(SEED)
    return [sample.line("web", START_MS + at) if at % EVERY else probe(at) for at in range(count)]


def probe(at: int) -> bytes:
    """A critical line that is a cause of its own."""
    return encode(
        {
            "timestamp": START_MS + at,
            "organization": {"id": f"probe-{at}"},
            "actor": {"type": "user", "id": f"u-{at}", "name": "Ada Lovelace"},
            "action": "authentication.login",
            "resource": {"type": "organization", "id": f"probe-{at}"},
            "status": "failure",
            "ip": "203.0.113.7",
        }
    )


def received(path: Path) -> dict[int, float]:
    """When each probe's message came, by the place of its line."""
    found: dict[int, float] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        message = json.loads(line)
        name, _, at = message["body"].get("organization", "").partition("-")
        if name == "probe":
            found.setdefault(int(at), message["at"])
    return found


def run(folder: Path, rate: int, seconds: float, store: str) -> None:
    """One run, in a folder that holds ``indexer.toml`` and ``agent.toml``; its figures."""
    settings = load(IndexerSettings, folder / "indexer.toml")
    port, notes = free_port(), folder / "received"
    (folder / "alerts.toml").write_text(
        f'state_dir = "alerts"\n[[channel]]\nname = "hook"\nkind = "webhook"\nurl = "http://127.0.0.1:{port}/"\n'
    )
    receiver = start(str(TESTS / "alert_receiver.py"), str(port), str(notes))
    indexer = start("-m", "auditship.cli", "indexer", "--config", str(folder / "indexer.toml"))
    processes = [indexer, receiver]
    try:
        await_ready(urllib3.PoolManager(), f"http://127.0.0.1:{settings.host_port[1]}")
        (folder / "web.jsonl").touch()
        processes.insert(0, start("-m", "auditship.cli", "agent", "--config", str(folder / "agent.toml")))
        with closing(open_reader(settings)) as reader:
            await_agent(reader)
        said = folder / "alerts.log"
        with said.open("wb") as log:
            alerts = start("-m", "auditship.cli", "alerts", "--config", str(folder / "alerts.toml"), stderr=log)
        processes.insert(0, alerts)
        await_following(said)
        time.sleep(2.0)  # what a quiet process costs
        idle_from, idle_at = cpu_s(alerts.pid), time.monotonic()
        time.sleep(5.0)
        idle = (cpu_s(alerts.pid) - idle_from) / (time.monotonic() - idle_at)
        busy_from = cpu_s(alerts.pid)
        gateway = start(__file__, "--gateway", str(folder), "--rate", str(rate), "--seconds", str(seconds))
        count = int(rate * seconds)
        probes = list(range(0, count, EVERY))
        finish(gateway)
        deadline = time.monotonic() + WAIT_S_MAX
        while len(found := received(notes)) < len(probes) and time.monotonic() < deadline:
            time.sleep(0.2)
        busy = (cpu_s(alerts.pid) - busy_from) / seconds
    finally:
        for process in processes:
            finish(process, stop=True, timeout_s=20)
    written: array[float] = array("d")
    written.frombytes((folder / "times").read_bytes())
    tell([(written[at], written[count + at], found.get(at)) for at in probes if at >= rate * WARM_S], store, rate)
    figure("alerts_cpu_percent", busy * 100, "%", store=store, rate_per_s=rate, idle=round(idle * 100, 2))


def await_following(said: Path) -> None:
    """Returns once everything is followed."""
    deadline = time.monotonic() + WAIT_S_MAX
    while said.read_bytes().count(b"from now on") < 3:
        if time.monotonic() > deadline:
            raise SystemExit(f"alerting did not start: {said.read_text()[-500:]}")
        time.sleep(0.1)


def tell(probes: list[tuple[float, float, float | None]], store: str, rate: int) -> None:
    """The figures: of each probe, when it was written, when it was due, and when it was told."""
    untold = sum(told is None for _, _, told in probes)
    waits = [(told - written) * 1000 for written, _, told in probes if told is not None]
    late = percentile_99([(written - due) * 1000 for written, due, _ in probes])
    context = {"store": store, "rate_per_s": rate}
    figure("alert_p50_ms", statistics.median(waits), "ms", **context)
    figure("alert_p99_ms", percentile_99(waits), "ms", **context, alerts=len(waits), untold=untold, max_ms=round(max(waits)),
           late_p99_ms=round(late, 1), bar_ms=BAR_MS)  # fmt: skip


def gateway(folder: Path, rate: float, seconds: float) -> None:
    """Appends, in a process of its own."""
    with (folder / "times").open("wb") as out:
        for times in append(folder / "web.jsonl", lines_of(int(rate * seconds)), rate):
            times.tofile(out)


@contextmanager
def embedded() -> Iterator[Path]:
    """A folder with the configuration of an indexer with the embedded store."""
    with tempfile.TemporaryDirectory() as name:
        configure(Path(name), free_port())
        yield Path(name)


def main(rate: int, seconds: float, *, is_elasticsearch: bool) -> None:
    """A run with the embedded store; and one with Elasticsearch, where it is asked for."""
    with embedded() as folder:
        run(folder, rate, seconds, "embedded")
    if not is_elasticsearch:
        return
    try:
        with elasticsearch(measured=True) as server, configured(server) as folder:
            run(folder, rate, seconds, "elasticsearch")
    except NodeError as error:
        print(f"not measured: {error}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--elasticsearch", action="store_true")
    parser.add_argument("--gateway", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    if arguments.gateway:
        gateway(arguments.gateway, arguments.rate, arguments.seconds)
    else:
        main(arguments.rate, arguments.seconds, is_elasticsearch=arguments.elasticsearch)
