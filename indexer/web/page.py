"""The page as HTML.

Everything that a gateway or a reader wrote is hostile here: it is escaped, and what is not printable, and could turn or hide
the text beside it, is shown as what it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import Any, Final
from urllib.parse import urlencode

from msgspec.json import format as indented

from auditship.log import printable
from indexer.store.body import document_of

_PAGE: Final = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
_SEVERITIES: Final = ("info", "warning", "critical")
_STATUS: Final = {"success": "✓", "failure": "✗"}


def page(text: str, severities: Sequence[str], bodies: Sequence[bytes], cursor: str | None, message: str = "") -> str:
    """What was asked and what was found: a table and, of a single event, the whole document.

    Args:
        text: the query as it was asked.
        severities: those that were asked for; none: all of them.
        bodies: documents, as JSON.
        cursor: where older events begin; none: there are none.
        message: what to say below the table.
    """
    documents = [document_of(each) for each in bodies]
    return _PAGE.substitute(
        query=html.escape(text),
        severities="".join(_choice(each, is_chosen=each in severities) for each in _SEVERITIES),
        rows="".join(map(_row, documents)),
        message=html.escape(message),
        older=f'<a rel="next" href="{_address(text, severities, cursor)}">Older events</a>' if cursor else "",
        document=f"<pre>{html.escape(_lines(indented(bodies[0]).decode()))}</pre>" if len(bodies) == 1 else "",
    )


def _choice(severity: str, *, is_chosen: bool) -> str:
    checked = " checked" if is_chosen else ""
    box = f'<input type="checkbox" name="severity" value="{severity}"{checked}>'
    return f'<label class="severity {severity}">{box}{severity}</label>'


def _address(text: str, severities: Iterable[str] = (), cursor: str | None = None) -> str:
    """The page's address for what is asked, as an attribute's value."""
    asked = [("q", text), *(("severity", each) for each in severities), *([("cursor", cursor)] if cursor else [])]
    return html.escape(f"?{urlencode(asked)}")


def _row(document: dict[str, Any]) -> str:
    """One event as a row of the table, in the columns that people know; its time leads to the whole of it."""
    audit, user, event = document.get("audit", {}), document.get("user", {}), document["event"]
    resource = audit.get("resource", {})
    severity, time = _text(audit.get("severity")), _text(document["@timestamp"])
    whole = _address(f'event.id:"{event.get("id", "")}"')
    cells = [
        f'<a href="{whole}"><time datetime="{time}">{time}</time></a>',
        _text(" · ".join(filter(None, [user.get("full_name") or user.get("name"), audit.get("actor", {}).get("label")]))),
        _text(event.get("action")),
        _text(": ".join(filter(None, [resource.get("type"), resource.get("name") or resource.get("id")]))),
        _text(audit.get("location")),
        f'<span title="{_text(event.get("outcome"))}">{_STATUS.get(event.get("outcome", ""), "")}</span>',
        f'<span class="severity {severity}" title="{_text(event.get("reason"))}">{severity}</span>',
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _text(value: str | None) -> str:
    """A document's value as text or attribute."""
    return html.escape(printable(value or ""))


def _lines(text: str) -> str:
    """Text of several lines, each of them printable."""
    return "\n".join(map(printable, text.split("\n")))
