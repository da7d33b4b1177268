"""Slack, through an incoming webhook, whose address is the secret.

Whatever stands in a value is text: ``&``, ``<`` and ``>`` are escaped, so that ``<!channel>`` calls nobody and
``<http://…|…>`` is no link, and nothing is looked for in it (``parse`` is ``none``).
"""

from __future__ import annotations

from typing import Final

from msgspec.json import encode

from indexer.alerts.channel import Outcome
from indexer.alerts.channel.http import Http
from indexer.alerts.message import Message

_COLOURS: Final = {"critical": "#d0021b", "warning": "#f5a623", "info": "#9b9b9b"}
_OVER: Final = "#417505"


class Slack:
    """An incoming webhook."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def send(self, message: Message) -> Outcome:
        """Posts the message."""
        return self._http.post(encode(payload(message)), {"Content-Type": "application/json", "Auditship-Id": message.id})


def payload(message: Message) -> dict[str, object]:
    """The message in Slack's form."""
    fields = [
        {"title": name, "value": escaped(value), "short": name not in {"Reason", "Note", "Events"}}
        for name, value in message.lines()
    ]
    attachment: dict[str, object] = {
        "color": _OVER if message.kind == "recovery" else _COLOURS.get(message.severity, _COLOURS["info"]),
        "fallback": escaped(message.title),
        "fields": fields,
        "footer": "auditship",
        "mrkdwn_in": [],
    }
    if message.link:
        attachment |= {"title": "Show the events", "title_link": message.link}
    return {
        "text": escaped(message.title),
        "mrkdwn": False,
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "attachments": [attachment],
    }


def escaped(text: str) -> str:
    """A text in which Slack finds no control sequence."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
