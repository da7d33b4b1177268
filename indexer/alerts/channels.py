"""Makes the channels that a configuration names. What a kind of channel needs is imported only for it."""

from __future__ import annotations

import time

from pydantic import TypeAdapter, ValidationError

from auditship.errors import ConfigurationError
from auditship.settings import is_loopback
from indexer.alerts.channel import Channel
from indexer.alerts.channel.http import Http, tls_of
from indexer.alerts.settings import (
    AnyChannel,
    CommandSettings,
    EmailSettings,
    PagerDutySettings,
    SlackSettings,
    SyslogSettings,
    Url,
    WebhookSettings,
    host_port,
)


def channel_of(settings: AnyChannel) -> Channel:
    """A channel, ready to send.

    Raises:
        ConfigurationError: its secret or another file of its cannot be read.
    """
    match settings:
        case WebhookSettings():
            from indexer.alerts.channel.webhook import Webhook  # noqa: PLC0415

            secret = settings.secret()
            return Webhook(_http(settings, settings.url, *([secret] if secret else [])), secret, time.time)
        case SlackSettings():
            from indexer.alerts.channel.slack import Slack  # noqa: PLC0415

            return Slack(_http(settings, _secret_url(settings)))
        case PagerDutySettings():
            from indexer.alerts.channel.pagerduty import PagerDuty  # noqa: PLC0415

            key = settings.needed_secret("its routing key")
            return PagerDuty(_http(settings, settings.url, key), key)
        case EmailSettings():
            return _email(settings)
        case SyslogSettings():
            from indexer.alerts.channel.syslog import Syslog  # noqa: PLC0415

            host, port = host_port(settings.server)
            context = tls_of(settings.ca_file) if settings.transport == "tls" else None
            return Syslog(host, port, transport=settings.transport, context=context, timeout_s=settings.timeout_s)
        case CommandSettings():
            from indexer.alerts.channel.command import Command  # noqa: PLC0415

            return Command(settings.command, settings.timeout_s)


def _http(settings: AnyChannel, url: str, *secrets: str) -> Http:
    return Http(url, timeout_s=settings.timeout_s, ca_file=settings.ca_file, secrets=secrets)


def _secret_url(settings: SlackSettings) -> str:
    """Slack's address, which is checked as it is read and shown nowhere."""
    url = settings.needed_secret("the incoming webhook's address")
    try:
        is_address = bool(TypeAdapter(Url).validate_python(url))
    except ValidationError:
        is_address = False
    if not is_address or (url.startswith("http:") and not is_loopback(url) and not settings.allow_plain):
        raise ConfigurationError(f"channel {settings.name}: its secret is not an https address", "See Slack's page of the app.")
    return url


def _email(settings: EmailSettings) -> Channel:
    from indexer.alerts.channel.smtp import Smtp  # noqa: PLC0415

    host, port = host_port(settings.server)
    return Smtp(
        host,
        port,
        tls=settings.tls,
        context=tls_of(settings.ca_file),
        login=(settings.user, settings.needed_secret("the password")) if settings.user else None,
        sender=settings.sender,
        recipients=settings.recipients,
        timeout_s=settings.timeout_s,
    )
