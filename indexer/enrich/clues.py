"""What a text gives away: e-mail and IP addresses, and secrets that stand behind their names (``token=…``, ``Bearer …``).

Every look at a text takes time in proportion to its length, whatever it says.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

MASKED: Final = "[masked]"

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_MAX: Final = 64
_LOCAL: Final = re.compile(rf"[\w.!#$%&'*+/=?^`{{|}}~-]{{1,{_LOCAL_MAX}}}")
_DOMAIN: Final = re.compile(r"@(?:[\w-]{1,63}\.)+[\w-]{2,63}")
_IPV4: Final = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\w|\.\d)")
_IPV6: Final = re.compile(r"(?:(?<![\w.:])|(?<=\w:))[0-9A-Fa-f:.]{3,45}(?![\w:])")
_CALLED: Final = r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|credential)s?"
_GIVEN_AWAY: Final = (
    re.compile(rf"(?i:{_CALLED}[\"']?\s{{0,3}}=\s{{0,3}}[\"']?)([^\s\"'&,;}}\]]{{1,4000}})"),  # token=…
    re.compile(rf"(?i:{_CALLED}\\?[\"']\s{{0,3}}:\s{{0,3}}\\?[\"']?)([^\s\"'\\,}}\]]{{1,4000}})"),  # "token": "…"
    re.compile(rf"(?i:{_CALLED}\s{{0,3}}:\s{{0,3}})(?=\S{{0,200}}\d)([^\s\"'&,;}}\]]{{1,4000}})"),  # Api-Key: …
    re.compile(r"\b(?i:bearer|basic)\s{1,3}(?=\S{0,4000}[\dA-Z=])([\w.~+/=-]{8,4000})"),
    re.compile(r"://[^/\s:@]{0,200}:([^/\s@]{1,500}(?:@[^/\s@\"'<>?#]{1,200}){0,8})@"),  # a password may have an @
)
_HINTS: Final = (b"passw", b"passphrase", b"pwd", b"secret", b"token", b"key", b"credential", b"bearer", b"basic")
"""What a line has somewhere in which a text gives anything away, but for an address with a password in it."""


def emails(text: str) -> Iterator[str]:
    """The e-mail addresses in a text."""
    end, at = 0, text.find("@")
    while at >= 0:
        if (domain := _DOMAIN.match(text, at)) and (local := _LOCAL.match(text[max(end, at - _LOCAL_MAX) : at][::-1])):
            end = domain.end()
            yield text[at - local.end() : end]
        at = text.find("@", at + 1)


def secrets(text: str) -> Iterator[str]:
    """The secrets in a text, as far as it says that they are."""
    for pattern in _GIVEN_AWAY:
        yield from (match[1] for match in pattern.finditer(text))


def addresses(text: str, how: str) -> Iterator[tuple[str, str]]:
    """The IP addresses in a text that stand there as words, or behind a colon, and what to show instead."""
    if "." in text:
        for match in _IPV4.finditer(text):
            if shown := network(match.group(), how):
                yield match.group(), shown
    if ":" in text:
        for match in _IPV6.finditer(text):
            found = match.group().rstrip(".")
            for each in (found, found.rpartition(":")[0]):
                if ":" in each and (shown := network(each, how)):
                    yield each, shown
                    break


def may_give_away_secrets(raw: bytes) -> bool:
    """Whether it is worth while to look for secrets in a line's texts."""
    lower = raw.lower()
    return any(hint in lower for hint in _HINTS) or (b"://" in raw and b"@" in raw)


def network(text: str, how: str) -> str | None:
    """The network of an address (``truncate``), or the mask (``drop``); none for what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if how == "drop":
        return MASKED
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    elif address in _NAT64:
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if isinstance(address, ipaddress.IPv4Address):
        return str(ipaddress.IPv4Address(int(address) >> 8 << 8))
    dropped = 88 if address.sixtofour else 80  # such a network would tell the whole of the IPv4 address that it was made from
    return str(ipaddress.IPv6Address(int(address) >> dropped << dropped))
