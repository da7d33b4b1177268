"""Who may do what over HTTP.

Agents and readers prove themselves by a bearer token of which only the SHA-256 is known here. With no agent configured (which
the settings allow on a loopback address only) any local process may send; likewise for reading. Then, and always on a
loopback address, the ``Host`` header must name this machine, so that no web page elsewhere can reach in through a browser
(DNS rebinding). Refusals are 401 (prove yourself), 403 (not for you) and 421 (not this host).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from auditship.block import BlockHeader
from auditship.settings import is_loopback
from indexer.receive import Refusal
from indexer.settings import AgentEntry, IndexerSettings, ReaderEntry

AGENT_GATEWAY: Final = "agent"
"""What agents say of themselves; every token may."""


class Sender(NamedTuple):
    """Who sends: a proven name (empty where nobody has to prove one), and the organisations it may speak of (none: all)."""

    name: str
    organizations: frozenset[str]


class _Entry(Protocol):
    @property
    def token_sha256(self) -> str: ...


_Holder = TypeVar("_Holder", bound=_Entry)


class _Tokens(Generic[_Holder]):
    """Holders by the hash of their token.

    Finding a hash in a dictionary tells by its timing at most something of the hash, from which no token can be made; the
    comparison that decides takes the same time for every hash.
    """

    def __init__(self, holders: Iterable[_Holder]) -> None:
        self._by_hash = {holder.token_sha256: holder for holder in holders}

    def __bool__(self) -> bool:
        return bool(self._by_hash)

    def holder(self, authorization: str | None) -> _Holder:
        """Whose token an ``Authorization`` header carries."""
        scheme, _, token = (authorization or "").partition(" ")
        hashed = token_hash(token.strip())
        found = self._by_hash.get(hashed)
        if scheme.lower() != "bearer" or found is None or not hmac.compare_digest(found.token_sha256, hashed):
            raise Refusal(401, "no token that is known here in Authorization: Bearer TOKEN")
        return found


class Access:
    """The rules of one indexer."""

    def __init__(self, settings: IndexerSettings) -> None:
        self._agents: _Tokens[AgentEntry] = _Tokens(settings.agents)
        self._readers: _Tokens[ReaderEntry] = _Tokens(settings.readers)
        self._local_only = is_loopback(settings.listen)

    def check_host(self, host: str | None) -> None:
        """Refuses a request that was meant for another name, where only this machine may ask."""
        if self._local_only and not is_loopback(host or ""):
            raise Refusal(421, f"this indexer answers to loopback names only, not to Host {(host or '')[:80]!r}")

    def sender(self, authorization: str | None, header: BlockHeader) -> Sender:
        """Who sends a block, if that sender may."""
        if not self._agents:
            return Sender("", frozenset())
        agent = self._agents.holder(authorization)
        if agent.gateways and header.gateway not in agent.gateways and header.gateway != AGENT_GATEWAY:
            raise Refusal(403, f"the token of {agent.name!r} is not for gateway {header.gateway!r}")
        own_record = header.gateway == AGENT_GATEWAY
        return Sender(agent.name, frozenset() if own_record else frozenset(agent.organizations))

    def reader(self, authorization: str | None) -> tuple[str, ...]:
        """The organisations whose events whoever asks may see (none: all of them); refuses whoever may not search."""
        if self._readers:
            return self._readers.holder(authorization).organizations
        if not self._local_only:
            raise Refusal(403, "searching over HTTP needs [[readers]] with tokens in the indexer's configuration")
        return ()

    def reader_name(self, authorization: str | None) -> str:
        """The name of whoever asks; empty where nobody has to prove one."""
        return self._readers.holder(authorization).name if self._readers else ""

    def check_unlimited_reader(self, authorization: str | None) -> None:
        """Refuses whoever may not see everything."""
        if self.reader(authorization):
            raise Refusal(403, "this token is for some organisations' events only")


def token_hash(token: str) -> str:
    """What the configuration holds of a token: its SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
