"""Makes the channels that a configuration names. What a kind of channel needs is imported only for it."""

from __future__ import annotations

import time

from indexer.alerts.channel import Channel
from indexer.alerts.settings import AnyChannel, WebhookSettings


def channel_of(settings: AnyChannel) -> Channel:
    """A channel, ready to send.

    Raises:
        ConfigurationError: its secret or another file of its cannot be read.
    """
    match settings:
        case WebhookSettings():
            from indexer.alerts.channel.http import Http  # noqa: PLC0415
            from indexer.alerts.channel.webhook import Webhook  # noqa: PLC0415

            http = Http(settings.url, timeout_s=settings.timeout_s, ca_file=settings.ca_file)
            return Webhook(http, settings.secret(), time.time)
