"""What rules remember of a document: its time and the few values that they count, compare and tell, each cut to a length."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from auditship.clock import EPOCH
from indexer.store.contract import Hit
from indexer.store.fields import getter

VALUE_MAX: Final = 256
ORGANIZATIONS_MAX: Final = 20
NETWORK: Final = "auditship.network"
"""A field of no document: the network of ``source.ip``, its AS number where that is known, else its /24 or /48."""
WORDS: Final = frozenset({"count", "span", "actor", "earlier"})
"""What a reason may name beside fields; ``earlier`` is the actor of the first event in a row."""
SUBJECT: Final = (
    "organization.id", "organization.name", "user.id", "user.name", "user.full_name", "user.email", "source.ip",
    "source.as.number", "event.action", "audit.gateway", "audit.location", "audit.actor.type", "audit.actor.label",
    "audit.resource.type", "audit.resource.id", "audit.resource.name",
)  # fmt: skip
"""What alerts tell, whatever the rule."""
_FIELD = re.compile(r"\{([a-z_][a-z0-9_.]*)\}")


class Event(NamedTuple):
    """An event as rules see it. ``time_ms`` is its time, or that of its arrival where it claims to be from the future.

    A rule's hit that other rules count is the last of its events, with all of them as its ``parts``.
    """

    time_ms: int
    id: str
    facts: Mapping[str, str]
    parts: Sequence[Event] = ()


def event_of(hit: Hit, document: Any, fields: Sequence[str]) -> Event:
    """The event in a document, with the fields that rules need."""
    facts = {}
    for name in fields:
        found = getter(name)(document)
        if found and found[0] != "":
            facts[name] = _text(found[0])
    if address := facts.get("source.ip"):
        facts[NETWORK] = network_of(address, facts.get("source.as.number"))
    arrived = next(iter(getter("event.ingested")(document)), None)
    return Event(min(hit.time_ms, _instant(arrived, hit.time_ms)), hit.id, facts)


def common(events: Sequence[Event]) -> dict[str, str]:
    """What all events, and all that they consist of, agree in, of :data:`SUBJECT`."""
    first, *others = (event.facts for event in _single(events))
    return {name: first[name] for name in SUBJECT if name in first and all(each.get(name) == first[name] for each in others)}


def organizations(events: Sequence[Event]) -> tuple[str, ...]:
    """Those of the events, the latest first; none, where they are all of the same."""
    found = distinct(each.facts.get("organization.id") for each in reversed([*_single(events)]))
    return found[:ORGANIZATIONS_MAX] if len(found) > 1 else ()


def _single(events: Sequence[Event]) -> Iterator[Event]:
    for event in events:
        if event.parts:
            yield from _single(event.parts)
        else:
            yield event


def distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    """Each value once, and nothing that is none."""
    return tuple(dict.fromkeys(filter(None, values)))


def fields_in(template: str) -> list[str]:
    """The names in a template."""
    return _FIELD.findall(template)


def told(template: str, facts: Mapping[str, str]) -> str:
    """A template's sentence; what is not known is called so."""
    return _FIELD.sub(lambda found: facts.get(found[1]) or "unknown", template)


def actor_of(facts: Mapping[str, str]) -> str:
    """Who did it, as people say it."""
    names = (facts.get(each) for each in ("user.email", "user.full_name", "user.name", "user.id"))
    return next(filter(None, names), "unknown")


def span_text(span_ms: int) -> str:
    """A length of time: ``1 h``, ``10 min``."""
    for unit_ms, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if span_ms % unit_ms == 0 and span_ms >= unit_ms:
            return f"{span_ms // unit_ms} {name}"
    return f"{span_ms // 1000} s"


def is_numbered(network: str) -> bool:
    """Whether a network is known by its AS number."""
    return network.startswith("AS")


@lru_cache(maxsize=20_000)
def network_of(address: str, system: str | None) -> str:
    """The network that an address is in."""
    if system:
        return f"AS{system}"
    try:
        version = ipaddress.ip_address(address).version
        return str(ipaddress.ip_network(f"{address}/{24 if version == 4 else 48}", strict=False))  # noqa: PLR2004
    except ValueError:
        return address


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:VALUE_MAX]


def _instant(text: Any, otherwise: int) -> int:
    try:
        return (datetime.fromisoformat(str(text)) - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError):
        return otherwise
