"""Through what an actor acted: "Chrome on macOS", "acme-cli on Linux"; "Automated" for tokens and services."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw, Struct
from msgspec.json import encode

from indexer.enrich.cache import Cache
from indexer.enrich.platform import Platforms
from indexer.enrich.user_agent import TEXT_MAX, UserAgent, parse

AUTOMATED: Final = "Automated"
UNKNOWN: Final = "Unknown"


class Label(Struct, frozen=True, gc=False):
    """What is shown of an actor's means: ``user_agent`` is the ECS object, ``platform`` the CI platform that it names."""

    text: str
    user_agent: Raw | None = None
    platform: str | None = None


_PERSON: Final = Label(UNKNOWN)
_MACHINE: Final = Label(AUTOMATED)


class Actors:
    """Labels actors. At most ``entries_max`` user agents are remembered."""

    def __init__(self, entries_max: int) -> None:
        self._platforms = Platforms()
        self._people: Cache[str, Label] = Cache(entries_max)
        self._machines: Cache[str, Label] = Cache(entries_max)

    def label(self, actor_type: str, user_agent: str | None) -> Label:
        """The label of an actor of a type (``user``, ``api_token``, ``service``) with that user agent."""
        is_person = actor_type == "user"
        if not user_agent:
            return _PERSON if is_person else _MACHINE
        cache = self._people if is_person else self._machines
        return cache.get(user_agent) or cache.find(user_agent) or cache.put(user_agent, self._make(is_person, user_agent))

    def _make(self, is_person: bool, text: str) -> Label:
        found = parse(text)
        label = _text(found) if is_person else AUTOMATED
        return Label(label, Raw(encode(_ecs(text, found))), self._platforms.of_user_agent(text))


def _text(found: UserAgent) -> str:
    """Browser and system as people say it."""
    browser, system = found.browser.family, found.os.family
    if browser == "Other":
        return UNKNOWN if system == "Other" else system
    return browser if system == "Other" else f"{browser} on {system}"


def _ecs(text: str, found: UserAgent) -> dict[str, Any]:
    """``user_agent.*``."""
    ecs: dict[str, Any] = {"original": text[:TEXT_MAX]}
    if found.browser.family != "Other":
        ecs["name"] = found.browser.family
        if found.browser.version_string:
            ecs["version"] = found.browser.version_string
    if found.os.family != "Other":
        ecs["os"] = {"name": found.os.family, "full": found.os.full}
        if found.os.version_string:
            ecs["os"]["version"] = found.os.version_string
    if found.device.family != "Other":
        ecs["device"] = {"name": found.device.family}
    return ecs
