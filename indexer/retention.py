"""Which segments are kept longer, or shorter, than their class says: where a legal hold is, or was.

A segment (a backing index, a day's file) that holds a document of an organisation under a legal hold is kept until the hold is
lifted, all of it: documents are never taken out one by one. One of the class :data:`~indexer.organizations.HOLD` in which
nobody is under a hold any more is kept as long as the longest of its organisations' policies says. Whose documents a segment
holds cannot always be read: while anybody is under a hold, such a one is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from indexer.organizations import HOLD, Policies
from indexer.store.contract import Segment


def days_of(retention: str) -> int:
    """The days of a retention class."""
    return int(retention[:-1])


def exceptions(segments: Iterable[Segment], policies: Policies) -> dict[str, int | None]:
    """Segments for which not their class but this many days hold; none: they are kept."""
    found: dict[str, int | None] = {}
    for segment in segments:
        if segment.organizations is None:
            if policies.has_holds:
                found[segment.name] = None
            continue
        each = [policies.policy(name) for name in segment.organizations]
        if any(policy.legal_hold for policy in each):
            found[segment.name] = None
        elif segment.retention == HOLD and each:
            found[segment.name] = max(days_of(policy.retention) for policy in each if policy.retention)
    return found
