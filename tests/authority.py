"""A certificate authority of a test's own, made with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """A certificate authority of a test's own, and what it signed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.certificate = folder / f"{name}.pem"
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        names = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *usage)

    def sign(self, name: str, subject: str = "localhost") -> tuple[Path, Path]:
        """A certificate and its key."""
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName=DNS:{subject},IP:127.0.0.1\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}", *request)
        signer = ("-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial", "-extfile", extensions.name)
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-days", "2", *signer, "-out", f"{name}.pem")
        (self.folder / f"{name}.key").chmod(0o600)
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)
