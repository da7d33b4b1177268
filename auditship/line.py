r"""The line: one JSON object per action of a person or a token, as gateways write it.

:func:`decode` turns a line into a :class:`Line` and its extra fields, or raises :class:`LineError`, which carries the
reason in words and the JSON pointer of the offending field. It never raises anything else, whatever the bytes. Half of a
surrogate pair, such as ``"\ud83d"``, which gateways write of an emoji that was cut in two, is no text: U+FFFD is read for it.
``line.schema.json`` beside this file says the same as a JSON Schema (draft 2020-12),
for gateways in any language; the tests hold the two against each other.

Needs msgspec, which comes with ``auditship[indexer]``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError, defstruct
from msgspec import field as named
from msgspec.json import Decoder, encode
from msgspec.structs import fields

from auditship.clock import EPOCH, EPOCH_MS_MAX, EPOCH_MS_MIN

Timestamp = Annotated[datetime, Meta(tz=True)] | Annotated[int, Meta(ge=EPOCH_MS_MIN, le=EPOCH_MS_MAX)]
Name = Annotated[str, Meta(min_length=1)]


class Organization(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """Whose record it is."""

    id: Name
    name: str | None = None


class Actor(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Who did it."""

    type: Literal["user", "api_token", "service"]
    id: Name
    name: str | None = None
    email: str | None = None


class Resource(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """What was touched."""

    type: Name
    id: str | None = None
    name: str | None = None


class Ci(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """The pipeline a token was used from."""

    platform: str | None = None
    run_id: str | None = None
    run_url: str | None = None
    repository: str | None = None


class Change(Struct, frozen=True, gc=False, omit_defaults=True):
    """One field's change; ``from`` and ``to`` are any JSON."""

    field: Name
    from_: Raw = named(name="from", default=Raw(b""))
    to: Raw = Raw(b"")


class Line(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A valid event, its known fields."""

    timestamp: Timestamp
    organization: Organization
    actor: Actor
    action: Name
    resource: Resource
    status: Literal["success", "failure"]
    ip: str | None = None
    user_agent: str | None = None
    ci: Ci | None = None
    reason: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    changes: list[Change] | None = None


class _Lenient(Line, frozen=True, gc=False, forbid_unknown_fields=False):
    """The same, with other fields beside its own, which are passed over."""


class LineError(ValueError):
    """Why a line is not an event: the reason in words, and the JSON pointer of the field ("" is the whole line)."""

    def __init__(self, reason: str, pointer: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer


_known = Decoder(Line)
_lenient = Decoder(_Lenient)
_object = Decoder(dict[str, Raw])
_LINE_KEYS: Final = frozenset(field.encode_name for field in fields(Line))
_PART_KEYS: Final = {
    part: frozenset(field.encode_name for field in fields(kind))
    for part, kind in (("organization", Organization), ("actor", Actor), ("resource", Resource), ("ci", Ci))
}
_UNKNOWN: Final = "Object contains unknown field"


def decode(raw: bytes) -> tuple[Line, bytes]:
    """The event in a line, and its extra fields as an encoded JSON object, by their names (empty where there are none).

    Extra fields of ``organization``, ``actor``, ``resource`` and ``ci`` come as ``{"actor.role": ...}``, behind the others.

    Args:
        raw: the line without its newline; valid UTF-8 (the caller checks whole blocks at once).

    Raises:
        LineError: the line is not an event.
    """
    if found := _familiar.decode(raw):
        return found
    try:
        return _known.decode(raw), b""
    except ValidationError as error:
        if not str(error).startswith(_UNKNOWN):
            raise _line_error(error) from None
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        return _decode_without_halves(raw, error)
    return _decode_with_extra(raw)


def decode_all(raws: Sequence[bytes]) -> tuple[Sequence[Line], Sequence[bytes]]:
    """What :func:`decode` makes of each line, for less: the lines, and their extra fields.

    Raises:
        LineError: there is one among them that is no event.
    """
    if found := _familiar.decode_all(raws):
        return found
    lines, extras = zip(*[decode(raw) for raw in raws], strict=True)  # CPython 3.11 leaks the call if ``*`` itself raises
    return lines, extras


def without_halves(raw: bytes) -> bytes:
    """JSON in which U+FFFD stands for each half of a surrogate pair."""
    return _SURROGATES.sub(lambda found: rb"\ufffd" if found["half"] else found[0], raw) if b"\\u" in raw else raw


def in_utc(timestamp: datetime | int) -> datetime:
    """When a line says it was, in UTC.

    Raises:
        LineError: there is no such year.
    """
    try:
        if isinstance(timestamp, int):
            return EPOCH + timedelta(milliseconds=timestamp)
        return timestamp.astimezone(UTC)
    except OverflowError:
        raise LineError("before the year 1 or after the year 9999 in UTC", "/timestamp") from None


def _decode_with_extra(raw: bytes) -> tuple[Line, bytes]:
    """The slower path: decodes what is known, and again what is not."""
    try:
        found = _object.decode(raw)
        extra = {name: found[name] for name in sorted(found.keys() - _LINE_KEYS)}
        _familiar.meet(extra)
        with suppress(ValidationError):  # most often the parts have nothing of their own
            return _lenient.decode(raw), encode(extra)
        has_known_parts = True
        for part, keys in _PART_KEYS.items():
            value = found.get(part)
            if value is not None and bytes(value).startswith(b"{"):
                inner = _object.decode(value)
                unknown = inner.keys() - keys
                if unknown:
                    has_known_parts = False
                    extra |= {f"{part}.{name}": inner.pop(name) for name in sorted(unknown)}
                    found[part] = Raw(encode(inner))
        if not has_known_parts:
            raw = encode({name: value for name, value in found.items() if name in _LINE_KEYS})
        return _lenient.decode(raw), encode(extra)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
        return _decode_without_halves(raw, error)


def _decode_without_halves(raw: bytes, error: Exception) -> tuple[Line, bytes]:
    """What a line says that the decoder refused, if no more than halves of surrogate pairs are at fault.

    Raises:
        LineError: it is not an event.
    """
    whole = without_halves(raw)
    if whole == raw:
        raise _line_error(error) from None
    return decode(whole)


class _Way(Struct, frozen=True):
    """How to decode a line that may have any of the familiar fields."""

    decode: Callable[[bytes], Any]
    values: tuple[Callable[[Line], Raw], ...]
    """Each of the familiar fields, by name."""
    absent: tuple[Raw, ...]
    """What they are in a line that has none."""
    names: tuple[bytes, ...]
    """As JSON, with the colon."""

    def present(self, values: tuple[Raw, ...]) -> bytes:
        """Those fields that are there, as a JSON object."""
        pairs = zip(self.names, values, strict=True)
        return b"{%b}" % b",".join([name + bytes(value) for name, value in pairs if value is not _ABSENT])


class Familiar:
    """Knows extra fields that have been met often: gateways have their own, and the same in every line, or in every tenth.

    Lines with and without them are then decoded in one go, and into one type, which is what the interpreter is fast with.
    What it has met says how fast a line is read, never what comes out: the same as from :func:`_decode_with_extra`.
    """

    OFTEN: Final = 10
    """A field that was met so often is familiar."""
    NAMES_MAX: Final = 16
    """No more are familiar at once: the latest."""
    LEARNT_MAX: Final = 1000
    """So many in all: whoever invents names gains nothing by it but the slower way for all."""

    def __init__(self) -> None:
        self.learnt = 0
        self._met: Counter[str] = Counter()
        self._names: list[str] = []
        self._way = _Way(_known.decode, (), (), ())
        """Replaced as one."""

    def meet(self, extra: Iterable[str]) -> None:
        """Takes note of a line's extra fields."""
        if len(self._met) > self.LEARNT_MAX:
            self._met.clear()
        for name in islice(extra, self.NAMES_MAX):
            if _PLAIN_NAME.fullmatch(name):
                self._met[name] += 1
                if self._met[name] == self.OFTEN and name not in self._names and self.learnt < self.LEARNT_MAX:
                    self._learn(name)

    def decode(self, raw: bytes) -> tuple[Line, bytes] | None:
        """A line and its extra fields; nothing if there are others, if no field is familiar yet, or if it is no event."""
        found = self.decode_all((raw,)) if self._names else None
        return (found[0][0], found[1][0]) if found else None

    def decode_all(self, raws: Sequence[bytes]) -> tuple[list[Line], list[bytes]] | None:
        """The same for many lines, of which each has to be such."""
        way = self._way
        try:
            lines = [*map(way.decode, raws)]
        except (DecodeError, RecursionError, UnicodeDecodeError):
            return None
        if not way.names:
            return lines, [b""] * len(lines)
        absent = way.absent
        extras = zip(*(map(value, lines) for value in way.values), strict=True)
        return lines, [b"" if values == absent else way.present(values) for values in extras]

    def _learn(self, name: str) -> None:
        self.learnt += 1
        self._names = [*self._names, name][-self.NAMES_MAX :]
        names = {f"extra_{at}": name for at, name in enumerate(sorted(self._names))}
        kind = defstruct(
            "_Familiar",
            [(field, Raw, _ABSENT) for field in names],
            bases=(Line,),
            rename=names,
            frozen=True,
            gc=False,
            forbid_unknown_fields=True,
        )
        self._way = _Way(
            decode=Decoder(kind).decode,
            values=tuple(attrgetter(field) for field in names),
            absent=(_ABSENT,) * len(names),
            names=tuple(encode(name) + b":" for name in names.values()),
        )


_ABSENT: Final = Raw(b"")
_PLAIN_NAME: Final = re.compile(r"[\w. -]{1,64}")
_familiar = Familiar()

_SURROGATES: Final = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""Escaped ones, in pairs and alone; and backslashes that escape no more than themselves."""

_WHERE = re.compile(r" - at `(?P<path>\$[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<name>\w+)`")


def _line_error(error: Exception) -> LineError:
    """The decoder's message as a reason and a JSON pointer (RFC 6901)."""
    if isinstance(error, RecursionError):
        return LineError("nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return LineError("not UTF-8")
    text = str(error)
    pointer = ""
    if where := _WHERE.search(text):
        pointer = re.sub(r"\[(\w+|\.\.\.)\]", r"/\1", where["path"][1:]).replace(".", "/")
        text = text[: where.start()]
    if missing := _MISSING.match(text):
        return LineError(f"{missing['name']!r} is missing", f"{pointer}/{missing['name']}")
    if not isinstance(error, ValidationError):
        return LineError("not JSON: " + text.removeprefix("JSON is malformed: "))
    if not pointer and text.startswith("Expected `object`"):
        return LineError(f"not a JSON object but {text.rpartition('got ')[2].strip('`')}")
    return LineError(text.replace("`", ""), pointer)
