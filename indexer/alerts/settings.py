"""The configuration of alerting: ``alerts.toml`` and ``AUDITSHIP_ALERTS__…``; defaults and units stand here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from auditship.errors import ConfigurationError
from auditship.settings import FilePath, HostPort, Section, Settings, is_loopback, read_secret, with_port

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Url = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[A-Za-z0-9.:\[\]_-]+(/[!-~]*)?$", max_length=2000),
    AfterValidator(with_port),
]
Severity = Literal["info", "warning", "critical"]
Address = Annotated[str, StringConstraints(pattern=r"^[^\s@<>,;:\"]+@[^\s@<>,;:\"]+$", max_length=254)]


class ChannelSettings(Section):
    """What every ``[[channel]]`` has. ``secret_file`` or ``secret_env`` (a variable's name) holds its secret."""

    name: Name
    severities: tuple[Severity, ...] = ("critical",)
    """Of which severities messages come here."""
    organizations: tuple[str, ...] = ()
    """Whose; none: everybody's, and what auditship has to say of itself."""
    only_escalations: bool = False
    """Whether only what another channel could not deliver comes here."""
    fallback: Name | None = None
    """The channel that is told what this one could not deliver."""
    timeout_s: float = Field(default=10.0, gt=0, le=120)
    ca_file: FilePath | None = None
    allow_plain: bool = False
    """Whether other machines may be spoken to without TLS, where everybody on the way reads along."""
    secret_file: FilePath | None = None
    secret_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")

    @model_validator(mode="after")
    def _one_secret(self) -> ChannelSettings:
        if self.secret_file and self.secret_env:
            raise ValueError("secret_file or secret_env: one or the other")
        return self

    def secret(self) -> str | None:
        """The secret; none where none is configured.

        Raises:
            ConfigurationError: it cannot be read.
        """
        if self.secret_file:
            return read_secret(self.secret_file)
        if not self.secret_env:
            return None
        value = os.environ.get(self.secret_env, "").strip()
        if not value:
            raise ConfigurationError(f"channel {self.name}: environment variable {self.secret_env} is not set or empty")
        return value

    def needed_secret(self, what: str) -> str:
        """The secret, which this kind of channel cannot do without."""
        found = self.secret()
        if found is None:
            raise ConfigurationError(f"channel {self.name}: {what} is missing", "Name it with secret_file or secret_env.")
        return found


def _check_plain(url: str, *, allowed: bool) -> None:
    """Refuses what everybody on the way could read and change."""
    if url.startswith("http:") and not is_loopback(url) and not allowed:
        raise ValueError("plain HTTP is for loopback addresses; use https, or set allow_plain = true")


class WebhookSettings(ChannelSettings):
    """``kind = "webhook"``; the secret signs."""

    kind: Literal["webhook"]
    url: Url

    @model_validator(mode="after")
    def _is_safe(self) -> WebhookSettings:
        _check_plain(self.url, allowed=self.allow_plain)
        return self


class SlackSettings(ChannelSettings):
    """``kind = "slack"``; the secret is the incoming webhook's whole address."""

    kind: Literal["slack"]


class PagerDutySettings(ChannelSettings):
    """``kind = "pagerduty"``; the secret is the integration's routing key."""

    kind: Literal["pagerduty"]
    url: Url = "https://events.pagerduty.com/v2/enqueue"

    @model_validator(mode="after")
    def _is_safe(self) -> PagerDutySettings:
        _check_plain(self.url, allowed=self.allow_plain)
        return self


class EmailSettings(ChannelSettings):
    """``kind = "email"``; the secret is the password of ``user``."""

    kind: Literal["email"]
    server: HostPort
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    user: str | None = None
    sender: Address
    recipients: tuple[Address, ...] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _is_safe(self) -> EmailSettings:
        if self.tls == "none" and not is_loopback(self.server) and not self.allow_plain:
            raise ValueError('tls = "none" is for loopback addresses; use TLS, or set allow_plain = true')
        return self


class SyslogSettings(ChannelSettings):
    """``kind = "syslog"``."""

    kind: Literal["syslog"]
    server: HostPort
    transport: Literal["udp", "tcp", "tls"] = "tls"

    @model_validator(mode="after")
    def _is_safe(self) -> SyslogSettings:
        if self.transport != "tls" and not is_loopback(self.server) and not self.allow_plain:
            raise ValueError(f'transport = "{self.transport}" is for loopback addresses; use "tls", or set allow_plain = true')
        return self


class CommandSettings(ChannelSettings):
    """``kind = "command"``; it has no secret, and reads its own."""

    kind: Literal["command"]
    command: tuple[str, ...] = Field(min_length=1, max_length=100)
    """A program's absolute path, and its arguments; no shell."""

    @field_validator("command")
    @classmethod
    def _command(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0].startswith("/") or any("\0" in each for each in value):
            raise ValueError("a program's absolute path comes first")
        return value


AnyChannel = Annotated[
    WebhookSettings | SlackSettings | PagerDutySettings | EmailSettings | SyslogSettings | CommandSettings,
    Field(discriminator="kind"),
]


def _is_within(some: tuple[str, ...], all_: tuple[str, ...]) -> bool:
    """Whether organisations (none: everybody's) are all among others."""
    return bool(some) and set(some) <= set(all_)


def host_port(server: str) -> tuple[str, int]:
    """A server's two parts."""
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


class AlertsSettings(Settings):
    """The whole of ``alerts.toml``."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_ALERTS__")

    indexer_config: FilePath = Path("indexer.toml")
    """The indexer's configuration, which says where the store is."""
    state_dir: FilePath = Path("/var/lib/auditship/alerts")
    """The outbox; for one process alone."""
    channel: tuple[AnyChannel, ...] = Field(min_length=1, max_length=100)
    detection_severities: tuple[Severity, ...] = ("warning", "critical")
    """Detections of these severities are followed; a channel's own ``severities`` say which of them it gets."""
    page_url: Url | None = None
    kibana_url: Url | None = None
    """Where messages link to: the page, or Kibana."""
    poll_interval_s: float | None = Field(default=None, gt=0.01, le=60)
    """Between two looks; not given: 0.25 with the embedded store, 0.5 with Elasticsearch."""
    late_interval_s: float = Field(default=30.0, gt=0, le=3600)
    """Between two looks for what became visible late."""
    late_s: float = Field(default=900.0, ge=10, le=86_400)
    """How late a document may become visible after its event.ingested and still be told."""
    quiet_s: float = Field(default=900.0, gt=0, le=86_400)
    """How long a cause must be quiet to end; its next event is told anew."""
    update_s: float = Field(default=60.0, gt=0, le=86_400)
    """The least time between two messages of a cause."""
    silent_after_s: float = Field(default=300.0, gt=0, le=86_400)
    """How long an agent may say nothing, and the store not answer, before that is told."""
    escalate_after_s: float = Field(default=300.0, gt=0, le=86_400)
    """How long a channel may be unable to deliver a message before its fallback is told."""
    give_up_after_s: float = Field(default=86_400.0, gt=0, le=7 * 86_400)
    """How long a message is tried; then it is given up, and that is told."""
    retry_interval_max_s: float = Field(default=60.0, gt=0, le=3600)
    pending_max: int = Field(default=10_000, ge=1, le=1_000_000)
    """Messages that may wait for one channel."""
    shutdown_timeout_s: float = Field(default=10.0, gt=0, le=600)
    metrics_listen: HostPort | None = None
    """Where Prometheus may ask, such as 127.0.0.1:9465; none: nowhere."""

    @field_validator("channel")
    @classmethod
    def _channels(cls, value: tuple[AnyChannel, ...]) -> tuple[AnyChannel, ...]:
        names = [channel.name for channel in value]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two channels of the name {', '.join(sorted(twice))}")
        for channel in value:
            if channel.fallback is not None and (channel.fallback not in names or channel.fallback == channel.name):
                raise ValueError(f"channel {channel.name}: its fallback {channel.fallback!r} is not another channel")
            fallback = next((each for each in value if each.name == channel.fallback), None)
            if fallback and fallback.organizations and not _is_within(channel.organizations, fallback.organizations):
                whose = ", ".join(channel.organizations) or "everybody"
                raise ValueError(
                    f"channel {channel.name}: its fallback {fallback.name} is for {', '.join(fallback.organizations)} alone "
                    f"and would hear of {whose}; name another, or let it have no organizations"
                )
        if all(channel.only_escalations for channel in value):
            raise ValueError("every channel has only_escalations: nobody would ever be told")
        return value
