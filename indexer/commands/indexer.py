"""``auditship indexer``: the server's process, and its workers."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import click
import uvicorn

from auditship.log import configure
from auditship.settings import load
from indexer.assemble import CONFIG_VARIABLE, builder_of, places_of
from indexer.settings import IndexerSettings


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file, indexer.toml.")
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes, instead of the configuration's.")
@click.option("--check", is_flag=True, help="Check the configuration and the files it names, and end.")
def indexer(config: Path | None, workers: int | None, check: bool) -> None:
    r"""Receive, enrich and store what agents ship.

    \b
    auditship indexer --config /etc/auditship/indexer.toml
    auditship indexer --config indexer.toml --check
    """
    settings = load(IndexerSettings, config)
    builder_of(settings.enrichment, places_of(settings.enrichment), retention=settings.store.retention)
    if check:
        click.echo("the configuration is good")
        return
    configure()
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.absolute())
    host, port = settings.host_port
    uvicorn.run(
        "indexer.assemble:create",
        factory=True,
        host=host,
        port=port,
        workers=workers or settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
        ssl_certfile=settings.certificate_file,
        ssl_keyfile=str(settings.certificate_key_file) if settings.certificate_key_file else None,
        ssl_ca_certs=str(settings.client_ca_file) if settings.client_ca_file else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.client_ca_file else ssl.CERT_NONE,
    )
