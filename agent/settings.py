"""The agent's configuration: ``agent.toml`` and ``AUDITSHIP_AGENT__…``; defaults and units stand here."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from auditship.block import RESERVED_GATEWAYS, gateway_name
from auditship.settings import FilePath, HostPort, Section, Settings, is_loopback, with_port

MIB = 1 << 20
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+/?$"), AfterValidator(with_port)]


class IndexerSettings(Section):
    """``[indexer]``: where blocks are sent, and how the agent proves itself."""

    urls: tuple[Url, ...] = Field(min_length=1)
    """Tried in turn: the next one when one cannot be reached."""
    token_file: FilePath | None = None
    client_certificate: FilePath | None = None
    client_key: FilePath | None = None
    ca_file: FilePath | None = None
    allow_http: bool = False
    """Whether plain HTTP may be spoken to other machines, where everybody on the way reads and changes it."""
    connect_timeout_s: float = Field(default=5.0, gt=0, le=300)
    answer_timeout_s: float = Field(default=60.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _is_safe(self) -> IndexerSettings:
        for url in self.urls:
            if url.startswith("http:") and not is_loopback(url) and not self.allow_http:
                raise ValueError(f"{url}: plain HTTP is for loopback addresses; use https, or set allow_http = true")
        if bool(self.client_certificate) != bool(self.client_key):
            raise ValueError("client_certificate and client_key go together")
        return self


class WatchSettings(Section):
    """``[[watch]]``: the files of one gateway."""

    gateway: str
    paths: tuple[FilePath, ...] = Field(min_length=1)
    """Globs; ``**`` stands for any folders."""
    exclude: tuple[str, ...] = ("*.gz", "*.zst", "*.bz2", "*.xz")
    """Globs of file names that are passed over: compressed logs have been shipped before they were compressed."""

    @field_validator("gateway")
    @classmethod
    def _gateway(cls, value: str) -> str:
        if value in RESERVED_GATEWAYS:
            raise ValueError(f"{value!r} is a name of auditship's own; choose another")
        return gateway_name(value)


class AgentSettings(Settings):
    """The whole of ``agent.toml``."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_AGENT__")

    state_dir: FilePath = Path("/var/lib/auditship")
    """Checkpoint and agent id."""
    agent_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,128}$")
    """Made once and kept in the state directory, unless given here."""
    host: str = Field(default_factory=socket.gethostname, min_length=1, max_length=255)
    indexer: IndexerSettings
    watch: tuple[WatchSettings, ...] = Field(min_length=1)
    scan_interval_s: float = Field(default=5.0, gt=0, le=3600)
    """How often the globs are looked through; a directory's changes are noticed sooner where the system tells them."""
    poll_interval_max_s: float = Field(default=0.25, gt=0, le=60)
    """How often a quiet file is looked at; busy ones are looked at more often."""
    block_bytes_max: int = Field(default=2 * MIB, ge=4096, le=64 * MIB)
    """Uncompressed bytes in a block."""
    line_bytes_max: int = Field(default=2 * MIB, ge=1024, le=64 * MIB)
    """How much is sent of a line that does not fit into a block."""
    window_bytes: int = Field(default=16 * MIB, ge=64 * 1024, le=1024 * MIB)
    """How far a stream may be sent ahead of the durable checkpoint; also how much may be sent again after a crash."""
    in_flight_bytes_max: int = Field(default=8 * MIB, ge=MIB)
    """Compressed bytes that are held for blocks on their way."""
    shippers: int = Field(default=2, ge=1, le=32)
    """Connections that send at the same time."""
    flush_interval_s: float = Field(default=0.5, gt=0, le=60)
    """How soon an acknowledgement is durable in the checkpoint."""
    retry_interval_max_s: float = Field(default=30.0, gt=0, le=3600)
    refused_interval_s: float = Field(default=5.0, gt=0, le=3600)
    """How soon a stream whose block was refused (401, 403) is tried again; growing to ten times that."""
    release_after_s: float = Field(default=30.0, gt=0, le=86_400)
    """How long a drained file that is no longer in the globs is held open for stragglers."""
    shutdown_timeout_s: float = Field(default=10.0, gt=0, le=600)
    give_up_s: float = Field(default=60.0, gt=0, le=86_400)
    """With ``--once``: how long nothing may move before the command ends with an error."""
    open_files_max: int = Field(default=4096, ge=16, le=1_000_000)
    directories_watched_max: int = Field(default=64, ge=0, le=10_000)
    polled_files_max: int = Field(default=250, ge=1, le=100_000)
    """Files looked at between scans: those that grew last."""
    metrics_listen: HostPort | None = None
    """Where Prometheus may ask, such as 127.0.0.1:9464; none: nowhere."""
    report_interval_s: float = Field(default=60.0, gt=0, le=86_400)
    """How often the agent says in its log, and with a heartbeat in its own record, how far it is."""

    @model_validator(mode="after")
    def _fits(self) -> AgentSettings:
        if self.block_bytes_max > self.window_bytes:
            raise ValueError("block_bytes_max is larger than window_bytes: no block could ever be sent")
        return self
