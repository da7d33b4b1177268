"""What a comparison comes to: medians, ratios within the same round, and the table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class InexactError(Exception):
    """Not every line came exactly once: there is no figure."""


class Spent(NamedTuple):
    """What the processes of one round have used together.

    The peak is the operating system's, which counts the moment before a process becomes another program: it is never told
    smaller than the harness itself, some 30 MiB.
    """

    cpu_s: float
    rss_mib: float


class Result(NamedTuple):
    """A subject's rounds; with a reason why there is no figure, they count for nothing.

    ``start_cpu_s`` is what a run over next to no lines took, the least of all rounds: noise in it would flatter whoever starts
    slowly. It is told by itself and taken off every round: these programs run for months, and a rate with the start in it would
    say how many lines were chosen.
    """

    name: str
    mode: str
    version: str
    start_cpu_s: float
    rounds: Sequence[Spent]
    why_not: str = ""

    @property
    def cpu_s(self) -> list[float]:
        """What the lines took in each round."""
        return [max(spent.cpu_s - self.start_cpu_s, 0.01) for spent in self.rounds]

    def events_per_cpu_s(self, events: int) -> list[float]:
        """Of each round; ``events`` are those that the start did not have."""
        return [events / cpu_s for cpu_s in self.cpu_s]

    @property
    def rss_mib(self) -> float:
        """The most that any round needed."""
        return max(spent.rss_mib for spent in self.rounds)


def check(tally: Mapping[str, int], lines: int) -> None:
    """Returns if every line came once, and nothing that is no line of ours came in its place.

    Raises:
        InexactError: saying how many are missing, and how many came more than once.
    """
    lost, doubled = lines - tally["different"], tally["events"] - tally["different"]
    if lost or doubled:
        raise InexactError(f"inexact: {lost:,} of {lines:,} lines lost, {doubled:,} doubled")


def ratio(of: Result, to: Result) -> float | None:
    """How many times the events per CPU second ``of`` has of ``to``: the median over rounds; none without a figure."""
    if of.why_not or to.why_not or not (of.rounds and to.rounds):
        return None
    return statistics.median(other / own for own, other in zip(of.cpu_s, to.cpu_s, strict=True))


def table(results: Iterable[Result], ours: Sequence[Result], events: int) -> Iterable[str]:
    """The results as Markdown; a column for each of ``ours`` says how many times a peer's figure it reaches."""
    names = {each.name for each in ours}
    columns = ["", "work", "events per CPU s, median (range)", "start, CPU s", "peak RSS, MiB"]
    yield "| " + " | ".join([*columns, *(f"{each.name} ÷ it" for each in ours)]) + " |"
    yield "|---|---|---:|---:|---:|" + "---:|" * len(ours)
    for result in results:
        cells = [f"{result.name} {result.version}".strip(), result.mode]
        if result.why_not:
            yield "| " + " | ".join([*cells, result.why_not.replace("|", "/"), *[""] * (len(ours) + 2)]) + " |"
            continue
        speeds = result.events_per_cpu_s(events)
        cells.append(f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})")
        cells += [f"{result.start_cpu_s:.2f}", f"{result.rss_mib:,.0f}"]
        found = [None if result.name in names else ratio(each, result) for each in ours]
        yield "| " + " | ".join([*cells, *("" if each is None else f"{each:.2f}" for each in found)]) + " |"
