"""CI platforms: one name for each, however a gateway or a runner spells it. The spellings are in ``platform.toml``.

What the event says of its pipeline counts first (its platform, else the address of the run), then the user agent. A platform
that nobody knows keeps the name that it was given.
"""

from __future__ import annotations

import re
import tomllib
from fnmatch import translate
from importlib.resources import files
from typing import Any, Final

from auditship.line import Ci
from indexer.enrich.cache import Cache

NAME_MAX: Final = 100
"""Characters kept of a platform's name that nobody knows."""
TEXT_MAX: Final = 512
"""Characters that are looked at of a user agent or an address."""
NAMES_MAX: Final = 1000

_NOISE = re.compile(r"[\s_.-]+")


class Platforms:
    """The platforms that are known."""

    def __init__(self) -> None:
        text = files(__package__).joinpath("platform.toml").read_text(encoding="utf-8")
        table: list[dict[str, Any]] = tomllib.loads(text)["platform"]
        self._given: dict[str, str] = {given: each["name"] for each in table for given in each["given"]}
        self._user_agents = [(_beginnings(each["user_agent"]), str(each["name"])) for each in table]
        self._urls = [(_globs(each["run_url"]), str(each["name"])) for each in table if "run_url" in each]
        self._names: Cache[str, str] = Cache(NAMES_MAX)

    def of(self, pipeline: Ci) -> str | None:
        """The platform of a pipeline, as far as the event says."""
        if pipeline.platform and (name := self.name(pipeline.platform)):
            return name
        return self.of_url(pipeline.run_url) if pipeline.run_url else None

    def name(self, given: str | None) -> str | None:
        """The usual name of a platform; one that is not known is kept as it was given."""
        if not given:
            return None
        given = given[:NAME_MAX]
        return self._names.get(given) or self._names.find(given) or self._names.put(given, self._name(given.strip())) or None

    def _name(self, text: str) -> str:
        return self._given.get(_NOISE.sub("", text).lower(), text)

    def of_url(self, url: str) -> str | None:
        """The platform at whose address a run is."""
        text = url[:TEXT_MAX].lower()
        return next((name for pattern, name in self._urls if pattern.match(text)), None)

    def of_user_agent(self, user_agent: str) -> str | None:
        """The platform whose runner sends this user agent."""
        text = user_agent[:TEXT_MAX].lower()
        return next((name for pattern, name in self._user_agents if pattern.search(text)), None)


def _beginnings(words: list[str]) -> re.Pattern[str]:
    return re.compile("(?<![a-z0-9])(?:" + "|".join(map(re.escape, words)) + ")")


def _globs(patterns: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns))
