"""The indexer's configuration: ``indexer.toml`` and ``AUDITSHIP_INDEXER__…``; defaults and units stand here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from auditship.block import gateway_name
from auditship.settings import FilePath, HostPort, Section, Settings, is_loopback

MIB = 1 << 20
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+/?$")]
TokenHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Retention = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4}d$")]
"""How long documents are kept, in days: ``30d``. The name of a retention class."""


class StoreSettings(Section):
    """``[store]``: which store, and where the embedded one lives."""

    kind: Literal["embedded", "elasticsearch"] = "embedded"
    path: FilePath = Path("/var/lib/auditship/store")
    retention: Retention = "30d"
    """The class of documents whose organisation has no policy of its own."""


class ElasticsearchSettings(Section):
    """``[elasticsearch]``: how the cluster is reached. Keys are files that hold an encoded API key."""

    urls: tuple[Url, ...] = ("http://127.0.0.1:9200",)
    writer_key_file: FilePath | None = None
    reader_key_file: FilePath | None = None
    ca_file: FilePath | None = None
    request_timeout_s: float = Field(default=30.0, gt=0, le=600)
    bulk_bytes_max: int = Field(default=8 * MIB, ge=MIB, le=90 * MIB)
    bulks_in_flight_max: int = Field(default=4, ge=1, le=64)


class EnrichmentSettings(Section):
    """``[enrichment]``: every file is optional; without them the location is "Unknown" and the built-in rules hold."""

    city_database: FilePath | None = None
    asn_database: FilePath | None = None
    severity_rules: FilePath | None = None
    organizations: FilePath | None = None
    """Retention, severity and privacy by organisation, as TOML."""
    unusual_location: bool = True
    """Whether events of people are tagged where they come from a new country or network, or after an impossible journey."""
    location_window_days: int = Field(default=30, ge=1, le=365)
    """New is what was not seen for so long."""
    location_warm_up_days: int = Field(default=7, ge=0, le=365)
    location_warm_up_events: int = Field(default=50, ge=1, le=1_000_000)
    """Nothing is new to a person who was not seen for so many days, nor in so many events, before."""
    relay_networks: FilePath | None = None
    """Networks that do not tell where somebody is (VPN, satellites), as TOML, instead of the built-in ones."""
    cache_entries_max: int = Field(default=50_000, ge=100, le=10_000_000)


class DetectionSettings(Section):
    """``[detections]``: what ``auditship rules run --follow`` looks for, and how often."""

    enabled: bool = True
    interval_s: float = Field(default=30.0, ge=1, le=3600)
    rules: FilePath | None = None
    """A folder of rules of one's own, beside the built-in ones."""
    disabled: tuple[str, ...] = ()
    """Rules by name, or by their Sigma id, that make no alerts."""
    cursor_file: FilePath | None = None
    """How far the detections have come; beside the embedded store, or in ``/var/lib/auditship``, unless given."""
    metrics_listen: HostPort | None = None
    """Where Prometheus may ask ``rules run --follow``, such as 127.0.0.1:9466; none: nowhere."""


class ReaderEntry(Section):
    """``[[readers]]``: who may search over HTTP, proven by a token whose SHA-256 stands here."""

    name: str = Field(min_length=1, max_length=128)
    token_sha256: TokenHash
    organizations: tuple[str, ...] = Field(default=(), max_length=1000)
    """Organisations whose events the token may see; not given: all of them, rejected lines and the agents' record included."""

    @field_validator("organizations", mode="before")
    @classmethod
    def _organizations(cls, value: object) -> object:
        """A list from which the last name was taken must not open everything; the default is a tuple, and passes."""
        if value == []:
            raise ValueError("an empty list: name the organisations, or leave the key out for all of them")
        return value


class AgentEntry(Section):
    """``[[agents]]``: who may send, proven by a token whose SHA-256 stands here."""

    name: str = Field(min_length=1, max_length=128)
    token_sha256: TokenHash
    gateways: tuple[str, ...] = ()
    """Gateways that the token may send for; none: all of them."""
    organizations: tuple[str, ...] = ()
    """Organisations that the token may send for; none: all of them."""

    @field_validator("gateways")
    @classmethod
    def _gateways(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(gateway_name(name) for name in value)


_Holder = TypeVar("_Holder", AgentEntry, ReaderEntry)


class IndexerSettings(Settings):
    """The whole of ``indexer.toml``."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_INDEXER__")

    listen: str = "127.0.0.1:8443"
    workers: int = Field(default=1, ge=1, le=256)
    certificate_file: FilePath | None = None
    certificate_key_file: FilePath | None = None
    client_ca_file: FilePath | None = None
    """With it, agents must show a certificate that this authority signed."""
    block_bytes_max: int = Field(default=16 * MIB, ge=64 * 1024, le=256 * MIB)
    """The largest uncompressed block; a larger one is answered with 413."""
    in_flight_bytes_max: int = Field(default=64 * MIB, ge=MIB)
    """Uncompressed bytes under way in one worker, a line counting for 512 at least; beyond it the answer is 429."""
    connections_max: int = Field(default=2048, ge=8, le=1_000_000)
    """Connections to one worker; beyond them the answer is 503."""
    request_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """How long a client may take to send a block."""
    store: StoreSettings = StoreSettings()
    elasticsearch: ElasticsearchSettings = ElasticsearchSettings()
    enrichment: EnrichmentSettings = EnrichmentSettings()
    detections: DetectionSettings = DetectionSettings()
    agents: tuple[AgentEntry, ...] = ()
    readers: tuple[ReaderEntry, ...] = ()
    """Who may search over HTTP; none: only this machine's own users, where ``listen`` is a loopback address."""

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdigit() and int(port) < 1 << 16):
            raise ValueError('an address and a port such as "127.0.0.1:8443" are expected')
        return value

    @field_validator("agents", "readers")
    @classmethod
    def _tokens(cls, value: tuple[_Holder, ...]) -> tuple[_Holder, ...]:
        """Who holds a token is who may do what: it cannot be two."""
        names: dict[str, str] = {}
        for each in value:
            if (other := names.get(each.token_sha256)) is not None:
                raise ValueError(f"{other!r} and {each.name!r} have the same token_sha256; each needs a token of its own")
            names[each.token_sha256] = each.name
        return value

    @model_validator(mode="after")
    def _is_safe(self) -> IndexerSettings:
        if bool(self.certificate_file) != bool(self.certificate_key_file):
            raise ValueError("certificate_file and certificate_key_file go together")
        if not is_loopback(self.listen) and not self.certificate_file:
            raise ValueError(f"{self.listen} can be reached by others: it needs certificate_file and certificate_key_file")
        if not is_loopback(self.listen) and not self.agents and not self.client_ca_file:
            raise ValueError(f"{self.listen} can be reached by others: it needs [[agents]] with tokens, or client_ca_file")
        return self

    @property
    def host_port(self) -> tuple[str, int]:
        """``listen`` in its two parts."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
