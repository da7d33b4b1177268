"""What every store does, and what those who use one may count on.

Writing. ``append`` returns only when every entry is durable (survives a crash of the machine), with one verdict per entry
in the same order. An id is stored once: the second ``append`` of it is :attr:`Verdict.DUPLICATE`, within a data stream's
present segment (a backing index, a day's file) always, across segments when ``redelivered`` is true. A store that cannot
take anything now raises :class:`Unavailable`; some of the entries may then be stored nonetheless, and the caller's next
attempt with ``redelivered`` set finds them. An entry that can never be stored gets a :class:`Refused`; those beside it are
not affected.

Reading. The same :class:`Query` gives the same hits from every store. Readers see what was appended within a second or
two, and never disturb writers. What cannot be read now raises :class:`Unavailable`: an answer leaves nothing out but what is
damaged for good, which is logged.

Both sides are given all they need; nothing here reads the configuration or the clock by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, Protocol

from auditship.block import gateway_name
from auditship.errors import AuditshipError
from indexer.document import Entry


class Verdict(Enum):
    """What became of an entry."""

    CREATED = "created"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Refused:
    """The store will never take this entry: the reason, in the store's words."""

    reason: str


class Unavailable(AuditshipError):  # noqa: N818 - a state of the store, not a defect
    """The store cannot take or give anything now.

    ``retry_after_s`` is how long to wait; ``overloaded`` tells a store that pushes back (429) from one that cannot be
    reached (503).
    """

    def __init__(self, what: str, hint: str = "", *, retry_after_s: float = 1.0, overloaded: bool = False) -> None:
        super().__init__(what, hint)
        self.retry_after_s = retry_after_s
        self.overloaded = overloaded


class Writer(Protocol):
    """The side of a store that adds. Safe to call from several tasks of one event loop at once."""

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        """Stores the entries durably.

        Raises:
            Unavailable: nothing can be stored now.
        """

    async def ready(self) -> None:
        """Returns if the store could take entries now.

        Raises:
            Unavailable: saying why not.
        """

    async def close(self) -> None:
        """Ends what is under way and lets go of everything."""


class QueryError(AuditshipError):
    """The query cannot be understood; says where and what was expected."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: Lucene syntax over the ECS names, and the everyday filters. All of them must hold.

    ``since_ms`` is inclusive, ``until_ms`` exclusive, on ``@timestamp``. ``datasets`` names the kinds of document: none
    means every gateway's events, which leaves out ``rejected``, ``alert``, ``agent`` and ``access``. Text filters compare
    exactly but without regard to case.
    """

    text: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    severities: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    organization: str | None = None
    actor: str | None = None
    """A user's or token's id, name, full name or e-mail."""
    action: str | None = None
    outcome: Literal["success", "failure"] | None = None
    organizations: tuple[str, ...] = ()
    """Whose documents may be seen at all, by organisation; none: everybody's. Nothing in ``text`` can widen it."""

    def __post_init__(self) -> None:
        """Datasets become parts of names of data streams: nothing else may stand there. Text is Unicode, as documents are.

        Raises:
            QueryError: it is not.
        """
        for name in self.datasets:
            try:
                gateway_name(name)
            except ValueError:
                raise QueryError(f"no such dataset: {name[:80]!r}") from None
        for text in (self.text, self.organization or "", self.actor or "", self.action or "", *self.organizations):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                what = ascii(text[error.start : error.end])
                raise QueryError(f"the query is not Unicode: {what}", "Write it in UTF-8.") from None


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found: ``body`` is its JSON on one line."""

    id: str
    dataset: str
    retention: str
    time_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Hits, newest first, and the cursor that continues behind them (none: there are no more).

    Only the cursor tells whether there are more: a page may have fewer hits than were asked for.
    """

    hits: list[Hit]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Hits that have become visible, and the cursor behind them: once the hits are dealt with, it is where to go on.

    ``is_old``: they were there when following began; they are to be remembered, and are no arrivals.
    """

    hits: list[Hit]
    cursor: str
    is_old: bool = False


PAGE_BYTES_MAX: Final = 16 << 20
"""What the bodies of a page come to where a store bounds it; a larger one is given, by itself."""

Known = Callable[[int, int], Mapping[int, int]]
"""How many arrivals are known already, by epoch second of ``event.ingested``, from a time to before another (milliseconds)."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A span of a histogram: its first millisecond, and how many events by severity."""

    start_ms: int
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Segment:
    """A backing index, or a day's file: its class, and how many documents of which organisation (in lower case) it holds.

    ``organizations`` is None where that cannot be read now.
    """

    name: str
    retention: str
    organizations: Mapping[str, int] | None


Person = tuple[str, str]
"""An organisation's id and a ``user.id`` in it, as a document spells them."""
PEOPLE_MAX: Final = 256
"""People that one question about sightings may name."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where somebody was: epoch milliseconds, degrees, and the city as the store tells it (perhaps in lower case)."""

    time_ms: int
    latitude: float
    longitude: float
    city: str


@dataclass(frozen=True, slots=True)
class Sightings:
    """Where an actor's successes came from.

    ``countries``: by ISO code in capitals, ``networks``: by AS number; each with the time of the first, and how many they were.
    ``positions``: of those with a city, the first and the last in each place, the oldest first; so the latest of all is there.
    """

    countries: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    networks: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    positions: Sequence[Position] = ()


class Reader(Protocol):
    """The side of a store that finds. Calls block; a server makes them in a thread. Safe from several threads at once."""

    def search(self, query: Query, *, limit: int = 50, cursor: str | None = None) -> Page:
        """The newest hits by ``@timestamp``, then by id; fewer than ``limit`` where bodies come to :data:`PAGE_BYTES_MAX`."""

    def count(self, query: Query) -> int:
        """How many documents the query finds."""

    def histogram(self, query: Query, *, interval_ms: int) -> list[Bucket]:
        """Events over time by severity; buckets begin at multiples of the interval, empty ones are left out."""

    def facets(self, query: Query, fields: Sequence[str], *, limit: int = 10) -> dict[str, list[tuple[str, int]]]:
        """The most frequent values of each field (an ECS name of a keyword or ip), with their counts, most first."""

    def arrivals(self, query: Query, cursor: str | None, *, known: Known, overlap_ms: int) -> Iterator[Arrivals]:
        """What has become visible since a cursor, in portions; at least one, which moves the cursor even without hits.

        Without a cursor it begins now, and gives none but old ones. A hit may be given again, and the caller who remembers
        ids passes over it; ``known`` spares the store the work of giving it again. None is left out that becomes visible
        ``overlap_ms`` after its ``event.ingested`` or sooner. Hits come in the order of their arrival, but for late ones.
        """

    def actor_history(self, organization: str, actor: str, *, since_ms: int, limit: int = 1000) -> list[Hit]:
        """What an actor (by ``user.id``) did in an organisation, newest first: no more than a page."""

    def sightings(
        self, people: Sequence[Person], *, since_ms: int, until_ms: int, relays: Collection[int], timeout_s: float
    ) -> dict[Person, Sightings]:
        """Where people's successes came from, between two times; who had none is left out.

        Args:
            people: at most :data:`PEOPLE_MAX`, in ids of at most 1,024 characters (longer ones are not found).
            since_ms: inclusive, on ``@timestamp``.
            until_ms: exclusive.
            relays: AS numbers of networks that do not tell where somebody is; left out of ``positions``.
            timeout_s: how long it may take, about.

        Raises:
            Unavailable: the store cannot tell, or not in that time.
        """

    def scan(self, query: Query) -> Iterator[Hit]:
        """Every hit, oldest first, for export: any number of them in bounded memory."""

    def segments(self) -> list[Segment]:
        """What is deleted as a whole, with whose documents it holds; by name."""

    def close(self) -> None:
        """Lets go of everything."""


class Expirer(Protocol):
    """The side of a store that deletes what is too old, where the store does not do so by itself."""

    def expire(self, now_ms: int, *, exceptions: Mapping[str, int | None] | None = None) -> list[str]:
        """Deletes segments past their retention; returns the names of what it deleted.

        ``exceptions``: segments for which other days than those of their class hold; none: they are kept.
        """
