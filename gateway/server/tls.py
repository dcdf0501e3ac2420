"""TLS in front of the gateway: one context for the life of a listener, whose certificate can be loaded anew."""

from __future__ import annotations

import ssl

from gateway.config.model import TlsConfig
from gateway.errors import ConfigError


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Make the context of a listener: TLS 1.2 or newer, HTTP/1.1 by ALPN, client certificates where a CA is given.

    Raises:
        ConfigError: a file is missing or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, config)
    if config.client_ca_file is not None:
        try:
            context.load_verify_locations(config.client_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"server.tls.client_ca_file cannot be used: {_reason(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, config: TlsConfig) -> None:
    """Load the certificate and key into a context; new connections use them, old ones keep theirs.

    Raises:
        ConfigError: a file is missing or the key does not fit; the context keeps what it had.
    """
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        probe.load_cert_chain(config.cert_file, config.key_file, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.tls.cert_file and key_file cannot be used: {_reason(error)}") from error
    context.load_cert_chain(config.cert_file, config.key_file, password=_no_password)


def _no_password() -> bytes:
    """Of an encrypted key: there is nobody at a terminal, where OpenSSL would ask."""
    return b""


def _reason(error: OSError | ssl.SSLError) -> str:
    return error.reason if isinstance(error, ssl.SSLError) and error.reason else (error.strerror or "unreadable")
