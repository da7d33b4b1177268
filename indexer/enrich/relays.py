"""Networks whose addresses do not tell where a person is: ``relays.toml``, or a file of the operator's in the same form.

A malformed file raises :class:`~auditship.errors.ConfigurationError` that names the file, the entry and the key.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from auditship.settings import Section, Settings, load


class Relay(Section):
    """One of ``network``."""

    number: int = Field(ge=1, lt=1 << 32)
    name: str = Field(default="", max_length=200)
    kind: Literal["satellite", "vpn", "gateway"]


class _File(Settings):
    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_RELAYS__")

    network: tuple[Relay, ...] = Field(default=(), max_length=10_000)


def relay_networks(path: Path | None = None) -> frozenset[int]:
    """The numbers of those networks: the built-in ones, or those of a file."""
    if path is not None:
        return _numbers(load(_File, path))
    with as_file(files(__package__).joinpath("relays.toml")) as built_in:
        return _numbers(load(_File, built_in))


def _numbers(file: _File) -> frozenset[int]:
    return frozenset(each.number for each in file.network)
