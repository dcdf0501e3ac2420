import pathlib

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway.config.tls_files import problem_of_authorities, problem_of_file, problem_of_pair


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two certificates with their keys, and the authority that signs them."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("one", "two"):
        leaf = authority.issue_cert(f"{name}.test")
        leaf.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        for blob in leaf.cert_chain_pems:
            blob.write_to_path(str(tmp_path / f"{name}.pem"), append=True)
    (tmp_path / "words").write_text("no pem")
    return tmp_path


def test_a_pair_that_belongs_together_has_no_problem(folder: pathlib.Path) -> None:
    """Certificate, key and authority load."""
    assert problem_of_pair(str(folder / "one.pem"), str(folder / "one.key")) is None
    assert problem_of_authorities(str(folder / "ca.pem")) is None


def test_a_key_of_another_certificate_is_named(folder: pathlib.Path) -> None:
    """The commonest mistake has words of its own."""
    one = str(folder / "one.pem")
    assert problem_of_pair(one, str(folder / "two.key")) == f"the key does not belong to the certificate {one}"


def test_an_encrypted_key_is_named_and_nobody_is_asked(folder: pathlib.Path) -> None:
    """A gateway has no terminal to ask for a passphrase."""
    key = serialization.load_pem_private_key((folder / "one.key").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"x")
    )
    (folder / "locked.key").write_bytes(locked)
    said = problem_of_pair(str(folder / "one.pem"), str(folder / "locked.key"))
    assert said == f"the key is encrypted, which nobody can unlock at start: {folder / 'locked.key'}"


def test_files_that_are_no_pem(folder: pathlib.Path) -> None:
    """A file with something else in it is named."""
    words = str(folder / "words")
    assert problem_of_pair(words, words) == f"no certificate chain and key in PEM form: {words}, {words}"
    assert problem_of_authorities(words) == f"no certificates in PEM form: {words}"


def test_files_that_cannot_be_read(folder: pathlib.Path) -> None:
    """A missing file and a folder are told apart."""
    assert problem_of_file(str(folder / "none")) == f"no such file: {folder / 'none'}"
    assert problem_of_file(str(folder)) == f"cannot be read: is a directory: {folder}"
    assert problem_of_authorities(str(folder / "none")) == f"no such file: {folder / 'none'}"
    assert problem_of_file(str(folder / "words")) is None
