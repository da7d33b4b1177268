"""Ten thousand agents on one indexer: their connections, their heartbeats, and some traffic.

    make bench-fleet
    make bench-fleet ARGS="--agents 2000 --seconds 10"

One process plays all agents: each has a token of its own, a kept connection, a stream for its own record and one for its
gateway. The indexer is the real one, with a configuration of that many ``[[agents]]``. Figures, all of one indexer worker:

``fleet_connections`` held at once · ``fleet_start_up_s`` of the indexer with that configuration · ``fleet_connect_s`` until all
are connected and have sent a first heartbeat, everybody at once, as after an outage · ``fleet_bytes_per_connection`` of the
indexer's memory · ``fleet_heartbeat_cpu_percent`` of a core for one heartbeat a minute from each · ``fleet_blocks_per_s`` and
``fleet_answer_p99_ms`` under traffic at a bounded rate · ``fleet_errors``: answers other than 200, and connections lost.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import urllib3
import zstandard
from figures import SEED, START_MS, cpu_s, figure, finish, free_port, percentile_99, start
from indexing import await_ready
from stream import Stream

from auditship.block import PATH
from auditship.sample import Sample
from indexer.enrich import demo_database

HEARTBEAT_INTERVAL_S = 60.0
OPEN_FILES_SPARE = 200
CONNECTING_MAX = 500
"""Connections that are being made at the same time: the listening queue of the kernel is not endless."""
ANSWER_S_MAX = 60.0
HEARTBEAT = (
    b'{"timestamp":%d,"organization":{"id":"auditship","name":"auditship"},"actor":{"type":"service","id":"%b","name":'
    b'"auditship agent on %b"},"action":"agent.heartbeat","resource":{"type":"agent"},"status":"success","interval_s":60.0,'
    b'"streams":3,"lag_bytes":0,"lag_s":0.0,"behind":[],"counts":{"lines":%d,"bytes":0,"blocks":0,"documents":0,"duplicates":0,"rejected":0,'
    b'"retries":0,"gaps":0,"gap_bytes":0,"halted":0,"unreadable":0}}\n'
)


class Fleet:
    """What all agents share: what is counted, and what they send."""

    def __init__(self, port: int, lines: list[bytes]) -> None:
        self.port = port
        self.lines = lines
        self.answers_s: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.connecting = asyncio.Semaphore(CONNECTING_MAX)


class Agent:
    """One agent: a connection, and two streams."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet = fleet
        self._number = number
        self.name = f"gw-{number}"
        self.token = f"token-of-{number}"
        self._streams = {gateway: Stream(self.name, gateway) for gateway in ("agent", "web")}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Opens the connection; from one of several loopback addresses, each of which has its own ports."""
        async with self._fleet.connecting:
            source = (f"127.0.0.{2 + self._number % 8}", 0)
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._fleet.port, local_addr=source)

    def close(self) -> None:
        """Lets the connection go."""
        if self._writer is not None:
            self._writer.close()

    async def heartbeat(self) -> None:
        """Sends what an agent says of itself once a minute."""
        name = self.name.encode()
        await self._send("agent", HEARTBEAT % (START_MS, name, name, self._number))

    async def traffic(self, count: int) -> None:
        """Sends some lines of a gateway."""
        first = random.Random(self._number).randrange(len(self._fleet.lines) - count)
        await self._send("web", b"".join(self._fleet.lines[first : first + count]))

    async def _send(self, gateway: str, data: bytes) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                status = await self._ask(gateway, data)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            status = type(error).__name__
        self._fleet.statuses[status] += 1
        self._fleet.answers_s.append(time.monotonic() - began)

    async def _ask(self, gateway: str, data: bytes) -> str:
        if self._writer is None:
            await self.connect()
        assert self._reader is not None
        assert self._writer is not None
        body = self._fleet.compress(data)
        fields = self._streams[gateway].block(data).to_headers() | {
            "Host": f"127.0.0.1:{self._fleet.port}",
            "Authorization": f"Bearer {self.token}",
            "Content-Encoding": "zstd",
            "Content-Length": str(len(body)),
        }
        head = f"POST {PATH} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        return answer.split(b" ", 2)[1].decode()


def rss_mib(pid: int) -> float:
    """A process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def open_files(pid: int) -> int:
    """How many a process has."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def paced(agents: list[Agent], per_s: float, seconds: float, lines: int) -> None:
    """Agents in turn send at a rate (an open loop): heartbeats, or with ``lines`` some lines of their gateway."""
    began = time.monotonic()
    tasks = []
    for at in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, began + at / per_s - time.monotonic()))
        agent = agents[at % len(agents)]
        tasks.append(asyncio.create_task(agent.traffic(lines) if lines else agent.heartbeat()))
    await asyncio.gather(*tasks)


async def live(fleet: Fleet, agents: list[Agent], pid: int, options: argparse.Namespace) -> None:
    """The fleet's life."""
    empty_mib = rss_mib(pid)
    began, used = time.monotonic(), cpu_s(pid)
    await asyncio.gather(*(agent.heartbeat() for agent in agents))
    took = time.monotonic() - began
    held = open_files(pid)
    context = {"agents": len(agents), "workers": 1}
    figure("fleet_connect_s", took, "s", **context, cpu_s=round(cpu_s(pid) - used, 2))
    figure("fleet_connections", sum(agent._writer is not None for agent in agents), "", open_files=held)  # noqa: SLF001 - ours
    figure("fleet_bytes_per_connection", (rss_mib(pid) - empty_mib) * 2**20 / len(agents), "B", rss_mib=round(rss_mib(pid)))

    per_s = len(agents) / HEARTBEAT_INTERVAL_S
    fleet.answers_s.clear()
    began, used = time.monotonic(), cpu_s(pid)
    await paced(agents, per_s, options.seconds, 0)
    share = (cpu_s(pid) - used) / (time.monotonic() - began) * 100
    p99 = round(percentile_99(fleet.answers_s) * 1000, 1)
    figure("fleet_heartbeat_cpu_percent", share, "%", blocks_per_s=round(per_s), answer_p99_ms=p99)

    fleet.answers_s.clear()
    began, used = time.monotonic(), cpu_s(pid)
    await paced(agents, options.rate, options.seconds, options.lines)
    took = time.monotonic() - began
    more = {"lines_per_block": options.lines, "cpu_percent": round((cpu_s(pid) - used) / took * 100)}
    figure("fleet_blocks_per_s", len(fleet.answers_s) / took, "1/s", **context, **more)
    figure("fleet_answer_p50_ms", statistics.median(fleet.answers_s) * 1000, "ms", blocks_per_s=options.rate)
    figure("fleet_answer_p99_ms", percentile_99(fleet.answers_s) * 1000, "ms", blocks_per_s=options.rate)
    errors = {status: count for status, count in fleet.statuses.items() if status != "200"}
    figure("fleet_errors", sum(errors.values()), "", answered=fleet.statuses["200"], **errors)
    for agent in agents:
        agent.close()


def configure(folder: Path, port: int, agents: list[Agent]) -> Path:
    """The indexer's configuration: a token for each agent."""
    config = folder / "indexer.toml"
    entries = "".join(
        f'[[agents]]\nname = "{agent.name}"\ntoken_sha256 = "{hashlib.sha256(agent.token.encode()).hexdigest()}"\n'
        for agent in agents
    )
    config.write_text(
        f'listen = "127.0.0.1:{port}"\nconnections_max = {2 * len(agents) + 100}\n[store]\npath = "store"\n'
        f'[enrichment]\ncity_database = "{demo_database.path()}"\n{entries}'
    )
    return config


def main(options: argparse.Namespace) -> None:
    """Starts the indexer, and lets the fleet live."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < options.agents + OPEN_FILES_SPARE:
        options.agents = hard - OPEN_FILES_SPARE
        print(f"only {options.agents} agents: ulimit -Hn is {hard}", file=sys.stderr)
    sample = Sample(SEED)
    fleet = Fleet(free_port(), [sample.line("web", START_MS + at) for at in range(5_000)])
    agents = [Agent(fleet, number) for number in range(options.agents)]
    with tempfile.TemporaryDirectory() as name:
        config = configure(Path(name), fleet.port, agents)
        began = time.monotonic()
        indexer = start("-m", "auditship.cli", "indexer", "--config", str(config))
        try:
            await_ready(urllib3.PoolManager(), f"http://127.0.0.1:{fleet.port}")
            figure("fleet_start_up_s", time.monotonic() - began, "s", agents=len(agents), soft_limit=soft)
            asyncio.run(live(fleet, agents, indexer.pid, options))
        finally:
            usage = finish(indexer, stop=True)
    figure("indexer_rss_mib", usage.rss_mib, "MiB", agents=len(agents))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of heartbeats alone, and of traffic")
    parser.add_argument("--rate", type=float, default=400.0, help="blocks a second, under traffic")
    parser.add_argument("--lines", type=int, default=10, help="in each of these blocks")
    main(parser.parse_args())
