"""A certificate that is replaced while clients connect: each handshake is whole, with the old one or the new one."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from pathlib import Path

import pytest
from authority import Authority

from indexer.certificate import Certificate

pytestmark = pytest.mark.program("openssl")

ROUNDS = 1_000


class Server:
    """A certificate in files, of which there are two more signed ones to put in their place."""

    def __init__(self, folder: Path, *, asks: bool = False) -> None:
        self.authority = Authority(folder, "authority")
        self.signed = [[each.read_bytes() for each in self.authority.sign(name)] for name in ("one", "two")]
        self.files = [folder / "server.pem", folder / "server.key", folder / "clients.pem"]
        self.put(*self.signed[0], self.authority.certificate.read_bytes())
        self.asks = asks
        self.certificate = Certificate([str(each) for each in self.files], self._context)

    def put(self, *contents: bytes) -> None:
        """Replaces files, in the order of ``files``."""
        for file, content in zip(self.files, contents, strict=False):
            new = file.with_suffix(".new")
            new.write_bytes(content)
            new.replace(file)

    def shows(self) -> bytes:
        """What a handshake is shown now, in DER."""
        return shown(self.certificate.context, self.client())

    def client(self, signed: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client that trusts the authority, and that it signed something for."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        if signed:
            context.load_cert_chain(*signed)
        return context

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files[0], self.files[1])
        if self.asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.files[2])
        return context


def shown(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> bytes:
    """Shakes hands in memory, both ways, and tells the certificate that the client was shown."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    shaking = [near, far]
    while shaking:
        for each in list(shaking):
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
            shaking.remove(each)
    return near.getpeercert(binary_form=True) or b""


def der(content: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(content.decode())


def test_handshakes_are_whole_while_the_certificate_is_replaced_again_and_again(tmp_path: Path) -> None:
    server = Server(tmp_path)
    is_over = threading.Event()

    def replace() -> None:
        for turn in range(ROUNDS):
            server.put(*server.signed[turn % 2])
            server.certificate.renew()
        is_over.set()

    thread = threading.Thread(target=replace)
    thread.start()
    seen = set()
    try:
        while not is_over.is_set():
            seen.add(server.shows())
    finally:
        thread.join()
    assert seen == {der(certificate) for certificate, _ in server.signed}
    assert server.shows() == der(server.signed[(ROUNDS - 1) % 2][0])


def test_a_client_that_names_no_server_is_shown_the_latest_too(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.put(*server.signed[1])
    server.certificate.renew()
    assert shown(server.certificate.context, server.client(), "127.0.0.1") == der(server.signed[1][0])


def test_a_pair_that_does_not_match_is_told_once_and_what_was_read_before_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(tmp_path)
    server.put(server.signed[1][0])
    with caplog.at_level(logging.INFO, "auditship.indexer"):
        server.certificate.renew()
        server.certificate.renew()
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    assert "server.pem" in caplog.text
    assert "still in use" in caplog.text
    assert server.shows() == der(server.signed[0][0])
    server.put(*server.signed[1])
    server.certificate.renew()
    assert server.shows() == der(server.signed[1][0])


def test_a_file_that_is_gone_is_told_and_taken_when_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(tmp_path)
    server.files[1].unlink()
    server.certificate.renew()
    assert "still in use" in caplog.text
    assert server.shows() == der(server.signed[0][0])
    server.put(*server.signed[1])
    server.certificate.renew()
    assert server.shows() == der(server.signed[1][0])


def test_files_that_are_as_they_were_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(tmp_path)
    with caplog.at_level(logging.INFO, "auditship.indexer"):
        server.certificate.renew()
    assert not caplog.records
    os.utime(server.files[0])
    with caplog.at_level(logging.INFO, "auditship.indexer"):
        server.certificate.renew()
    assert "read again" in caplog.text


def test_a_clients_authority_that_is_taken_out_is_not_trusted_with_new_sessions(tmp_path: Path) -> None:
    server = Server(tmp_path, asks=True)
    client = server.client(server.authority.sign("client"))
    assert shown(server.certificate.context, client) == der(server.signed[0][0])
    folder = tmp_path / "others"
    folder.mkdir()
    other = Authority(folder, "other")
    server.put(*server.signed[0], other.certificate.read_bytes())
    server.certificate.renew()
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(server.certificate.context, client)
    assert shown(server.certificate.context, server.client(other.sign("client"))) == der(server.signed[0][0])


def test_old_versions_of_the_protocol_are_refused(tmp_path: Path) -> None:
    assert Server(tmp_path).certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
