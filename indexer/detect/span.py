"""A span of time that is looked at: of the events' own time, or of their arrival."""

from __future__ import annotations

from typing import NamedTuple

from indexer.store.contract import Query


class Span(NamedTuple):
    """From ``since_ms`` until before ``until_ms``."""

    since_ms: int
    until_ms: int
    by_arrival: bool = False

    @property
    def arrived(self) -> str:
        """The query for what arrived in it."""
        return f"event.ingested:[{self.since_ms} TO {self.until_ms - 1}]"

    def query(self, text: str = "", datasets: tuple[str, ...] = ()) -> Query:
        """The query for what a text finds in it."""
        if not self.by_arrival:
            return Query(text, since_ms=self.since_ms, until_ms=self.until_ms, datasets=datasets)
        return Query(f"({text}) AND {self.arrived}" if text else self.arrived, datasets=datasets)
