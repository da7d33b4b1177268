"""How long a line takes, from its ``write()`` on: until the store has acknowledged it, and until a search finds it.

    python bench/latency.py                      both stores, 10, 1,000 and 10,000 events a second
    python bench/latency.py --store embedded --rates 1000 --seconds 20

``ack_p50_ms``, ``ack_p99_ms``: the receipt has reached the agent's machine (a relay between agent and indexer takes the time).
``searchable_p50_ms``, ``searchable_p99_ms``: a search for the newest event gives it, or one behind it.
``wire_bytes_per_event``: everything between agent and indexer, headers and receipts included. ``disk_bytes_per_event``: the
embedded store's files.

A process of its own appends lines by a time-table and waits for nobody, so a stall counts for every line that falls into it
(no coordinated omission); ``late_p99_ms`` says how far it was behind its table. Agent, indexer and store are the real ones. The
first two seconds do not count; nor does a whole run into Elasticsearch before the others, since a node that has just started
compiles its own code for a minute, and those that people have run for months.
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
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import urllib3
from append import lines_of
from elasticsearch_node import NodeError, Server
from elasticsearch_node import server as elasticsearch
from figures import figure, finish, free_port, percentile_99, start
from indexing import await_ready
from pipeline import configure
from support import set_up

from auditship.settings import load
from indexer.settings import IndexerSettings
from indexer.store.contract import Query, Reader, Unavailable
from indexer.store.select import open_reader

RATES = (10, 1_000, 10_000)
SECONDS = {10: 14.0, 1_000: 12.0, 10_000: 10.0}
WARM_S = 2.0
NODE_WARM_S = 45.0
WAIT_S_MAX = 20.0
"""How long the last line is waited for."""
ASK_INTERVAL_S = {"embedded": 0.001, "elasticsearch": 0.05}
"""Between two searches: what is found is at most that much older than it seems."""
NEWEST = Query(datasets=("web",))


class Noted(NamedTuple):
    """A run: ends of lines, when each was written and due, and when everything below an offset had come so far."""

    ends: list[int]
    written: Sequence[float]
    due: Sequence[float]
    acknowledged: list[tuple[int, float]]
    searchable: list[tuple[int, float]]
    wire_bytes: int


def waits_ms(ends: Sequence[int], written: Sequence[float], reached: Sequence[tuple[int, float]]) -> list[float]:
    """How long each line took until everything up to its end had come so far.

    Args:
        ends: offsets behind each line.
        written: when each was appended.
        reached: offsets, rising, and when everything below was there.
    """
    offsets = [offset for offset, _ in reached]
    return [(reached[bisect_left(offsets, end)][1] - at) * 1000 for end, at in zip(ends, written, strict=True)]


def prefix(blocks: list[tuple[int, int, int, float]]) -> list[tuple[int, float]]:
    """When everything below an offset was acknowledged, from blocks that may have been answered in any order."""
    reached: list[tuple[int, float]] = []
    latest = 0.0
    for _, end, _, at in sorted(blocks):
        latest = max(latest, at)
        reached.append((end, latest))
    return reached


def ask(reader: Reader, ends: list[int], interval_s: float, deadline: float) -> list[tuple[int, float]]:
    """Searches for the newest event until it is the last; what was found when."""
    reached: list[tuple[int, float]] = []
    while True:
        with suppress(Unavailable):
            if hits := reader.search(NEWEST, limit=1).hits:
                offset, now = json.loads(hits[0].body)["log"]["offset"], time.monotonic()
                if not reached or offset >= reached[-1][0]:
                    end = ends[bisect_left(ends, offset + 1)]
                    reached.append((end, now))
                    if end == ends[-1]:
                        return reached
        if time.monotonic() > deadline:
            raise SystemExit("the last line cannot be found")
        time.sleep(interval_s)


def await_agent(reader: Reader) -> None:
    """Returns once the agent's own record says that it has started: everything is up, and the store holds something."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not reader.count(Query(datasets=("agent",))):
        if time.monotonic() > deadline:
            raise SystemExit("the agent did not start")
        time.sleep(0.5)


def run(folder: Path, store: str, rate: int, seconds: float) -> Noted:
    """Appends at a rate, with everything running in a folder that holds ``indexer.toml`` and ``agent.toml``."""
    settings = load(IndexerSettings, folder / "indexer.toml")
    relay_port, notes = free_port(), folder / "relay.json"
    agent_toml = folder / "agent.toml"
    agent_toml.write_text(agent_toml.read_text().replace(f":{settings.host_port[1]}", f":{relay_port}"))
    lines = lines_of(int(rate * seconds))
    ends, end = [], 0
    for line in lines:
        end += len(line)
        ends.append(end)
    indexer = start("-m", "auditship.cli", "indexer", "--config", str(folder / "indexer.toml"))
    relay = start("bench/relay.py", str(relay_port), str(settings.host_port[1]), str(notes))
    (folder / "web.jsonl").touch()
    processes = [relay, indexer]
    try:
        await_ready(urllib3.PoolManager(), f"http://127.0.0.1:{settings.host_port[1]}")
        processes.insert(0, start("-m", "auditship.cli", "agent", "--config", str(agent_toml)))
        with closing(open_reader(settings)) as reader:
            await_agent(reader)
        gateway = start("bench/append.py", str(folder / "web.jsonl"), str(rate), str(seconds), str(folder / "times"))
        with closing(open_reader(settings)) as reader:
            searchable = ask(reader, ends, ASK_INTERVAL_S[store], time.monotonic() + seconds * 2 + WAIT_S_MAX)
        finish(gateway)
    finally:
        for process in processes:
            finish(process, stop=True)
    times: array[float] = array("d")
    times.frombytes((folder / "times").read_bytes())
    noted = json.loads(notes.read_text())
    acknowledged = prefix([tuple(block) for block in noted["blocks"]])
    return Noted(ends, times[: len(ends)], times[len(ends) :], acknowledged, searchable, noted["bytes"])


def tell(noted: Noted, store: str, rate: int) -> None:
    """The figures of a run."""
    first = int(rate * WARM_S)
    ends, written = noted.ends[first:], noted.written[first:]
    late = [(at - due) * 1000 for at, due in zip(written, noted.due[first:], strict=True)]
    context = {"store": store, "rate_per_s": rate}
    for what, reached in (("ack", noted.acknowledged), ("searchable", noted.searchable)):
        values = waits_ms(ends, written, reached)
        more = {"lines": len(values), "max_ms": round(max(values), 1), "late_p99_ms": round(percentile_99(late), 1)}
        figure(f"{what}_p50_ms", statistics.median(values), "ms", **context)
        figure(f"{what}_p99_ms", percentile_99(values), "ms", **context, **more)
    lines_per_block = round(len(noted.ends) / len(noted.acknowledged), 1)
    figure("wire_bytes_per_event", noted.wire_bytes / len(noted.ends), "B", **context, lines_per_block=lines_per_block)


def embedded(rate: int, seconds: float) -> None:
    """A run into the embedded store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configure(folder, free_port())
        noted = run(folder, "embedded", rate, seconds)
        tell(noted, "embedded", rate)
        size = sum(path.stat().st_size for path in (folder / "store").iterdir())
        count = len(noted.ends)
        figure("disk_bytes_per_event", size / count, "B", store="embedded", events=count)


@contextmanager
def configured(server: Server) -> Iterator[Path]:
    """A folder with the configuration of an indexer and an agent for that cluster, which has no documents."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configure(folder, free_port())
        ca = f'ca_file = "{server.ca}"\n' if server.ca else ""
        config = folder / "indexer.toml"
        config.write_text(
            config.read_text().replace('[store]\npath = "store"\n', '[store]\nkind = "elasticsearch"\n')
            + f"[elasticsearch]\nurls = {json.dumps(server.urls)}\n"
            + f'writer_key_file = "writer.key"\nreader_key_file = "reader.key"\n{ca}'
        )
        set_up(server, folder, empty=True)
        yield folder


def main(stores: Sequence[str], rates: Sequence[int], seconds: float | None) -> None:
    """The runs that are asked for."""
    if "embedded" in stores:
        for rate in rates:
            embedded(rate, seconds or SECONDS.get(rate, 12.0))
    if "elasticsearch" not in stores:
        return
    try:
        with elasticsearch(measured=True) as server:
            with configured(server) as folder:
                run(folder, "elasticsearch", 1_000, NODE_WARM_S)
            for rate in rates:
                with configured(server) as folder:
                    tell(run(folder, "elasticsearch", rate, seconds or SECONDS.get(rate, 12.0)), "elasticsearch", rate)
    except NodeError as error:
        print(f"not measured: {error}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("embedded", "elasticsearch"), action="append")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    parser.add_argument("--seconds", type=float, help="of each run; else some ten")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    main(arguments.store or ("embedded", "elasticsearch"), arguments.rates, arguments.seconds)
