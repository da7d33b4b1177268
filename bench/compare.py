"""Ours next to rsyslog, syslog-ng and Filebeat: the same lines into the same sink, in turn, on the same machine.

    make bench-peers
    make bench-peers ARGS="--lines 200000 --rounds 1 --only rsyslog --only agent"

A figure is what the operating system says that the processes used, user and system, less what they use for next to no lines;
the sink is not among them. It counts only if the sink has seen every line exactly once. Each round takes all subjects, every
second one from the last to the first; ratios are those within a round. What cannot be had is left out, and told. JSON lines
are on standard output, the table is on standard error. Method: ``docs/bench.md``; the peers' configurations: ``bench/peers/``.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from comparison import InexactError, Result, Spent, ratio, table
from figures import figure, finish, free_port, log_file, start
from obtain import MissingError
from run import machine
from shipping import await_listening
from subjects import SUBJECTS, Site, Subject, UnfinishedError

OURS = {"agent": ("agent_lines_per_cpu_s", "of"), "agent + indexer": ("pipeline_events_per_cpu_s", "of")}
"""The figures of ours are named as in the other measurements."""
COMPARED = {("agent", "raw"), ("agent + indexer", "enriched")}
"""What of ours peers are compared with: all that a line costs, until it is on the wire."""
START_LINES = 1000


def measure(subject: Subject, lines: int, seconds_max: float) -> Spent:
    """One subject, once, with a sink and a folder of its own.

    Raises:
        UnfinishedError: not all lines came.
        InexactError: lines came more than once, too.
    """
    with tempfile.TemporaryDirectory(prefix="auditship-peers-") as name:
        folder = Path(name)
        log = log_file(folder, lines).resolve()
        site = Site(folder, log, lines, free_port(), time.monotonic() + seconds_max)
        sink = start(str(Path(__file__).parent / "sink.py"), str(site.port))
        try:
            await_listening(site.port)
            used = subject.run(site)
        finally:
            finish(sink, stop=True)
    return Spent(sum(usage.cpu_s for usage in used), sum(usage.rss_mib for usage in used))


class Rounds:
    """What subjects have used so far; one that fails once has no figure, and takes no further part."""

    def __init__(self, subjects: list[Subject], seconds_max: float) -> None:
        self._subjects = subjects
        self._seconds_max = seconds_max
        self._start: dict[Subject, list[float]] = {subject: [] for subject in subjects}
        self._spent: dict[Subject, list[Spent]] = {subject: [] for subject in subjects}
        self._failed: dict[Subject, str] = {}

    def run(self, rounds: int, lines: int) -> list[Result]:
        """Each subject in each round: with few lines, then with all of them."""
        for number in range(rounds):
            for subject in reversed(self._subjects) if number % 2 else self._subjects:
                few = self._measure(subject, START_LINES)
                found = self._measure(subject, lines)
                if few and found:
                    self._start[subject].append(few.cpu_s)
                    self._spent[subject].append(found)
                    what = f"{found.cpu_s:.2f} CPU s, {few.cpu_s:.2f} of them for the start, {found.rss_mib:.0f} MiB"
                    print(f"  round {number + 1}: {subject.name} {subject.mode}: {what}", file=sys.stderr, flush=True)
        return [
            Result(
                each.name,
                each.mode,
                each.version,
                min(self._start[each], default=0),
                self._spent[each],
                self._failed.get(each, ""),
            )
            for each in self._subjects
        ]

    def _measure(self, subject: Subject, lines: int) -> Spent | None:
        if subject in self._failed:
            return None
        try:
            return measure(subject, lines, self._seconds_max)
        except (UnfinishedError, InexactError) as error:
            self._failed[subject] = str(error)
            print(f"  {subject.name} {subject.mode}: {error}", file=sys.stderr, flush=True)
            return None


def tell(results: list[Result], events: int) -> None:
    """The figures as JSON lines, the table for people."""
    ours = [each for each in results if (each.name, each.mode) in COMPARED]
    for result in results:
        if result.why_not:
            continue
        speeds = result.events_per_cpu_s(events)
        name, key = OURS.get(result.name, ("peer_events_per_cpu_s", "peer"))
        figure(
            name,
            statistics.median(speeds),
            "1/s",
            **{key: result.name},
            mode=result.mode,
            version=result.version,
            events=events,
            rounds=[round(each) for each in speeds],
            start_cpu_s=round(result.start_cpu_s, 2),
            rss_mib=round(result.rss_mib, 1),
        )
    for result in results:
        for own in ours:
            found = ratio(own, result)
            if found is not None and result.name not in OURS:
                figure("ratio", found, "", of=own.name, to=f"{result.name} {result.mode}")
    print("", *machine(), "", *table(results, ours, events), sep="\n", file=sys.stderr)


def main(wanted: list[str], lines: int, rounds: int, seconds_max: float) -> None:
    """Measures the subjects of those names; none: all."""
    if unknown := set(wanted) - {name for name, _ in SUBJECTS}:
        names = ", ".join(dict.fromkeys(name for name, _ in SUBJECTS))
        raise SystemExit(f"no such subject: {', '.join(sorted(unknown))}; there are {names}")
    subjects: list[Subject] = []
    missing: list[Result] = []
    for (name, mode), made in SUBJECTS.items():
        if wanted and name not in wanted:
            continue
        try:
            if name not in {each.name for each in missing}:
                subjects.append(made(mode))
                continue
        except MissingError as error:
            print(f"  {error}", file=sys.stderr, flush=True)
        missing.append(Result(name, mode, "", 0, [], "left out"))
    tell(Rounds(subjects, seconds_max).run(rounds, lines) + missing, lines - START_LINES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600, help="after which one measurement is given up")
    parser.add_argument("--only", action="append", default=[], help="this subject alone; may be given again")
    arguments = parser.parse_args()
    if arguments.lines < 10 * START_LINES or arguments.rounds < 1:
        parser.error(f"at least {10 * START_LINES:,} lines and one round: fewer say nothing")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends, too
    main(arguments.only, arguments.lines, arguments.rounds, arguments.seconds)
