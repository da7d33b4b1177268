"""Events on a terminal: the columns that people know, coloured by severity. What gateways wrote is never sent raw to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from rich.text import Text

from auditship.log import printable

COLUMNS: Final = ("Time", "Actor", "Action", "Resource", "Location", "Status", "Severity")
STYLES: Final = {"critical": "bold red", "warning": "yellow", "info": "dim"}
_STATUS: Final = {"success": "✓", "failure": "✗"}


def cells(document: dict[str, Any]) -> list[str]:
    """A document's text in each column."""
    audit, user, event = document.get("audit", {}), document.get("user", {}), document.get("event", {})
    resource = audit.get("resource", {})
    rejection = audit.get("rejection")
    return [
        local_time(document.get("@timestamp", "")),
        " · ".join(filter(None, [user.get("full_name") or user.get("name"), audit.get("actor", {}).get("label")])),
        event.get("action") or (f"rejected: {rejection.get('reason')}" if rejection else ""),
        ": ".join(filter(None, [resource.get("type"), resource.get("name") or resource.get("id")])),
        audit.get("location", ""),
        _STATUS.get(event.get("outcome", ""), ""),
        audit.get("severity", ""),
    ]


def styled(document: dict[str, Any]) -> list[Text]:
    """The same for a terminal."""
    style = STYLES.get(document.get("audit", {}).get("severity", ""), "")
    return [Text(printable(cell), style=style) for cell in cells(document)]


def local_time(text: str) -> str:
    """A stored time as the reader's clock shows it."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text
