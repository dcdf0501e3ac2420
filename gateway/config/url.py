"""What a worker's URL may look like, and when two of them mean the same worker. Pure text: nothing is resolved."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": None}
_PREFIX = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@%/")


def problem_of(url: str) -> str | None:
    """Say what is wrong with a worker's URL; None if it can be used."""
    if not url:
        return "is empty; write http://HOST:PORT"
    if not url.isprintable() or " " in url:
        return "holds a space or a control character"
    if "://" not in url:
        return f"has no scheme; did you mean http://{_shown(url)}?"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a valid url; write http://HOST:PORT"
    if parts.scheme not in ("http", "https", "grpc"):
        return f"begins with {parts.scheme}://; use http://, https:// or grpc://"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user or a password; give the worker an `api_key_env`"
    if "?" in url or "#" in url:
        return "must not have a query or a fragment"
    if not parts.hostname:
        return "names no host; write http://HOST:PORT"
    if port == 0 or parts.netloc.endswith(":"):
        return "has no usable port"
    if parts.scheme == "grpc":
        return _problem_of_grpc(parts, port)
    return _problem_of_prefix(parts.path.rstrip("/"))


def identity(url: str) -> str:
    """Return the same text for two URLs that mean the same worker; the URL must have no problem."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"


def _problem_of_grpc(parts: SplitResult, port: int | None) -> str | None:
    if port is None:
        return "has no port; write grpc://HOST:PORT"
    return "must not have a path" if parts.path.rstrip("/") else None


def _problem_of_prefix(prefix: str) -> str | None:
    if not _PREFIX.issuperset(prefix) or any(step in (".", "..") for step in prefix.split("/")):
        return "has a path with characters that must be percent-encoded, or a dot segment"
    if prefix == "/v1" or prefix.endswith("/v1"):
        return "ends in /v1, which the gateway adds by itself; leave it out"
    return None


def _shown(url: str) -> str:
    return url if len(url) <= 60 and "@" not in url else "HOST:PORT"
