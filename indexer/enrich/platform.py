"""CI platforms: one name for each, however a gateway or a runner spells it. The spellings are in ``platform.toml``."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from typing import Any, Final

NAME_MAX: Final = 100
"""Characters kept of a platform's name that nobody knows."""

_NOISE = re.compile(r"[\s_.-]+")


class Platforms:
    """The platforms that are known."""

    def __init__(self) -> None:
        table: list[dict[str, Any]] = tomllib.loads(files(__package__).joinpath("platform.toml").read_text(encoding="utf-8"))[
            "platform"
        ]
        self._given: dict[str, str] = {given: each["name"] for each in table for given in each["given"]}
        self._user_agents: list[tuple[str, str]] = [(part, each["name"]) for each in table for part in each["user_agent"]]

    def name(self, given: str | None) -> str | None:
        """The usual name of a platform; one that is not known is kept as it was given."""
        if not given or not (text := given[:NAME_MAX].strip()):
            return None
        return self._given.get(_NOISE.sub("", text).lower(), text)

    def of_user_agent(self, user_agent: str) -> str | None:
        """The platform whose runner sends this user agent."""
        text = user_agent[:NAME_MAX].lower()
        return next((name for part, name in self._user_agents if part in text), None)
