"""What is hidden of an organisation's lines, before anything is stored: the policy, the key, and whose mask is whose.

``[organization.privacy]`` in ``organizations.toml`` says what; :mod:`indexer.enrich.mask` does it. Pseudonyms are keyed:
HMAC-SHA-256 under a key of the organisation's own, which is made from the one in ``pseudonym_key_file``; so the same person has
the same pseudonym in all lines of an organisation, another in every other, and nobody without the key can try names out.

A line whose organisation cannot be told (it is not JSON, or cut off) is withheld where the policy of ``*`` or of one of the
organisations that its sender may speak of hides anything; everything else of it is kept. Whatever goes wrong while a line is
masked, the line is withheld: nothing that should be hidden is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from base64 import b32encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import DecodeError, structs
from msgspec.json import decode as decode_json
from pydantic import ValidationInfo, field_validator

from auditship.errors import ConfigurationError
from auditship.line import LineError, decode, without_halves
from auditship.settings import Section, read_secret
from indexer.decode import Decoded
from indexer.enrich.cache import KEY_USUAL, Cache
from indexer.enrich.mask import Mask
from indexer.enrich.names import Names

KEY_MIN: Final = 32
"""Characters that a key has at least."""
MAKE_KEY: Final = "Make one: (umask 077; openssl rand -hex 32 > FILE), and name it: pseudonym_key_file at the top of the file."
ORGANIZATIONS_MAX: Final = 100_000
PSEUDONYMS_MAX: Final = 50_000
WITHHELD: Final = b"[withheld]"
SECRETS: Final = (
    "*password*", "*passwd*", "*passphrase*", "pwd", "*_pwd", "*secret*", "*token", "*tokens", "*token_value", "*api_key*",
    "*apikey*", "*private_key*", "*access_key*", "*signing_key*", "*encryption_key*", "*client_key*", "key", "*credential*",
    "authorization", "*_authorization", "cookie", "*_cookie", "*_cookies", "otp", "*_otp", "pin", "*_pin", "*recovery_code*",
    "*connection_string*",
)  # fmt: skip
"""Names under which secrets stand."""

_NEEDED: Final = frozenset({"organization.id", "timestamp", "action", "status", "resource.type", "actor.type"})
_TOLD: Final = re.compile(rb'"organization"\s*:\s*\{[^{}]{0,2000}?"id"\s*:\s*"((?:[^"\\]|\\.){1,256})"')
_log = logging.getLogger("auditship.indexer")


class Privacy(Section):
    """``[organization.privacy]``: what is hidden. Globs are compared with a field's name in snake_case, or its dotted path."""

    mask: tuple[str, ...] = ()
    """Fields whose values are replaced by ``[masked]``, beside :data:`SECRETS`."""
    secrets: bool = True
    """Whether what stands under one of :data:`SECRETS` is masked, and what a text gives away as such: ``token=…``."""
    pseudonyms: tuple[str, ...] = ()
    """Fields whose values are replaced by pseudonyms: ``actor.id``, ``actor.name`` …"""
    emails: Literal["keep", "mask", "pseudonym"] = "keep"
    """E-mail addresses, in whatever field."""
    ip: Literal["keep", "truncate", "drop"] = "keep"
    """IP addresses, in whatever field: "truncate" keeps the network, /24 or /48."""
    hash: Literal["sha-256", "hmac-sha-256"] = "sha-256"
    """What ``event.hash`` is, over the line as it was; with "hmac-sha-256" the document's id is keyed, too."""

    @field_validator("mask", "pseudonyms")
    @classmethod
    def _can_be_hidden(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for glob in value:
            if not glob.strip() or glob == "*" or glob in _NEEDED:
                raise ValueError(f'{glob!r} cannot be hidden; name fields such as "actor.name" or "*card_number*"')
            if glob == "ip":
                raise ValueError('for addresses say ip = "truncate" or ip = "drop"')
            if glob == "actor.id" and info.field_name == "mask":
                raise ValueError('"actor.id" tells who it was; name it among pseudonyms')
        return value

    @property
    def needs_key(self) -> bool:
        """Whether it cannot be kept without a key."""
        return bool(self.pseudonyms) or self.emails == "pseudonym" or self.hash == "hmac-sha-256"


def read_key(file: Path) -> bytes:
    """The key that pseudonyms are made with.

    Raises:
        ConfigurationError: it cannot be read, is too short, or open to everybody.
    """
    secret = read_secret(file)
    if len(secret) < KEY_MIN:
        raise ConfigurationError(f"{file}: a key of {len(secret)} characters is too short, {KEY_MIN} are the least", MAKE_KEY)
    return secret.encode()


class Keyed:
    """One organisation's key: what pseudonyms and keyed hashes are made with."""

    def __init__(self, master: bytes, organization: str, cache: Cache[tuple[str, ...], str] | None = None) -> None:
        self._organization = organization.lower()
        self._cache: Cache[tuple[str, ...], str] = Cache(1) if cache is None else cache
        self._key = hmac.digest(master, b"auditship pseudonyms 1\0" + organization.lower().encode(), "sha256")

    def pseudonym(self, text: str) -> str:
        """``p-`` and 26 letters and digits; upper and lower case of a text make no difference, as in the stores."""
        key = self._organization, text
        return self._cache.get(key) or self._cache.find(key) or self._cache.put(key, self._make(text))

    def _make(self, text: str) -> str:
        digest = hmac.digest(self._key, b"value\0" + text.casefold().encode("utf-8", "surrogatepass"), "sha256")
        return "p-" + b32encode(digest[:16]).decode().rstrip("=").lower()

    def hash(self, data: bytes) -> bytes:
        """A keyed hash of a line."""
        return hmac.digest(self._key, b"line\0" + data, "sha256")


class Masks:
    """Hides what organisations want hidden.

    Args:
        privacy: an organisation's policy by its id.
        key: what pseudonyms are made with; may be empty where nobody has any.
    """

    def __init__(self, privacy: Callable[[str], Privacy | None], key: bytes) -> None:
        self._privacy = privacy
        self._key = key
        self._names: dict[Privacy, Names] = {}
        self._pseudonyms: Cache[tuple[str, ...], str] = Cache(PSEUDONYMS_MAX)
        self._hidings: dict[str, Hiding | None] = {}

    def __call__(self, decoded: Decoded, senders: frozenset[str] = frozenset()) -> Decoded:
        """The line with nothing left of what its organisation hides; the very same where it hides nothing.

        Args:
            decoded: a line, be it an event or not.
            senders: the organisations that whoever sent it may speak of; none: all.
        """
        line = decoded.line
        try:
            hiding = self._hidings[line.organization.id]  # type: ignore[union-attr]
        except (KeyError, AttributeError):
            name = line.organization.id if line is not None else _told(decoded.text)
            if name is None:
                return self._of_nobody_knows_whom(decoded, senders)
            hiding = self.hiding(name)
        return decoded if hiding is None else hiding.apply(decoded)

    def hiding(self, organization: str) -> Hiding | None:
        """What is hidden of an organisation; none: nothing."""
        if organization in self._hidings:
            return self._hidings[organization]
        privacy = self._privacy(organization)
        found = None
        if privacy is not None:
            names = self._names.get(privacy)
            if names is None:
                names = self._names[privacy] = Names(privacy.mask, privacy.pseudonyms, SECRETS if privacy.secrets else ())
            found = Hiding(privacy, names, Keyed(self._key, organization, self._pseudonyms) if self._key else None)
        if len(self._hidings) >= ORGANIZATIONS_MAX:
            self._hidings.clear()
        if len(organization) <= KEY_USUAL:
            self._hidings[organization] = found
        return found

    def _of_nobody_knows_whom(self, decoded: Decoded, senders: frozenset[str]) -> Decoded:
        hidings = [hiding for name in sorted(senders or ("",)) if (hiding := self.hiding(name))]
        return hidings[0].withhold(decoded) if hidings else decoded


class Hiding:
    """What one organisation hides."""

    def __init__(self, privacy: Privacy, names: Names, keyed: Keyed | None) -> None:
        self._keyed = keyed
        self._is_hash_keyed = privacy.hash == "hmac-sha-256"
        pseudonym = keyed.pseudonym if keyed else None
        self._mask = Mask(names, pseudonym, emails=privacy.emails, ip=privacy.ip, secrets_in_text=privacy.secrets)

    def apply(self, decoded: Decoded) -> Decoded:
        """The line with its values hidden. One that is no event stays none, and one that cannot be masked is withheld."""
        try:
            text = self._mask.text(decoded.text)
            if text is decoded.text and not self._is_hash_keyed and decoded.line is not None:
                return decoded
            line, extra = decode(text)
        except LineError as error:
            return self._hidden(decoded, text, error)
        except (DecodeError, UnicodeDecodeError):
            return self.withhold(decoded)
        except Exception as error:  # noqa: BLE001 - whatever it is, what should be hidden is not stored
            _log.error("a line at offset %d cannot be masked and is withheld: %s", decoded.offset, type(error).__name__)
            return self.withhold(decoded)
        if decoded.line is None:
            return self._hidden(decoded, text, _harmless(decoded))
        hidden = self._hidden(decoded, text, None)
        return structs.replace(hidden, line=line, extra=extra, plain=(decoded.line, decoded.extra))

    def withhold(self, decoded: Decoded) -> Decoded:
        """The place of a line in the record, without what it says."""
        return self._hidden(decoded, WITHHELD, _harmless(decoded))

    def _hidden(self, decoded: Decoded, text: bytes, error: LineError | None) -> Decoded:
        raw, keyed = decoded.raw, self._keyed if self._is_hash_keyed else None
        digest = keyed.hash(decoded.text) if keyed else hashlib.sha256(decoded.text).digest()
        return Decoded(
            offset=decoded.offset,
            raw=keyed.hash(raw) if keyed else raw,
            text=text,
            line=None,
            extra=b"",
            error=error,
            tags=decoded.tags if text is decoded.text else (*decoded.tags, "withheld" if text is WITHHELD else "masked"),
            hash=digest.hex(),
        )


def _harmless(decoded: Decoded) -> LineError:
    """Why a line is no event, without what an error may quote of it."""
    if decoded.error is None:
        return LineError("cannot be masked")
    is_harmless = decoded.error.reason.startswith(("not JSON: ", "not UTF-8", "blank", "longer than", "nested too deeply"))
    return LineError(decoded.error.reason if is_harmless else "not an event", decoded.error.pointer)


def _told(text: bytes) -> str | None:
    """The organisation that a line which is no event speaks of, as far as it can be told."""
    try:
        value: Any = decode_json(without_halves(text))
        value = value["organization"]
        value = value["id"] if isinstance(value, dict) else value
    except (DecodeError, UnicodeDecodeError, RecursionError):
        match = _TOLD.search(text)
        value = match[1].decode("utf-8", "replace") if match else None
    except (KeyError, TypeError, IndexError):
        return None
    return value if isinstance(value, str) and value else None
