"""Where a worker listens: its URL taken apart, once, into what connecting and writing a request need."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from gateway.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PREFIX_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~!$&'()*+,;=:@%")
"""What a path may hold (RFC 3986, 3.3); anything else would have to be encoded, and the worker may see it otherwise."""
_MAX_CONTEXTS = 64


@dataclass(frozen=True, slots=True)
class Target:
    """Where a worker listens, and how to reach it."""

    host: str
    """A name or an address; an IPv6 address without its brackets, with its zone if it has one."""
    port: int
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    """The name that the worker's certificate must have; None for `host`."""
    prefix: bytes = b""
    """What goes before the path of every request, `/engine` say; empty, or begins with a slash and does not end with one."""

    @property
    def authority(self) -> bytes:
        """The value of the `host` header: the port is left out where it is the scheme's own."""
        host = self.host.partition("%")[0]
        if ":" in host:
            host = f"[{host}]"
        return host.encode() if self.port == _DEFAULT_PORTS["http" if self.tls is None else "https"] else f"{host}:{self.port}".encode()


def target_of(url: str, *, ca_file: str | None = None, verify_tls: bool = True) -> Target:
    """Take a worker's URL apart.

    Args:
        url: `http://` or `https://`, host, optional port, optional path that goes before every request's own.
        ca_file: PEM file with the authorities to trust instead of the system's (https alone).
        verify_tls: check the worker's certificate and its name.

    Raises:
        ConfigError: the URL cannot be used, or the CA file cannot be read; nothing was opened.
    """
    parts, port = _split(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ConfigError(f"the worker url {_shown(url)} must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"the worker url {_shown(url)} must not hold a user or password; give the worker an api_key")
    if "?" in url or "#" in url:
        raise ConfigError(f"the worker url {_shown(url)} must not have a query or fragment")
    host = _host(parts.hostname or "", url)
    prefix = parts.path.rstrip("/")
    if prefix and (not _PREFIX_CHARACTERS.issuperset(prefix) or any(step in (".", "..") for step in prefix.split("/"))):
        raise ConfigError(f"the path of the worker url {_shown(url)} holds what must be percent-encoded, or a dot segment")
    tls = _context(ca_file, verify_tls) if parts.scheme == "https" else None
    return Target(host, port or _DEFAULT_PORTS[parts.scheme], tls, host.partition("%")[0] if tls is not None else None, prefix.encode())


def _split(url: str) -> tuple[SplitResult, int | None]:
    """Split a URL; `urlsplit` silently drops tabs and line ends, so those are refused before."""
    if not url.isprintable() or " " in url:
        raise ConfigError("the worker url holds a space or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"the worker url {_shown(url)} is not a valid url") from None
    if port == 0 or (parts.netloc.endswith(":")):
        raise ConfigError(f"the worker url {_shown(url)} has no usable port")
    return parts, port


def _host(host: str, url: str) -> str:
    """Return the host as a connect call takes it: names in their ASCII form."""
    if not host:
        raise ConfigError(f"the worker url {_shown(url)} names no host")
    if ":" in host:
        return host.replace("%25", "%", 1)
    try:
        ascii_host = host.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_host = ""
    if not ascii_host or not all(c.isalnum() or c in "-._" for c in ascii_host):
        raise ConfigError(f"the host of the worker url {_shown(url)} is not a valid name")
    return ascii_host


def _shown(url: str) -> str:
    """The URL for a message, without the password that somebody may have put there."""
    before, at, after = url.rpartition("@")
    return f"'{before.partition('://')[0]}://...@{after}'" if at else f"'{url}'"


def _context(ca_file: str | None, verify: bool) -> ssl.SSLContext:
    if ca_file is None or not verify:
        return _cached_context(None, verify, 0, 0)
    try:
        stat = os.stat(ca_file)
        return _cached_context(ca_file, verify, stat.st_mtime_ns, stat.st_size)
    except ssl.SSLError:
        raise ConfigError(f"the ca file '{ca_file}' holds no certificate in pem form") from None
    except OSError as cause:
        raise ConfigError(f"the ca file '{ca_file}' cannot be read: {(cause.strerror or 'unknown').lower()}") from None


@lru_cache(maxsize=_MAX_CONTEXTS)
def _cached_context(ca_file: str | None, verify: bool, changed_ns: int, size_bytes: int) -> ssl.SSLContext:
    """Make a context (tens of milliseconds with the system's authorities); a CA file that was replaced gives a new one."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
