"""A message: what a person reads, in the log's own columns, harmless whatever a gateway wrote.

Every text is cut to :data:`TEXT_MAX` characters, and what is not printable in it (line ends, terminal escapes, marks that turn
the direction of writing) is shown as an escape. What a channel's own format makes of printable characters is the channel's to
escape.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import asdict

from auditship.clock import EPOCH
from auditship.log import printable
from indexer.alerts.cause import Telling, is_anybodys, is_many
from indexer.alerts.event import ALERT, Event

TEXT_MAX: Final = 300
Kind = Literal["alert", "growth", "end", "recovery", "test"]
_LEADS: Final = {"alert": "", "growth": "continues: ", "end": "ended: ", "recovery": "over: ", "test": "TEST: "}


class Message(Struct, frozen=True, omit_defaults=True):
    """What is told. ``id`` repeats when a delivery is repeated; ``cause`` is the same in all messages of a cause.

    Times are RFC 3339 in UTC. ``count`` is how many events the cause has had so far, between ``first`` and ``last``.
    """

    id: str
    cause: str
    kind: Kind
    severity: str
    title: str
    timestamp: str
    count: int = 1
    first: str = ""
    last: str = ""
    organization: str = ""
    actor: str = ""
    action: str = ""
    resource: str = ""
    location: str = ""
    status: str = ""
    reason: str = ""
    rule: str = ""
    event: str = ""
    link: str = ""
    note: str = ""
    """Why this channel is told, where another one should have been."""

    def lines(self) -> list[tuple[str, str]]:
        """The columns that people know, with their names; those that are empty are left out."""
        span = f"{self.count}, {self.first} to {self.last}" if self.count > 1 else ""
        columns = (
            ("Timestamp", self.timestamp),
            ("Actor", self.actor),
            ("Action", self.action),
            ("Resource", self.resource),
            ("Location", self.location),
            ("Status", self.status),
            ("Severity", self.severity),
            ("Organization", self.organization),
            ("Reason", self.reason),
            ("Rule", self.rule),
            ("Events", span),
            ("Note", self.note),
        )
        return [(name, value) for name, value in columns if value]


def harmless(text: str, limit: int = TEXT_MAX) -> str:
    """A text as it may be shown anywhere: printable, and not longer than it may be."""
    text = text.encode("utf-8", "backslashreplace").decode()
    cut = text[:limit]
    shown = printable(cut)
    return shown[:limit] + "…" if len(text) > limit or len(shown) > limit else shown


def message_of(telling: Telling, links: Links) -> Message:
    """The message that a telling becomes."""
    cause, event = telling.cause, telling.cause.event
    actor = " · ".join(filter(None, [event.actor, event.label]))
    is_spread = is_many(cause)
    return made(
        id=f"{cause.id}.{telling.number}",
        cause=cause.id,
        kind=telling.kind,
        severity=event.severity,
        title=_title(event, cause.count, is_spread=is_spread),
        timestamp=utc(event.timestamp),
        count=cause.count,
        first=time_of(cause.first_ms),
        last=time_of(cause.last_ms),
        organization="" if is_anybodys(cause) else event.organization,
        actor=f"{actor} and others" if is_spread else actor,
        action=event.action,
        resource=event.resource,
        location=event.location,
        status=event.outcome,
        reason=event.reason,
        rule=event.rule,
        event=event.id,
        link=links.of(event, is_spread=is_spread),
    )


def made(*, title: str, kind: Kind, link: str = "", **fields: object) -> Message:
    """A message whose texts are harmless; the title says its kind."""
    clean = {name: harmless(value) if isinstance(value, str) else value for name, value in fields.items()}
    return Message(title=harmless(_LEADS[kind] + title), kind=kind, link=link, **clean)  # type: ignore[arg-type]


def with_note(message: Message, note: str) -> Message:
    """The same, saying why it comes here."""
    return Message(**{**asdict(message), "note": harmless(note)})


def _title(event: Event, count: int, *, is_spread: bool) -> str:
    what = event.rule or " ".join(filter(None, [event.action, {"failure": "failed"}.get(event.outcome, "")])) or "event"
    who = "many" if is_spread else event.actor or event.ip
    where = f" in {event.organization}" if event.organization else ""
    times = f" ({count} times)" if count > 1 else ""
    return f"{what}{f' by {who}' if who else ''}{where}{times}"


class Links:
    """Addresses of the page or of Kibana that show a cause's events.

    Args:
        page: the page's address, such as ``https://audit.example``; or
        kibana: Kibana's; or neither.
    """

    def __init__(self, page: str | None = None, kibana: str | None = None) -> None:
        self._page = page.rstrip("/") if page else None
        self._kibana = kibana.rstrip("/") if kibana else None

    def of(self, event: Event, *, is_spread: bool = False) -> str:
        """The link to an event's cause; empty where nothing is configured."""
        query = _query(event, is_spread=is_spread)
        if self._kibana:
            rison = query.replace("!", "!!").replace("'", "!'")
            state = quote(f"(query:(language:lucene,query:'{rison}'))", safe="():,'!")
            return f"{self._kibana}/app/discover#/?_g=(time:(from:now-24h,to:now))&_a={state}"
        return f"{self._page}/?q={quote(query, safe='')}" if self._page else ""


def _query(event: Event, *, is_spread: bool) -> str:
    """What finds a cause's events, in Lucene's syntax."""
    terms = [("organization.id", event.organization), ("event.action", event.action), ("event.outcome", event.outcome)]
    if not is_spread:
        terms.append(("user.id", event.actor_id))
    if event.dataset == ALERT:
        terms = [("event.kind", "alert"), ("organization.id", event.organization)]
    return " AND ".join(f"{name}:{_quoted(value)}" for name, value in terms if value and len(value) <= TEXT_MAX)


def _quoted(value: str) -> str:
    escaped = value.encode("utf-8", "replace").decode().replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def time_of(time_ms: int) -> str:
    """RFC 3339 in UTC, with seconds."""
    return (EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="seconds").replace("+00:00", "Z")


def utc(text: str) -> str:
    """A stored time in UTC; empty where it cannot be understood."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return ""
