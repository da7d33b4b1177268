"""Configuration: one TOML file and the environment, read once into frozen objects.

Order, the later wins: defaults, the file, environment variables (``PREFIX__SECTION__KEY``, lists as JSON). An unknown key
or a bad value raises :class:`~auditship.errors.ConfigurationError` that names the file, the key and what was expected.
Relative paths are relative to the file they stand in.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from auditship.errors import ConfigurationError

_base: ContextVar[Path] = ContextVar("_base")


def _from_base(path: Path) -> Path:
    return _base.get(Path()) / path.expanduser()


FilePath = Annotated[Path, AfterValidator(_from_base)]
"""A path in a configuration file; relative ones start at the file's own folder."""


def with_port(address: str) -> str:
    """An address whose port, if it has one, is a port.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(address if "//" in address else f"//{address}")
    if not parts.hostname or parts.port == 0:  # asking for a port that is none raises ValueError itself
        raise ValueError("a host, and a port from 1 to 65535, are expected")
    return address


HostPort = Annotated[
    str,
    StringConstraints(pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"),
    AfterValidator(with_port),
]
"""An address and a port, such as ``127.0.0.1:9465``."""


class Section(BaseModel):
    """A table of a configuration file."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class Settings(BaseSettings):
    """A whole configuration file. Subclasses set ``env_prefix`` to ``AUDITSHIP_AGENT__`` or ``AUDITSHIP_INDEXER__``."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, env_nested_delimiter="__", nested_model_default_partial_update=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment stands above the file, whose values come as ``init_settings``."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


AnySettings = TypeVar("AnySettings", bound=Settings)


def load(kind: type[AnySettings], path: Path | None) -> AnySettings:
    """The configuration of that kind from a file (none: defaults and environment only).

    Raises:
        ConfigurationError: naming the file, each wrong key and what was expected.
    """
    values: dict[str, Any] = {}
    where = "the environment" if path is None else str(path)
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}", "Name a readable file with --config.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: not TOML: {error}") from None
    _refuse_unknown_environment(kind)
    token = _base.set(path.absolute().parent if path else Path.cwd())
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(where, kind, each) for each in error.errors())) from None
    except ValueError as error:  # pydantic-settings: an environment variable that is not JSON where JSON is due
        raise ConfigurationError(f"{where}: {error}") from None
    finally:
        _base.reset(token)


def _refuse_unknown_environment(kind: type[Settings]) -> None:
    """A misspelt variable would otherwise be passed over in silence."""
    prefix = kind.model_config.get("env_prefix", "").upper()
    for name in os.environ:
        if prefix and name.upper().startswith(prefix):
            key = name[len(prefix) :].lower().split("__")[0]
            if key not in kind.model_fields:
                known = ", ".join(sorted(kind.model_fields))
                raise ConfigurationError(f"environment variable {name}: unknown key {key!r}", f"Known: {known}.")


_SECRETS = ("token", "key", "password", "secret")
"""Keys whose values may be secrets, also where they are wrong; so may be an address's path, and anything in a table."""


def _explain(where: str, kind: type[BaseModel], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}; known here: {', '.join(_known(kind, location[:-1])) or 'none'}"
    if error["type"] == "missing":
        return f"{where}: {key!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return f"{where}: {message}"
    is_secret = key.endswith(".url") or any(word in key for word in _SECRETS) or isinstance(error["input"], dict | list | tuple)
    shown = "" if is_secret else f", got {str(error['input'])[:80]!r}"
    return f"{where}: {key!r}: {message}{shown}"


def _known(kind: Any, location: list[str]) -> list[str]:
    """The keys that a section at that place may have."""
    for part in location:
        if part.isdigit():
            continue
        field = kind.model_fields.get(part)
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        kind = next((each for each in candidates if hasattr(each, "model_fields")), None)
        if kind is None:
            return []
    return sorted(kind.model_fields)


def read_secret(path: Path) -> str:
    """A secret that stands alone in a file, without the white space around it.

    Raises:
        ConfigurationError: it cannot be read, is no text, is empty, or is open to every user of the machine.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            if os.fstat(file.fileno()).st_mode & 0o007:
                raise ConfigurationError(f"{path}: readable by everybody", f"Close it: chmod o-rwx {path}")
            secret = file.read(16_384).strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "It should hold the secret, alone.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not text in UTF-8", "It should hold the secret, alone.") from None
    if not secret:
        raise ConfigurationError(f"{path}: empty", "It should hold the secret, alone.")
    return secret


def read_token(path: Path) -> str:
    """A secret that is sent as a part of a header.

    Raises:
        ConfigurationError: as :func:`read_secret`, or a header cannot hold it.
    """
    token = read_secret(path)
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError(
            f"{path}: not a token", "It should hold the token, alone: one line of letters, digits and signs."
        )
    return token


def is_loopback(url: str) -> bool:
    """Whether a URL or ``host:port`` names this machine only."""
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
