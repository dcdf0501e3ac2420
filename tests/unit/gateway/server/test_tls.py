"""TLS: contexts that talk, and certificates that can be replaced."""

from __future__ import annotations

import pathlib
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway.config.model import TlsConfig
from gateway.errors import ConfigError
from gateway.server.tls import load_certificate, server_context


class Files:
    """An authority and what it signed, on disk."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))

    def issue(self, name: str, host: str) -> TlsConfig:
        leaf = self.authority.issue_cert(host)
        leaf.private_key_pem.write_to_path(str(self.folder / f"{name}.key"))
        leaf.cert_chain_pems[0].write_to_path(str(self.folder / f"{name}.pem"))
        return TlsConfig(cert_file=str(self.folder / f"{name}.pem"), key_file=str(self.folder / f"{name}.key"))

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context


@pytest.fixture
def files(tmp_path: pathlib.Path) -> Files:
    return Files(tmp_path)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> tuple[str | None, str | None]:
    """Shake hands in memory; say what was agreed on: protocol by ALPN and TLS version."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=host)
    open_ends = [theirs, ours]
    for _ in range(20):
        for end in tuple(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not open_ends
    try:
        theirs.read(1)  # TLS 1.3 tells of a refused client certificate only here
    except ssl.SSLWantReadError:
        pass
    return theirs.selected_alpn_protocol(), theirs.version()


def test_clients_talk_http_1(files: Files) -> None:
    """HTTP/1.1 is agreed on, by the newest TLS; versions before 1.2 are refused."""
    server = server_context(files.issue("a", "gateway.test"))
    assert shake(server, files.client(), "gateway.test") == ("http/1.1", "TLSv1.3")
    assert server.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_certificate_is_replaced_in_place(files: Files) -> None:
    """New handshakes see the new certificate, without a new context."""
    server = server_context(files.issue("a", "one.test"))
    shake(server, files.client(), "one.test")
    load_certificate(server, files.issue("a", "two.test"))
    shake(server, files.client(), "two.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, files.client(), "one.test")


def test_a_bad_pair_changes_nothing(files: Files) -> None:
    """A key that does not fit, or files that are missing, leave the context as it was."""
    good = files.issue("a", "one.test")
    other = files.issue("b", "one.test")
    server = server_context(good)
    for bad in (
        good.model_copy(update={"key_file": other.key_file}),
        good.model_copy(update={"cert_file": str(files.folder / "none.pem")}),
        good.model_copy(update={"key_file": good.cert_file}),
    ):
        with pytest.raises(ConfigError, match=r"server\.tls\.cert_file and key_file"):
            load_certificate(server, bad)
    shake(server, files.client(), "one.test")


def test_a_locked_key_asks_nobody(files: Files) -> None:
    """An encrypted key is an error, not a question on the terminal."""
    config = files.issue("a", "one.test")
    key = serialization.load_pem_private_key(pathlib.Path(config.key_file).read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"x")
    )
    pathlib.Path(config.key_file).write_bytes(locked)
    with pytest.raises(ConfigError):
        server_context(config)


def test_client_certificates(files: Files, tmp_path: pathlib.Path) -> None:
    """With a client CA, only clients with a certificate of it get in; a CA file that is none is an error."""
    config = files.issue("a", "one.test").model_copy(update={"client_ca_file": str(files.folder / "ca.pem")})
    server = server_context(config)
    with pytest.raises(ssl.SSLError):
        shake(server, files.client(), "one.test")
    client = files.client()
    mine = files.issue("me", "client.test")
    client.load_cert_chain(mine.cert_file, mine.key_file)
    shake(server, client, "one.test")
    (tmp_path / "words").write_text("no pem")
    for bad in ("words", "missing"):
        with pytest.raises(ConfigError, match="client_ca_file"):
            server_context(config.model_copy(update={"client_ca_file": str(tmp_path / bad)}))
