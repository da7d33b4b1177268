"""Audit lines as gateways write them, made from a seed: for the demo, the tests and the measurements.

The same seed, calls and times give the same bytes. People and tokens appear as unevenly as in life, each in one organisation
and from one network; most things succeed, what is grave is rare, some lines carry fields that nobody has heard of. Addresses
are from the ranges that are reserved for documentation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Final, NamedTuple

import orjson

PEOPLE: Final = 400
TOKENS: Final = 60
_MOMENTS_MAX: Final = 1024

_FIRST = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Radia", "Ken", "Margaret", "Dennis", "Hedy", "José", "Zoë")
_LAST = (
    "Lovelace",
    "Hopper",
    "Turing",
    "Dijkstra",
    "Liskov",
    "Knuth",
    "Perlman",
    "Thompson",
    "Hamilton",
    "Núñez",
    "Øster",
    "Li",
)
_BROWSERS = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36 Edg/141.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 Version/26.0 Mobile/15E148 Safari/604.1",
)
_CLIENTS = ("acme-cli/2.4.1 (darwin; arm64)", "acme-cli/2.4.1 (linux; amd64)", "acme-cli/2.3.0 (windows; amd64)")
_TOOLS = ("python-requests/2.32.5", "Terraform/1.13.4 (+https://www.terraform.io) acme-provider/3.1.0", "curl/8.16.0")
_PIPELINES = (("github_actions", "GitHub-Actions-Runner/2.329.0"), ("gitlab_ci", "gitlab-runner 18.5.0 linux/amd64"))
_NETWORKS = ("203.0.113.{}", "198.51.100.{}", "192.0.2.{}", "2001:db8:{:x}::7", "10.4.0.{}")

# action, resource type, how often it happens, how often it fails
_ACTIONS: Final = (
    ("authentication.login", "organization", 120, 0.015),
    ("session.create", "organization", 90, 0.01),
    ("project.read", "project", 160, 0.005),
    ("project.update", "project", 90, 0.02),
    ("project.create", "project", 14, 0.02),
    ("project.delete", "project", 2, 0.05),
    ("application.deploy", "application", 110, 0.08),
    ("application.restart", "application", 40, 0.03),
    ("application.scale", "application", 30, 0.03),
    ("secret.read", "secret", 40, 0.02),
    ("secret.update", "secret", 8, 0.02),
    ("member.invite", "organization", 8, 0.02),
    ("member.remove", "organization", 3, 0.02),
    ("role.assign", "member", 6, 0.05),
    ("permission.update", "project", 5, 0.05),
    ("api_token.create", "api_token", 5, 0.02),
    ("api_token.revoke", "api_token", 4, 0.01),
)
_GRAVE: Final = (
    ("mfa.disable", "member", 3, 0.1),
    ("audit.settings.update", "organization", 1, 0.1),
)
_GRAVE_SHARE: Final = 4e-6
"""How many of all lines are of :data:`_GRAVE`."""
_REASONS = {"authentication.login": "wrong password"}


class _Who(NamedTuple):
    """A person or a token: what a line says of the actor, its organisation's number, and its address."""

    actor: dict[str, str]
    organization: int
    ip: str


class _Actor(NamedTuple):
    """What all lines of an actor have in common, as JSON."""

    organization_and_actor: bytes
    origin: bytes


class Sample:
    """Makes lines.

    Args:
        seed: what the lines follow from.
        numbered: whether each line carries a field ``n``, counting from 0, so that no two are the same.
    """

    def __init__(self, seed: int, *, numbered: bool = False) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._next = 0
        self._numbered = numbered
        self._moments: dict[int, bytes] = {}
        self._actions = _weighted(range(len(_ACTIONS)), [action[2] for action in _ACTIONS])
        self._grave = _weighted(range(len(_GRAVE)), [action[2] for action in _GRAVE])
        people, tokens = self._people(), self._tokens()
        self._actors = {
            "web": _zipf([self._actor(person, self._browser(person.ip)) for person in people]),
            "cli": _zipf([self._actor(person, self._client(person.ip)) for person in people[:80]]),
            "api": _zipf([self._actor(token, self._automation(token.ip)) for token in tokens]),
        }

    def lines(self, gateway: str, count: int, start_ms: int = 1_795_392_000_000, step_ms: int = 40) -> Iterator[bytes]:
        """That many lines of a gateway, evenly in time."""
        return (self.line(gateway, start_ms + at * step_ms) for at in range(count))

    def line(self, gateway: str, timestamp_ms: int) -> bytes:
        """One line with its newline: 500 to 600 bytes, sometimes more.

        Args:
            gateway: ``web``, ``cli`` or ``api``; other names write as ``api`` does.
            timestamp_ms: when it happened, epoch milliseconds.
        """
        chance = self._chance
        draw = chance.random()
        if draw < _GRAVE_SHARE:
            action, resource, _, failing = _GRAVE[self._grave[int(draw / _GRAVE_SHARE * len(self._grave))]]
        else:
            action, resource, _, failing = _ACTIONS[self._actions[int(draw * len(self._actions))]]
        pool = self._actors.get(gateway) or self._actors["api"]
        actor = pool[int(chance.random() * len(pool))]
        failed = chance.random() < failing
        number = int(chance.random() * 500)
        parts = [
            b'{"timestamp":"%s",%s' % (self._moment(timestamp_ms), actor.organization_and_actor),
            b',"action":"%s","resource":{"type":"%s","id":"%s-%d","name":"%s %d"}'
            % (action.encode(), resource.encode(), resource[:3].encode(), number, resource.title().encode(), number),
            b',"status":"failure","reason":"%s"' % _REASONS.get(action, "permission denied").encode()
            if failed
            else b',"status":"success"',
            b'%s,"request_id":"%032x"' % (actor.origin, chance.getrandbits(128)),
        ]
        if action.endswith("update") and not failed:
            parts.append(b',"changes":[{"field":"replicas","from":%d,"to":%d}]' % (number % 7, number % 5))
        if number % 10 == 0:
            parts.append(b',"trace":{"span":"%016x","sampled":true}' % chance.getrandbits(64))
        if self._numbered:
            parts.append(b',"n":%d' % self._next)
            self._next += 1
        parts.append(b"}\n")
        return b"".join(parts)

    def _moment(self, time_ms: int) -> bytes:
        second, millisecond = divmod(time_ms, 1000)
        text = self._moments.get(second)
        if text is None:
            if len(self._moments) >= _MOMENTS_MAX:
                self._moments.clear()
            text = self._moments[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        return b"%s.%03dZ" % (text, millisecond)

    def _people(self) -> list[_Who]:
        people = []
        for number in range(PEOPLE):
            first, last = self._chance.choice(_FIRST), self._chance.choice(_LAST)
            email = f"{first}.{last}{number}@example.com".lower()
            people.append(self._who({"type": "user", "id": f"u-{number:05}", "name": f"{first} {last}", "email": email}))
        return people

    def _tokens(self) -> list[_Who]:
        kinds = ("api_token", "api_token", "service")
        return [
            self._who({"type": kinds[number % 3], "id": f"tok-{number:04}", "name": f"deploy-{number}"})
            for number in range(TOKENS)
        ]

    @staticmethod
    def _who(actor: dict[str, str]) -> _Who:
        """The same organisation and address at every gateway and with every seed, or they would be in two places at once."""
        own = random.Random(actor["id"])  # noqa: S311 - repeatable on purpose
        return _Who(actor, min(int(own.paretovariate(0.9)), 40), _address(own))

    @staticmethod
    def _actor(who: _Who, origin: dict[str, Any]) -> _Actor:
        organization = {"id": f"org-{who.organization:04}", "name": f"Example {who.organization}"}
        return _Actor(orjson.dumps({"organization": organization, "actor": who.actor})[1:-1], b"," + orjson.dumps(origin)[1:-1])

    def _browser(self, ip: str) -> dict[str, Any]:
        session = f"s-{self._chance.getrandbits(64):016x}"
        return {"ip": ip, "user_agent": self._chance.choice(_BROWSERS), "session_id": session}

    def _client(self, ip: str) -> dict[str, Any]:
        return {"ip": ip, "user_agent": self._chance.choice(_CLIENTS)}

    def _automation(self, ip: str) -> dict[str, Any]:
        if self._chance.random() < 0.5:  # noqa: PLR2004
            return {"ip": ip, "user_agent": self._chance.choice(_TOOLS)}
        platform, agent = self._chance.choice(_PIPELINES)
        run = str(self._chance.getrandbits(33))
        url = f"https://ci.example.com/acme/shop/runs/{run}"
        ci = {"platform": platform, "run_id": run, "run_url": url, "repository": "acme/shop"}
        return {"ip": ip, "user_agent": agent, "ci": ci}


def _address(chance: random.Random) -> str:
    return chance.choice(_NETWORKS).format(chance.randrange(1, 255))


def _zipf(items: list[_Actor]) -> list[_Actor]:
    """The items, the first far more often than the last."""
    return [items[at] for at in _weighted(range(len(items)), [1000 // (at + 1) + 1 for at in range(len(items))])]


def _weighted(items: range, weights: list[int]) -> list[int]:
    """Each item as often as its weight says: drawing one is one look into the list."""
    ends = list(accumulate(weights))
    return [
        item for item, (start, end) in zip(items, zip([0, *ends], ends, strict=False), strict=True) for _ in range(end - start)
    ]
