"""Real processes under random faults: ``make faults SEEDS=200`` or ``make faults SEED=1234``.

For each seed: three gateways write, rotate and truncate; an agent ships through two misbehaving proxies to two indexers on one
store (``--elasticsearch``: the real node, whose data streams roll over meanwhile, and which is killed once); processes are
killed, stopped and asked to end, connections reset, swallowed, cut after delivery and lied to, checkpoints torn, the disk of
the agent's state filled (where this user may mount a small one). Then everything is healed, and the checker demands: each whole
line is stored exactly once, or lies in a truncated file for which a gap was told; and nothing is stored that was not written.

Ends with one line of JSON: ``{"figure": "faults", "seeds": N, "written": N, "lost": 0, "doubled": 0, "fired": {...}}``; the
status is 0 only if nothing was lost or doubled, and in each seed some fault fired.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from elasticsearch_node import Cluster, Server
from gateway import Gateway
from product import Product, free_port
from proxy import MODES, Proxy
from support import set_up

from auditship.block import first_line_digest
from auditship.settings import load
from indexer.settings import IndexerSettings
from indexer.store.contract import Query, Reader
from indexer.store.select import open_reader

AGENT = """block_bytes_max = 8192
window_bytes = 65536
flush_interval_s = 0.05
retry_interval_max_s = 0.3
refused_interval_s = 0.2
shutdown_timeout_s = 1
give_up_s = 20
report_interval_s = 1
"""
LAST_TIMEOUT_S = 120.0


@dataclass
class Result:
    """What came of one seed."""

    seed: int
    written: int = 0
    lost: int = 0
    doubled: int = 0
    foreign: int = 0
    gaps: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    problem: str = ""


class Run:
    """One seed's processes and faults."""

    def __init__(self, seed: int, home: Path, stack: ExitStack, cluster: Cluster | None) -> None:
        self.chance = random.Random(seed)
        self.cluster = cluster
        self.server = cluster.server if cluster else None
        self.store = '[store]\npath = "store"\n' if self.server is None else _set_up(self.server, home)
        self.has_disk = _small_disk(home / "state", stack)
        self.fired: Counter[str] = Counter()
        self.product = stack.enter_context(Product(home, agent=AGENT))
        self.ports = [free_port(), free_port()]
        self.proxies = [stack.enter_context(Proxy(port)) for port in self.ports]
        config = home / "agent.toml"
        urls = ", ".join(f'"http://127.0.0.1:{proxy.port}"' for proxy in self.proxies)
        limits = "connect_timeout_s = 0.5\nanswer_timeout_s = 0.7\n"
        config.write_text(config.read_text().replace(f'urls = ["{self.product.url}"]', f"urls = [{urls}]\n{limits}"))
        self.indexers = [self.start_indexer(at) for at in range(2)]
        self.agent = self.product.start_agent()
        kinds = ("web", "cli", "api")
        self.gateways = [Gateway(self.product.logs / f"{kind}.jsonl", kind, seed * 3 + at) for at, kind in enumerate(kinds)]

    def start_indexer(self, at: int) -> subprocess.Popen[bytes]:
        """One of the two indexers; each has its own port and shares the store."""
        config = self.product.home / f"indexer-{at}.toml"
        config.write_text(f'listen = "127.0.0.1:{self.ports[at]}"\n{self.store}')
        return self.product.start("indexer", "--config", config.name)

    def chaos(self, seconds: float) -> None:
        """Faults until the time is over; then everything is healed."""
        faults: list[Callable[[], str]] = [
            self.kill_agent, self.kill_agent, self.term_agent, self.freeze_agent, self.kill_indexer, self.kill_indexer,
            self.term_indexer, self.freeze_indexer, self.connections, self.connections, self.connections, self.connections,
            self.rotate, self.rotate, self.truncate, self.tear_checkpoint,
        ]  # fmt: skip
        if self.has_disk:
            faults += [self.fill_disk] * 2
        if self.server is not None:
            faults += [self.rollover] * 4
            self.kill_node_at = self.chance.randrange(8)
        for gateway in self.gateways:
            gateway.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.chance.uniform(0.02, 0.35))
            self.fired[self.chance.choice(faults)()] += 1
            if self.cluster is not None and self.fired.total() == self.kill_node_at:
                self.fired[self.kill_node()] += 1
            for proxy in self.proxies:
                if self.chance.random() < 0.6:
                    proxy.mode = "pass"
        for gateway in self.gateways:
            gateway.end()
        self.heal()

    def heal(self) -> None:
        """Everything works again, and what is there is shipped."""
        for proxy in self.proxies:
            proxy.mode = "pass"
        for at, indexer in enumerate(self.indexers):
            indexer.send_signal(signal.SIGCONT)
            if indexer.poll() is not None:
                self.indexers[at] = self.start_indexer(at)
        self.agent.send_signal(signal.SIGCONT)
        self.product.stop(self.agent)
        for _ in range(2):  # the second time ships what the first has had to say
            last = self.product.start("agent", "--config", "agent.toml", "--once")
            assert last.wait(LAST_TIMEOUT_S) == 0, f"the last shipment failed: {self.product.said('agent')}"

    def kill_agent(self) -> str:
        self.product.kill(self.agent)
        self.agent = self.product.start_agent()
        return "kill_agent"

    def term_agent(self) -> str:
        status = self.product.stop(self.agent)
        assert status in (0, -signal.SIGTERM), f"the agent ended with {status}: {self.product.said('agent')}"
        self.agent = self.product.start_agent()
        return "term_agent"

    def freeze_agent(self) -> str:
        self._freeze(self.agent)
        return "freeze_agent"

    def freeze_indexer(self) -> str:
        self._freeze(self.chance.choice(self.indexers))
        return "freeze_indexer"

    def _freeze(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(0.1, 0.9))
        process.send_signal(signal.SIGCONT)
        assert process.poll() is None, f"{process.args} has ended by itself with {process.returncode}"

    def kill_indexer(self) -> str:
        at = self.chance.randrange(2)
        self.product.kill(self.indexers[at])
        self.indexers[at] = self.start_indexer(at)
        return "kill_indexer"

    def term_indexer(self) -> str:
        at = self.chance.randrange(2)
        self.indexers[at].terminate()
        self.indexers[at].wait(30)
        self.indexers[at] = self.start_indexer(at)
        return "term_indexer"

    def fill_disk(self) -> str:
        """There is no room for the agent's state for a while; not before it has made its id."""
        if not (self.product.home / "state" / "agent-id").exists():
            return self.rotate()
        ballast = self.product.home / "state" / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(self.chance.uniform(0.1, 0.8))
        ballast.unlink(missing_ok=True)
        return "fill_disk"

    def kill_node(self) -> str:
        """The Elasticsearch node dies and comes back with what it had made durable; gateways write on for a second of that."""
        assert self.cluster is not None
        (node,) = self.cluster.nodes
        node.kill()
        time.sleep(1)
        with ExitStack() as quiet:  # or what is written meanwhile takes longer to ship than the whole run
            for gateway in self.gateways:
                quiet.enter_context(gateway.paused())
            self.cluster.relaunch(node)
        return "kill_node"

    def connections(self) -> str:
        proxy = self.chance.choice(self.proxies)
        proxy.mode = self.chance.choice(MODES)
        if self.chance.random() < 0.3:
            proxy.drop_all()
        return f"connection_{proxy.mode}"

    def rotate(self) -> str:
        self.chance.choice(self.gateways).wish("rotate")
        return "rotate"

    def truncate(self) -> str:
        """Cuts off a file whose size the agent durably knows; of what nobody ever saw nobody can tell."""
        gateway = self.chance.choice(self.gateways)
        checkpoint = self.product.home / "state" / "checkpoint"
        with gateway.paused() as size:
            first = gateway.lives[-1].lines[:1]
            known = re.compile(first_line_digest(first[0]).hex() + f'.*"size":{size},') if first else re.compile("(?!)")
            for _ in range(60):
                if checkpoint.exists() and known.search(checkpoint.read_text()):
                    gateway.wish("truncate")
                    return "truncate"
                time.sleep(0.05)
            gateway.wish("rotate")
            return "rotate"

    def rollover(self) -> str:
        """New backing indices: the cluster itself would now take a second document of an id."""
        assert self.server is not None
        for kind in ("web", "cli", "api", "rejected"):
            self.server.request("POST", f"/logs-audit.{kind}-30d/_rollover")
        return "rollover"

    def reader(self) -> Reader:
        """What is stored."""
        if self.server is not None:
            self.server.request("POST", "/logs-audit.*/_refresh")
        return open_reader(load(IndexerSettings, self.product.home / "indexer-0.toml"))

    def tear_checkpoint(self) -> str:
        """The newest checkpoint is torn, as a disk without a working sync leaves it; the one before still holds."""
        self.product.kill(self.agent)
        path = self.product.home / "state" / "checkpoint"
        before = path.with_name("checkpoint.previous")
        is_whole = before.exists() and path.exists() and all(self._is_known(each, before) for each in self.gateways)
        if is_whole:
            data = path.read_bytes()
            path.write_bytes(data[: self.chance.randrange(len(data))])
        self.agent = self.product.start_agent()
        return "tear_checkpoint" if is_whole else "kill_agent"

    def _is_known(self, gateway: Gateway, checkpoint: Path) -> bool:
        """Whether a checkpoint knows of a gateway's last truncation: else nobody could tell what was cut off."""
        if not any(life.is_truncated for life in gateway.lives):
            return True
        first = gateway.lives[-1].lines[:1]
        return bool(first) and first_line_digest(first[0]).hex() in checkpoint.read_text()


def check(run: Run, result: Result) -> None:
    """Compares what was written with what is stored, line by line."""
    with closing(run.reader()) as reader:
        found = (json.loads(hit.body) for query in (Query(), Query(datasets=("rejected",))) for hit in reader.scan(query))
        # a full disk may cut off a line of the agent's own record, which then is a rejected line
        stored = Counter(_original(document) for document in found if document["audit"]["gateway"] != "agent")
        events = [json.loads(hit.body) for hit in reader.scan(Query(datasets=("agent",)))]
    gaps = [event for event in events if event["event"]["action"] == "agent.gap"]
    result.gaps = len(gaps)
    told: Counter[str] = Counter()
    for gap in gaps:
        size = gap["audit"]["extra"]["gap"]["bytes"]
        told[Path(gap["audit"]["resource"]["name"]).name.partition(".")[0]] += 1 << 40 if size is None else size
    for gateway in run.gateways:
        lost_bytes = 0
        for life in gateway.lives:
            result.written += len(life.lines)
            for line in life.lines:
                count = stored.pop(line[:-1], 0)
                result.doubled += max(0, count - 1)
                if not count and life.is_truncated:
                    lost_bytes += len(line)
                elif not count:
                    result.lost += 1
        if lost_bytes > told[gateway._path.name.partition(".")[0]]:
            result.lost += 1
            result.problem += f"{lost_bytes} bytes of {gateway._path.name} were truncated, and no gap tells of all of them; "
    # a line that was being written when its file was truncated may be there in part
    result.foreign = sum(not any(_is_part(line, gateway) for gateway in run.gateways) for line in stored)


def _is_part(line: bytes, gateway: Gateway) -> bool:
    return any(line and each.endswith(line + b"\n") for life in gateway.lives for each in life.lines)


def _original(document: dict) -> bytes:
    exact = document["audit"].get("rejection", {}).get("bytes")
    return base64.b64decode(exact) if exact else document["event"]["original"].encode()


def _small_disk(path: Path, stack: ExitStack) -> bool:
    """A disk of eight mebibytes at a place, if this user may mount one."""
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    stack.callback(subprocess.run, ["umount", "-l", str(path)], capture_output=True, check=False)
    return True


def _set_up(server: Server, home: Path) -> str:
    """An Elasticsearch with empty data streams; the configuration that names it."""
    settings = set_up(server, home, empty=True)
    ca = f'ca_file = "{server.ca}"\n' if server.ca else ""
    keys = f'writer_key_file = "{settings.writer_key_file}"\nreader_key_file = "{settings.reader_key_file}"\n'
    return f'[store]\nkind = "elasticsearch"\n[elasticsearch]\nurls = {json.dumps(list(server.urls))}\n{ca}{keys}'


def one(seed: int, seconds: float, cluster: Cluster | None) -> Result:
    """Runs one seed."""
    result = Result(seed)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"auditship-faults-{seed}-")))
        try:
            run = Run(seed, home, stack, cluster)
            run.chaos(seconds)
            result.fired = run.fired
            assert run.fired, "no fault fired: this run has shown nothing"
            check(run, result)
        except Exception as error:  # noqa: BLE001 - told with its seed
            result.problem += f"{type(error).__name__}: {error}"
        if (result.problem or result.lost or result.doubled or result.foreign) and (keep := os.environ.get("KEEP")):
            subprocess.run(["cp", "-r", str(home), f"{keep}/seed-{seed}"], check=True)
    return result


@contextmanager
def results(seeds: list[int], seconds: float, jobs: int, *, elasticsearch: bool) -> Iterator[Iterator[Result]]:
    """Each seed's result, as they come; a cluster is shared by all, one after another."""
    if elasticsearch:
        with Cluster.start() as cluster:
            yield (one(seed, seconds, cluster) for seed in seeds)
    else:
        with ProcessPoolExecutor(jobs) as pool:
            yield pool.map(one, seeds, [seconds] * len(seeds), [None] * len(seeds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many fresh seeds; 20, unless --seed is given")
    parser.add_argument("--seed", type=int, nargs="+", help="these: alone, unless --seeds asks for fresh ones as well")
    parser.add_argument("--seconds", type=float, default=3.0, help="of faults for each seed")
    parser.add_argument("--elasticsearch", action="store_true", help="on the real Elasticsearch instead of the embedded store")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    options = parser.parse_args()
    fresh = random.SystemRandom()
    count = options.seeds if options.seeds is not None else 0 if options.seed else 20
    seeds = [*(options.seed or ()), *(fresh.randrange(10**9) for _ in range(count))]
    total, bad = Result(0), 0
    if os.geteuid() != 0:
        print("full disks are left out: mounting a small one needs root", file=sys.stderr)
    with results(seeds, options.seconds, options.jobs, elasticsearch=options.elasticsearch) as found:
        for result in found:
            total.written += result.written
            total.lost += result.lost
            total.doubled += result.doubled
            total.gaps += result.gaps
            total.fired += result.fired
            wrong = bool(result.problem or result.lost or result.doubled or result.foreign)
            bad += wrong
            word = "FAILED" if wrong else "held"
            print(
                f"seed {result.seed:>9}  {word}  written {result.written}, lost {result.lost}, doubled {result.doubled}, "
                f"foreign {result.foreign}, gaps {result.gaps}  {result.problem}",
                file=sys.stderr,
                flush=True,
            )
    summary = {"figure": "faults", "seeds": len(seeds), "written": total.written, "lost": total.lost, "doubled": total.doubled}
    print(json.dumps({**summary, "failed_seeds": bad, "gaps": total.gaps, "fired": dict(sorted(total.fired.items()))}))
    return 1 if bad or not seeds else 0


if __name__ == "__main__":
    sys.exit(main())
