"""The server's certificate, read again when its file is replaced: connections made from then on are shown the new one.

A file that cannot be used leaves the certificate that is in use, and is told once. Authorities that are added to the client
authorities' file are trusted from then on; one that is taken out of it is until the indexer is reloaded (SIGHUP).
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

from uvicorn import Config

INTERVAL_S: Final = 5.0

_log = logging.getLogger("auditship.indexer")


def tls_context(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """The server's context, which a thread keeps up to date (uvicorn calls this in each worker process)."""
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    threading.Thread(target=_keep_up, args=(context, config), name="certificate", daemon=True).start()
    return context


def _keep_up(context: ssl.SSLContext, config: Config) -> None:
    assert config.ssl_certfile is not None
    files = [str(each) for each in (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs) if each]
    used = _stamps(files)
    while True:
        time.sleep(INTERVAL_S)
        seen = _stamps(files)
        if seen == used:
            continue
        used = seen
        try:
            ssl.create_default_context().load_cert_chain(config.ssl_certfile, config.ssl_keyfile)  # whole, and a pair?
            context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
            if config.ssl_ca_certs:
                context.load_verify_locations(config.ssl_ca_certs)
        except OSError as error:  # ssl.SSLError is one
            _log.error("%s: %s; the certificate from before is still in use", ", ".join(files), error)
        else:
            _log.info("%s: read again", ", ".join(files))


def _stamps(files: list[str]) -> list[tuple[int, int, int] | None]:
    """What tells that a file was replaced or written."""
    return [_stamp(file) for file in files]


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        info = os.stat(file)  # noqa: PTH116 - names as they come from uvicorn
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns
