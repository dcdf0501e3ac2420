"""Tries the PEM files that a configuration names, the way the server and the connections will use them."""

from __future__ import annotations

import pathlib
import ssl


def problem_of_file(path: str) -> str | None:
    """Say why a file cannot be read; None if it can."""
    try:
        with pathlib.Path(path).open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return f"no such file: {path}"
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}: {path}"
    return None


def problem_of_pair(cert_file: str, key_file: str) -> str | None:
    """Say why a certificate chain and its key, both readable, do not work; None if they do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked = False

    def password() -> bytes:
        nonlocal asked
        asked = True
        return b""

    try:
        context.load_cert_chain(cert_file, key_file, password=password)
    except ssl.SSLError as error:
        if asked:
            return f"the key is encrypted, which nobody can unlock at start: {key_file}"
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key does not belong to the certificate {cert_file}"
        return f"no certificate chain and key in PEM form: {cert_file}, {key_file}"
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return None


def problem_of_authorities(path: str) -> str | None:
    """Say why a bundle of authorities cannot be used; None if it can."""
    unreadable = problem_of_file(path)
    if unreadable is not None:
        return unreadable
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return f"no certificates in PEM form: {path}"
    return None
