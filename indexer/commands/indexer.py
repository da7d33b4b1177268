"""``auditship indexer``: the server's process, and its workers.

SIGHUP reads the configuration again. If it is good, workers that use it take the place of those that do not, with the same
listening socket: no connection is refused meanwhile. What one process alone decides, and what is one process alone, cannot be
replaced so: the program then takes its own place, with the socket. If the configuration is not good, that is logged, and
everything goes on as before; so it is if a worker does not begin with it, but for those that were replaced already. Workers are
given the configuration that was found good, and read no other.
"""

from __future__ import annotations

import logging
import os
import signal
import ssl
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from auditship.errors import ConfigurationError
from auditship.hang_up import hear_hang_ups, hold_hang_ups
from auditship.limits import open_files
from auditship.log import configure
from auditship.settings import load
from indexer.assemble import builder_of, create, places_of
from indexer.certificate import check_files, tls_context
from indexer.commands import again
from indexer.commands.listening import Listening
from indexer.configured import record_configuration
from indexer.metrics import share_directory
from indexer.protocol import Protocol
from indexer.settings import IndexerSettings

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
    if check:
        _checked(config)
        click.echo("the configuration is good")
        return
    hold_hang_ups()
    running = _Running(config, workers)
    if running.serve():
        running.listening.hand_on()
        again.begin()


def _checked(config: Path | None) -> IndexerSettings:
    """The configuration, and everything it names tried."""
    settings = load(IndexerSettings, config)
    builder_of(settings.enrichment, places_of(settings.enrichment), retention=settings.store.retention)
    check_files(settings.certificate_file, settings.certificate_key_file, settings.client_ca_file)
    _check_store(settings)
    return settings


def _check_store(settings: IndexerSettings) -> None:
    """Reads the keys of a cluster, or sees whether the embedded store's folder may be written to; leaves nothing behind.

    Only where there is no folder yet, one is made and taken away: a store on a full disk is one to start with. It can be
    searched and expires, and agents keep their lines.
    """
    if settings.store.kind == "elasticsearch":
        from indexer.store.elasticsearch.connection import connect  # noqa: PLC0415 - what a store needs is imported only for it

        for side in ("writer", "reader"):
            connect(settings.elasticsearch, side).close()
        return
    path = settings.store.path
    reason: str | None = "is not writable"
    try:
        if not path.is_dir():
            with TemporaryDirectory(
                prefix=".check-", dir=next(each for each in (path, *path.absolute().parents) if each.exists())
            ):
                return
        if os.access(path, os.W_OK | os.X_OK):
            return
    except OSError as error:
        reason = error.strerror
    raise ConfigurationError(
        f"store.path: {path}: {reason}", "The store's path must be a folder that the indexer can write to."
    )


class _Running:
    """The configuration by which this program works, and the server that it makes.

    Raises:
        ConfigurationError: it is not good.
    """

    def __init__(self, config: Path | None, workers: int | None) -> None:
        self._file = config
        self._workers = workers
        self.settings = _checked(config)
        configure()
        self.listening = Listening(self.settings)
        _log.info("Uvicorn running on %s", self.settings.listen)
        record_configuration(self.settings, config)

    def serve(self) -> bool:
        """Serves until the program is to end, or (then it is true) to take its own place."""
        server = self.server()
        if server.workers == 1:
            return _serve_alone(server, self)
        with share_directory():
            supervisor = _Supervisor(server, self)
            supervisor.run()
        return supervisor.is_again()

    def reload(self) -> bool:
        """Takes the configuration as it is now, if it is good."""
        return again.is_good(self._take_over, _log, "the configuration is good; reloading")

    def _take_over(self) -> None:
        settings = _checked(self._file)
        self.listening.prepare(settings)
        record_configuration(settings, self._file)
        self.settings = settings

    def server(self) -> uvicorn.Config:
        """The server, and the application of its workers."""
        _allow_connections(self.settings.connections_max)
        return _server(self.settings, self._workers or self.settings.workers)


def _allow_connections(connections_max: int) -> None:
    """Lets this process and its workers hold that many connections open, as far as the system allows it."""
    wanted = connections_max + OPEN_FILES_SPARE
    if (allowed := open_files(wanted)) < wanted:
        _log.warning("%d files can be open, too few for connections_max = %d: ulimit -Hn is lower", allowed, connections_max)


def _server(settings: IndexerSettings, workers: int) -> uvicorn.Config:
    host, port = settings.host_port
    return uvicorn.Config(
        partial(create, settings),
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

    def __init__(self, config: uvicorn.Config, running: _Running) -> None:
        super().__init__(config, [running.listening.socket])
        hear_hang_ups()
        self._running = running
        self._is_to_begin_again = self._is_to_end = False

    def is_again(self) -> bool:
        """Whether it ended so that the program takes its own place, and was not told to end; a later signal ends it at once."""
        ends = {signal.SIGTERM, signal.SIGINT}
        for number in ends:
            signal.signal(number, signal.SIG_DFL)
        return self._is_to_begin_again and not self._is_to_end and ends.isdisjoint(self.signal_queue)

    def handle_term(self) -> None:
        """The end, whatever else was asked for."""
        self._is_to_end = True
        super().handle_term()

    def handle_int(self) -> None:
        """The end, as above."""
        self._is_to_end = True
        super().handle_int()

    def handle_hup(self) -> None:
        """A reload, if the configuration is good; its workers, and where they listen, are the program's own.

        Where it stops at a worker that does not begin, the configuration is again what it was.
        """
        if self.should_exit.is_set():
            return
        settings = self._running.settings
        if not self._running.reload():
            return
        before, self.config = self.config, self._running.server()
        if (before.host, before.port, before.workers) != (self.config.host, self.config.port, self.config.workers):
            self._is_to_begin_again = True
            self.should_exit.set()
            return
        super().handle_hup()
        if old := sum(process.config is not self.config for process in self.processes):
            self.config, self._running.settings = before, settings
            _log.error(
                "%d of %d workers reloaded, the next one did not begin; those that die are followed by such as were before",
                len(self.processes) - old,
                len(self.processes),
            )


def _serve_alone(config: uvicorn.Config, running: _Running) -> bool:
    """One worker, in this process; at SIGHUP it ends, and the program is to take its own place: then this is true."""
    server = uvicorn.Server(config)
    is_again, wishes = False, 0

    def hang_up(number: int, frame: FrameType | None) -> None:
        nonlocal is_again, wishes
        del number, frame
        wishes += 1
        while wishes == 1 and not is_again:  # else it has come while one before it is seen to
            if running.reload():
                is_again = server.should_exit = True
            wishes = min(wishes - 1, 1)

    signal.signal(signal.SIGHUP, hang_up)
    hear_hang_ups()
    try:
        server.run(sockets=[running.listening.socket])
    except KeyboardInterrupt:
        return False
    if not server.started and not is_again:
        sys.exit(1)
    return is_again
