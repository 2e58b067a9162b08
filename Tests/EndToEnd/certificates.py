"""Certificates and keys for TLS, made with GnuTLS's tools as the guide has it."""

from __future__ import annotations

import shutil
from pathlib import Path

from .commands import run


class Authority:
    """Whoever signs certificates."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        self.key = folder / "ca-key.pem"
        self.certificate = folder / "ca-cert.pem"
        make_key(self.key)
        template = self.template("ca", f"cn = {folder.name}", "ca", "cert_signing_key")
        run("certtool", "--generate-self-signed", "--load-privkey", str(self.key), "--template", template,
            "--outfile", str(self.certificate))

    def template(self, name: str, *lines: str) -> str:
        path = self.folder / f"{name}.info"
        path.write_text("".join(f"{line}\n" for line in (*lines, "expiration_days = 2")), encoding="ascii")
        return str(path)

    def issue(self, folder: Path, role: str, *names: str) -> Path:
        """Fills a folder as nbdkit, libnbd and QEMU look for it: the authority's certificate, a key, and a certificate.

        The role is `server`, with names as certtool wants them (`dns_name = localhost`), or `client`.
        """
        folder.mkdir()
        shutil.copy(self.certificate, folder)
        key = folder / f"{role}-key.pem"
        make_key(key)
        template = self.template(folder.name, f"cn = {folder.name}", *names, f"tls_www_{role}", "encryption_key",
                                 "signing_key")
        run("certtool", "--generate-certificate", "--load-ca-certificate", str(self.certificate),
            "--load-ca-privkey", str(self.key), "--load-privkey", str(key), "--template", template,
            "--outfile", str(folder / f"{role}-cert.pem"))
        return folder


def make_key(path: Path) -> None:
    run("certtool", "--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile", str(path))


def shared_key(path: Path, user: str) -> Path:
    """A file with a key that `user` shares with the server, in a folder of its own, where QEMU looks for it."""
    path.parent.mkdir()
    run("psktool", "-u", user, "-p", str(path))
    return path
