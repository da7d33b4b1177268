"""The server's certificate, read again when its file is replaced: connections made from then on are shown the new one.

A file that cannot be used leaves what is in use, and is told once. Authorities of clients are read again with it: one that was
taken out of their file is not trusted with new sessions; a session that its client can resume ends when the indexer is reloaded
(SIGHUP).

A context that handshakes read is never changed: OpenSSL has no lock there, and what they copy from it could be freed meanwhile.
What is read again is a context of its own, and each handshake takes the latest as it begins.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from uvicorn import Config

from auditship.errors import ConfigurationError

INTERVAL_S: Final = 5.0

_log = logging.getLogger("auditship.indexer")


def tls_context(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """The server's context, which a thread keeps up to date (uvicorn calls this in each worker process)."""
    files = [str(each) for each in (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs) if each]
    certificate = Certificate(files, default)
    threading.Thread(target=_keep_up, args=(certificate,), name="certificate", daemon=True).start()
    return certificate.context


def check_files(certificate: Path | None, key: Path | None, authorities: Path | None) -> None:
    """Tries what a server is to show and to trust.

    Raises:
        ConfigurationError: naming the file that cannot be used.
    """
    if certificate is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for path in filter(None, (certificate, key, authorities)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}", "The indexer must be able to read it.") from None
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{certificate}, {key}: {error}", "They should be a certificate and its key, in PEM."
        ) from None
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise ConfigurationError(f"{authorities}: {error}", "It should hold certificates of authorities, in PEM.") from None


class Certificate:
    """What servers show and trust: ``context`` is for listening, and stays; handshakes with it use the files as last read.

    ``make`` reads the files into a context; what it raises (OSError; ssl.SSLError is one) is raised at start only.
    """

    def __init__(self, files: list[str], make: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._seen = _stamps(files)
        self.context = self._latest = self._read()
        self.context.sni_callback = self._take_latest

    def renew(self) -> None:
        """Reads the files again if they are not as they were; never raises."""
        seen = _stamps(self._files)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._latest = self._read()
        except OSError as error:
            _log.error("%s: %s; the certificate from before is still in use", ", ".join(self._files), error)
        else:
            _log.info("%s: read again", ", ".join(self._files))

    def _read(self) -> ssl.SSLContext:
        context = self._make()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _take_latest(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called when a client has said hello, whether or not it named a server."""
        del name, context
        connection.context = self._latest


def _keep_up(certificate: Certificate) -> None:
    while True:
        time.sleep(INTERVAL_S)
        certificate.renew()


def _stamps(files: list[str]) -> list[tuple[int, int, int] | None]:
    """What tells that a file was replaced or written."""
    return [_stamp(file) for file in files]


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        info = os.stat(file)  # noqa: PTH116 - names as they come from uvicorn
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns
