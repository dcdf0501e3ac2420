"""Certificates for tests, made on the spot and written where a configuration can name them."""

from __future__ import annotations

import pathlib
import ssl
from dataclasses import dataclass

import trustme


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with a folder for what it issues."""

    ca: trustme.CA
    folder: pathlib.Path

    @property
    def ca_file(self) -> str:
        """PEM file with its own certificate."""
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return str(path)

    def issue(self, name: str, *identities: str) -> dict[str, str]:
        """Issue a certificate for some names; returns `cert_file` and `key_file`. Issued again, the files are replaced."""
        issued = self.ca.issue_cert(*identities)
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        issued.private_key_pem.write_to_path(key)
        for place, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(cert, append=place > 0)
        return {"cert_file": str(cert), "key_file": str(key)}

    def trusting(self, certificate: dict[str, str] | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority alone, with a certificate of its own if one is given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if certificate is not None:
            context.load_cert_chain(certificate["cert_file"], certificate["key_file"])
        return context


def authority(folder: pathlib.Path) -> Authority:
    """Make an authority that keeps its files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Authority(trustme.CA(), folder)
