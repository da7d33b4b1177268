"""Conditions on an event that Sigma cannot say; under ``where`` and ``unless``.

==============================  ==================================================================================
``same: [FIELD, FIELD]``        the fields have the same value
``outside_verified_domains``    one of the fields (a list) holds an e-mail address of a domain that the organisation
                                has not verified; never, where it has verified none
``network_unknown_to_creator``  (in a row of events) the actor of the first never succeeded from the last one's network
==============================  ==================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from indexer.detect.event import NETWORK, Event
from indexer.detect.translate import Untranslatable, check_field
from indexer.store.contract import Person

_EMAIL = re.compile(r"[^\s@<>]+@([A-Za-z0-9.-]+\.[A-Za-z0-9-]+)>?$")
KINDS: Final = ("same", "outside_verified_domains", "network_unknown_to_creator")


@dataclass(frozen=True, slots=True)
class World:
    """What checks may ask beside the event itself."""

    verified_domains: Callable[[str], Collection[str]]
    """The domains of an organisation, in lower case."""
    is_known: Callable[[Person, str, int], bool]
    """Whether an actor succeeded from a network before a time."""


@dataclass(frozen=True, slots=True)
class Check:
    """A condition; ``fields`` are those it looks at."""

    kind: str
    fields: tuple[str, ...] = ()

    @property
    def needs_first(self) -> bool:
        """Whether it compares with an earlier event."""
        return self.kind == "network_unknown_to_creator"

    def holds(self, world: World, event: Event, first: Event | None) -> bool:
        """Whether the condition holds of an event, in a row that began with another."""
        facts = event.facts
        if self.kind == "same":
            found = [facts.get(name, "").lower() for name in self.fields]
            return found[0] != "" and len(set(found)) == 1
        if self.kind == "outside_verified_domains":
            return self._outside(world, facts)
        network = facts.get(NETWORK)
        if first is None or network is None:
            return False
        if network == first.facts.get(NETWORK):
            return False
        creator = first.facts.get("organization.id", ""), first.facts.get("user.id", "")
        return not world.is_known(creator, network, event.time_ms)

    def _outside(self, world: World, facts: Mapping[str, str]) -> bool:
        domains = [found[1].lower() for name in self.fields if (found := _EMAIL.search(facts.get(name, "")))]
        if not domains:
            return False
        verified = world.verified_domains(facts.get("organization.id", ""))
        return bool(verified) and any(domain not in verified for domain in domains)


def read_checks(value: Any) -> tuple[Check, ...]:
    """The conditions of a ``where`` or ``unless``: a mapping.

    Raises:
        Untranslatable: saying what is expected.
    """
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise Untranslatable("where and unless are mappings", "Write where: {same: [user.id, audit.resource.id]}.")
    return tuple(_check(kind, each) for kind, each in value.items())


def _check(kind: str, value: Any) -> Check:
    if kind == "network_unknown_to_creator" and value is True:
        return Check(kind)
    if kind not in KINDS or not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Untranslatable(
            f"the condition {kind!r:.40} is not known", f"Known are {', '.join(KINDS)}; see docs/detections.md."
        )
    if not value or (kind == "same" and len(value) < 2):  # noqa: PLR2004 - two can be the same
        raise Untranslatable(f"{kind}: too few fields")
    for name in value:
        check_field(name)
    return Check(kind, tuple(value))
