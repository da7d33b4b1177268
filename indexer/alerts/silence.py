"""Who has not been heard of: agents that have fallen silent, told as one alert however many fell silent together.

An agent says every minute or so that it is there (dataset ``agent``); one that is not heard of for ``silent_after_s``, or for
three of its own intervals where those are longer, is silent, unless it has said that it stops. When all agents of an alert are
heard again, that is told too. Nobody is judged before everything that has arrived was read, nor within a while after we
ourselves could not read. A time later than now, of a clock that was ahead, counts as now.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import DecodeError, Struct
from msgspec.msgpack import decode, encode

from indexer.alerts.event import Event
from indexer.alerts.message import Message, made, time_of
from indexer.record import ORGANIZATION

INTERVALS: Final = 3
INTERVAL_S_MAX: Final = 600.0
NAMED_MAX: Final = 5
FORGOTTEN_S: Final = 7 * 86_400
AGENTS_MAX: Final = 100_000
_log = logging.getLogger("auditship.alerts")


class Agent(Struct):
    """What is known of an agent. ``cause`` is the alert that it is part of while it is silent."""

    host: str
    heard_ms: int
    interval_s: float
    is_stopped: bool = False
    cause: str = ""


class Silence:
    """The agents.

    Args:
        known: what was remembered, by agent.
        silent_after_s: how long an agent may say nothing.
    """

    def __init__(self, known: Mapping[str, bytes], *, silent_after_s: float) -> None:
        self._agents: dict[str, Agent] = {}
        for name, body in known.items():
            try:
                self._agents[name] = decode(body, type=Agent)
            except (DecodeError, UnicodeDecodeError) as error:
                _log.error("agent %s: what was known of it is damaged, it is known again when it is heard: %s", name, error)
        self._silent_after_s = silent_after_s
        self._changed: set[str] = set()

    def take(self, events: Iterable[Event], now_ms: int) -> list[Message]:
        """Hears agents; tells of alerts that are over by it."""
        over: set[str] = set()
        for event in events:
            agent = self._agents.get(event.actor_id)
            if agent is None:
                if len(self._agents) >= AGENTS_MAX:
                    continue
                agent = self._agents[event.actor_id] = Agent(event.host, 0, 0.0)
            heard_ms = min(event.ingested_ms, now_ms)  # an indexer's clock may be ahead
            if heard_ms < min(agent.heard_ms, now_ms):
                continue
            agent.heard_ms = heard_ms
            agent.host = event.host or agent.host
            agent.interval_s = min(event.interval_s or agent.interval_s, INTERVAL_S_MAX)
            agent.is_stopped = event.action == "agent.stop"
            self._changed.add(event.actor_id)
            if agent.cause and not self._is_silent(agent, now_ms):
                over.add(agent.cause)
                agent.cause = ""
        still = {agent.cause for agent in self._agents.values() if agent.cause}
        return [_recovery(cause, now_ms) for cause in sorted(over - still)]

    def judge(self, now_ms: int) -> list[Message]:
        """Tells of agents that have fallen silent; forgets those that have been so for a week."""
        for name, agent in list(self._agents.items()):
            if agent.heard_ms > now_ms:
                agent.heard_ms = now_ms
                self._changed.add(name)
            if now_ms - agent.heard_ms > FORGOTTEN_S * 1000:
                del self._agents[name]
                self._changed.add(name)
        silent = [name for name, each in self._agents.items() if not each.cause and self._is_silent(each, now_ms)]
        if not silent:
            return []
        silent.sort(key=lambda name: self._agents[name].heard_ms)
        groups = [silent] if len(silent) > NAMED_MAX else [[name] for name in silent]
        return [self._alert(group, now_ms) for group in groups]

    @staticmethod
    def packed(agents: Mapping[str, Agent]) -> dict[str, bytes | None]:
        """Agents as they are remembered."""
        return {name: encode(agent) for name, agent in agents.items()}

    def changed(self) -> dict[str, bytes | None]:
        """What is to be remembered since the last call; none for an agent that is forgotten."""
        found = {name: encode(self._agents[name]) if name in self._agents else None for name in self._changed}
        self._changed.clear()
        return found

    def _is_silent(self, agent: Agent, now_ms: int) -> bool:
        allowed_s = max(self._silent_after_s, INTERVALS * agent.interval_s)
        return not agent.is_stopped and now_ms - agent.heard_ms > allowed_s * 1000

    def _alert(self, names: Sequence[str], now_ms: int) -> Message:
        first = self._agents[names[0]]
        text = "\0".join(f"{name} {self._agents[name].heard_ms}" for name in names)
        cause = hashlib.blake2b(text.encode(), digest_size=16, person=b"auditship-quiet").hexdigest()
        for name in names:
            self._agents[name].cause = cause
            self._changed.add(name)
        shown = [f"{name} on {self._agents[name].host}" for name in names[:NAMED_MAX]]
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        what = f"agent {names[0]} on {first.host} is silent" if len(names) == 1 else f"{len(names)} agents are silent"
        return made(
            id=f"{cause}.1",
            cause=cause,
            kind="alert",
            severity="critical",
            title=what,
            timestamp=time_of(now_ms),
            count=len(names),
            first=time_of(first.heard_ms),
            last=time_of(self._agents[names[-1]].heard_ms),
            organization=ORGANIZATION,
            actor="auditship",
            action="agent.silent",
            resource=f"agents: {', '.join(shown)}{more}",
            status="failure",
            reason=f"not heard of since {time_of(first.heard_ms)}: what is logged on its host may not arrive",
        )


def _recovery(cause: str, now_ms: int) -> Message:
    return made(
        id=f"{cause}.2",
        cause=cause,
        kind="recovery",
        severity="critical",
        title="every agent of this alert has been heard again",
        timestamp=time_of(now_ms),
        organization=ORGANIZATION,
        actor="auditship",
        action="agent.silent",
        status="success",
    )
