"""PagerDuty, by its Events API v2. The cause is the ``dedup_key``: whatever is told of a cause belongs to one incident.

An end of a burst is not told: it would open a new incident after somebody has resolved the first. A recovery resolves it.
"""

from __future__ import annotations

from typing import Final

from msgspec.json import encode

from indexer.alerts.channel import Delivered, Outcome
from indexer.alerts.channel.http import Http
from indexer.alerts.message import Message

URL: Final = "https://events.pagerduty.com/v2/enqueue"
SUMMARY_MAX: Final = 1024


class PagerDuty:
    """A service's integration.

    Args:
        http: the API's address.
        routing_key: the integration's key.
    """

    def __init__(self, http: Http, routing_key: str) -> None:
        self._http = http
        self._routing_key = routing_key

    def send(self, message: Message) -> Outcome:
        """Triggers or resolves."""
        if message.kind == "end":
            return Delivered("ends are not told here")
        return self._http.post(encode(payload(message, self._routing_key)), {"Content-Type": "application/json"})


def payload(message: Message, routing_key: str) -> dict[str, object]:
    """The event."""
    event: dict[str, object] = {
        "routing_key": routing_key,
        "event_action": "resolve" if message.kind == "recovery" else "trigger",
        "dedup_key": message.cause,
    }
    if message.kind == "recovery":
        return event
    details = {name: value for name, value in message.lines() if name != "Severity"}
    event["payload"] = {
        "summary": message.title[:SUMMARY_MAX],
        "source": message.organization or "auditship",
        "severity": message.severity if message.severity in {"critical", "warning"} else "info",
        "timestamp": message.timestamp,
        "component": message.resource or "unknown",
        "class": message.rule or message.action or "audit",
        "custom_details": {**details, "message": message.id},
    }
    event["client"] = "auditship"
    if message.link:
        event |= {"client_url": message.link, "links": [{"href": message.link, "text": "Show the events"}]}
    return event
