"""What setting up changes: each change as it is told, and whether what is there says what ours says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

from auditship.errors import AuditshipError

DIFFERENCES_MAX: Final = 5
SHOWN_MAX: Final = 80


class SetupError(AuditshipError):
    """The cluster cannot be set up; what was done before stays, and another run goes on from there."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a resource, or would in a dry run."""

    kind: str
    name: str
    change: Literal["created", "updated", "rolled over", "replaced", "taken back", "unchanged"]
    detail: str = ""
    """For people: what differed."""


def differences(wanted: Any, present: Any, at: str = "") -> str:
    """What differs, as a person reads it: ``path: there -> ours``, the first few."""
    return "; ".join(islice(_differing(wanted, present, at), DIFFERENCES_MAX))


def _differing(wanted: Any, present: Any, at: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        for key in sorted({*wanted, *present} - _ADDED):
            if not same(wanted.get(key), present.get(key)):
                yield from _differing(wanted.get(key), present.get(key), f"{at}.{key}" if at else str(key))
    else:
        yield f"{at}: {_short(present)} -> {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def same(wanted: Any, present: Any) -> bool:
    """Whether the cluster's copy says what ours says: it writes settings as text, and adds what is empty or a default."""
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        more = (value for key, value in present.items() if key not in wanted and key not in _ADDED)
        return not any(more) and all(same(value, present.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(present, list):
        return len(wanted) == len(present) and all(map(same, wanted, present))
    return bool(_plain(wanted) == _plain(present))


_ADDED: Final = frozenset(
    {
        "transient_metadata",
        "created_date_millis",
        "modified_date_millis",
        "created_date",
        "modified_date",
        "allow_custom_routing",
    }
)
"""What the cluster says of a resource besides what was put."""


def _plain(value: Any) -> Any:
    if value is None or value in ({}, []):
        return ""
    return str(value).lower() if isinstance(value, bool | int | float) else value
