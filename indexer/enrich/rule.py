"""The form of a rule of severity, and of a kind in ECS's words; what is malformed says what helps."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from auditship.settings import Section

EXPECTED: Final = {
    "api": "access admin allowed change creation deletion denied end info start user",
    "authentication": "start end info",
    "configuration": "access change creation deletion info",
    "database": "access change info error",
    "email": "info",
    "file": "access change creation deletion info",
    "host": "access change end info start",
    "iam": "admin change creation deletion group info user",
    "intrusion_detection": "allowed denied info",
    "malware": "info",
    "network": "access allowed connection denied end info protocol start",
    "package": "access change deletion info installation start",
    "process": "access change end info start",
    "registry": "access change creation deletion",
    "session": "start end info",
    "threat": "indicator",
    "vulnerability": "info",
    "web": "access error info",
}
"""ECS's categories, and the types that go with each."""


class When(Section):
    """Which events a rule is for."""

    action: tuple[str, ...] = Field(min_length=1)
    status: Literal["success", "failure"] | None = None
    resource: tuple[str, ...] = ()

    @field_validator("action", "resource")
    @classmethod
    def _can_match(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not glob.strip() for glob in value):
            raise ValueError('a glob that is blank matches nothing; "*" matches everything')
        return value


class Rule(When):
    """One ``[[rule]]``, or an organisation's ``[[organization.severity]]``."""

    role: tuple[str, ...] = ()
    target: Literal["self"] | None = None
    severity: Literal["info", "warning", "critical"]
    reason: str | None = Field(default=None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _has_reason(self) -> Rule:
        if self.severity != "info" and not self.reason:
            raise ValueError(f'{self.severity} without a reason; say why in a few words: reason = "…"')
        if self.target and not self.role:
            raise ValueError('target goes with role: name the roles, or role = ["*"] for any')
        return self


class Kind(When):
    """One ``[[kind]]``: ``event.category`` and ``event.type``."""

    category: tuple[str, ...] = Field(min_length=1)
    type: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_ecs(self) -> Kind:
        for category in self.category:
            if category not in EXPECTED:
                raise ValueError(f"{category!r} is not a category of ECS; those are {', '.join(EXPECTED)}")
        known = {each for category in self.category for each in EXPECTED[category].split()}
        if wrong := sorted(set(self.type) - known):
            raise ValueError(f"type {wrong[0]!r} does not go with {', '.join(self.category)}: {', '.join(sorted(known))} do")
        return self


def name(text: str) -> str:
    """As rules spell it: lower case, ``.`` between parts, ``_`` between words."""
    return words(re.sub(r"[:/]+", ".", text))


def words(text: str) -> str:
    """The same, but for its parts: a role such as ``project:read`` is one."""
    return re.sub(r"[\s-]+", "_", text.strip().lower())
