"""``auditship indexer``: the server's process, and its workers.

SIGHUP reads the configuration again. If it is good, workers that use it take the place of those that do not, with the same
listening socket: no connection is refused meanwhile. If it is not, that is logged, and everything goes on as before.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from auditship.errors import ConfigurationError
from auditship.limits import open_files
from auditship.log import configure
from auditship.settings import load
from indexer.assemble import CONFIG_VARIABLE, builder_of, places_of
from indexer.certificate import tls_context
from indexer.commands import again
from indexer.configured import record_configuration
from indexer.metrics import share_directory
from indexer.protocol import Protocol
from indexer.settings import IndexerSettings
from indexer.store.select import open_writer

SOCKET_VARIABLE: Final = "AUDITSHIP_LISTENING_SOCKET"
"""Tells a program that takes its own place which descriptor listens already, and where."""
OPEN_FILES_SPARE: Final = 256
"""Files beside connections: databases, segments, logs, connections to a cluster."""

_log = logging.getLogger("auditship.indexer")


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file, indexer.toml.")
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes, instead of the configuration's.")
@click.option("--check", is_flag=True, help="Check the configuration and the files it names, and end.")
def indexer(config: Path | None, workers: int | None, check: bool) -> None:
    r"""Receive, enrich and store what agents ship.

    \b
    auditship indexer --config /etc/auditship/indexer.toml
    auditship indexer --config indexer.toml --check

    SIGHUP reads the configuration again; a bad one is told, and the old one kept.
    """
    if not check:
        again.hold_hang_ups()
    settings = _checked(config)
    if check:
        click.echo("the configuration is good")
        return
    configure()
    _allow_connections(settings.connections_max)
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.absolute())
    record_configuration(settings, config)
    server = _server(settings, workers or settings.workers)
    listening = _inherited(settings.listen) or server.bind_socket()
    if server.workers > 1:
        with share_directory():
            _Supervisor(
                server,
                [listening],
                lambda: again.is_good(lambda: _take_over(config, settings), _log, "the configuration is good; reloading"),
            ).run()
    else:
        _serve_alone(
            server,
            listening,
            settings.listen,
            lambda: again.is_good(lambda: _take_over(config, settings), _log, "the configuration is good; reloading"),
        )


def _checked(config: Path | None) -> IndexerSettings:
    """The configuration, and everything it names tried."""
    settings = load(IndexerSettings, config)
    builder_of(settings.enrichment, places_of(settings.enrichment), retention=settings.store.retention)
    return settings


def _allow_connections(connections_max: int) -> None:
    """Lets this process and its workers hold that many connections open, as far as the system allows it."""
    wanted = connections_max + OPEN_FILES_SPARE
    if (allowed := open_files(wanted)) < wanted:
        _log.warning("%d files can be open, too few for connections_max = %d: ulimit -Hn is lower", allowed, connections_max)


def _take_over(config: Path | None, ours: IndexerSettings) -> None:
    """Tries what the configuration says now, but for what is ours already; it is on record if it is good."""
    settings = _checked(config)
    if settings.store.kind == "elasticsearch":
        open_writer(settings)  # reads both keys
    host, port = settings.host_port
    if port != ours.host_port[1]:
        try:
            socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
        except OSError as error:
            raise ConfigurationError(f"listen = {settings.listen!r}: {error.strerror}", "Choose another port.") from None
    record_configuration(settings, config)


def _server(settings: IndexerSettings, workers: int) -> uvicorn.Config:
    host, port = settings.host_port
    return uvicorn.Config(
        "indexer.assemble:create",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections_max,
        timeout_graceful_shutdown=30,
        timeout_worker_healthcheck=30,
        ssl_certfile=settings.certificate_file,
        ssl_keyfile=str(settings.certificate_key_file) if settings.certificate_key_file else None,
        ssl_ca_certs=str(settings.client_ca_file) if settings.client_ca_file else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.client_ca_file else ssl.CERT_NONE,
        ssl_context_factory=tls_context if settings.certificate_file else None,
    )


class _Supervisor(Multiprocess):
    """Several workers; at SIGHUP each is replaced in turn, the new one being ready before the old one ends."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], is_good: Callable[[], bool]) -> None:
        super().__init__(config, sockets)
        again.hear_hang_ups()
        self._is_good = is_good

    def handle_hup(self) -> None:
        """A reload, if the configuration is good."""
        if self._is_good():
            super().handle_hup()


def _serve_alone(config: uvicorn.Config, listening: socket.socket, listen: str, is_good: Callable[[], bool]) -> None:
    """One worker, in this process; at SIGHUP the program takes its own place and goes on with the same socket."""
    server = uvicorn.Server(config)
    is_again, wishes = False, 0

    def hang_up(number: int, frame: FrameType | None) -> None:
        nonlocal is_again, wishes
        del number, frame
        wishes += 1
        while wishes == 1 and not is_again:  # else it has come while one before it is seen to
            if is_good():
                is_again = server.should_exit = True
            wishes = min(wishes - 1, 1)

    signal.signal(signal.SIGHUP, hang_up)
    again.hear_hang_ups()
    kept = os.dup(listening.fileno())
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        return
    if is_again:
        os.set_inheritable(kept, True)
        os.environ[SOCKET_VARIABLE] = f"{kept} {listen}"
        again.begin()
    if not server.started:
        sys.exit(1)


def _inherited(listen: str) -> socket.socket | None:
    """The listening socket that the program before us left, if it listens where we are to listen."""
    number, _, where = os.environ.pop(SOCKET_VARIABLE, "").partition(" ")
    if not number:
        return None
    listening = socket.socket(fileno=int(number))
    listening.set_inheritable(False)
    if where == listen:
        return listening
    listening.close()
    return None
