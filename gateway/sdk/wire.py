"""Between a `Call` and httpx: requests, timeouts, and the one place where httpx's exceptions get our names."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any, TypeVar

import httpx

from gateway.sdk.calls import MAX_ANSWER_BYTES, Call, is_loopback
from gateway.sdk.errors import SmgApiError, Unreachable, api_error

T = TypeVar("T")


def timeout(silence_s: float, connect_s: float) -> httpx.Timeout:
    """Make the time limits of a call."""
    return httpx.Timeout(silence_s, connect=connect_s, pool=connect_s)


def options(url: str, api_key: str | None, ca_file: str | None) -> dict[str, Any]:
    """Return the options that both kinds of httpx client take.

    Raises:
        ValueError: the URL is none of a gateway, or the CA file cannot be read.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the url of the gateway must begin with http:// or https://, not {url[:60]!r}")
    try:
        if not httpx.URL(url).host:
            raise ValueError(f"the url of the gateway names no host: {url[:60]!r}")
        verify = ssl.create_default_context(cafile=ca_file) if ca_file is not None else True
    except httpx.InvalidURL as error:
        raise ValueError(f"the url of the gateway is not valid: {str(error).lower()}") from None
    except OSError as error:
        raise ValueError(f"the CA file {ca_file} cannot be used: {error.strerror or error}") from None
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise ValueError("the API key holds a character that no header may carry")
    return {"base_url": url.rstrip("/"), "headers": headers, "verify": verify, "trust_env": not is_loopback(url), "follow_redirects": False}


def request(call: Call[Any], limits: httpx.Timeout | None) -> dict[str, Any]:
    """Return the arguments of httpx's `stream` for a call."""
    body = call.body()
    arguments: dict[str, Any] = {"method": call.method, "url": call.path, "params": dict(call.params)}
    if body is not None:
        arguments |= {"content": body, "headers": {"content-type": call.content_type}}
    if limits is not None:
        arguments["timeout"] = limits
    return arguments


@contextlib.contextmanager
def renamed(url: str) -> Iterator[None]:
    """Turn httpx's exceptions into ours."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise Unreachable(url, "no connection within the time limit") from error
    except httpx.TimeoutException as error:
        raise Unreachable(url, "no answer within the time limit") from error
    except httpx.ConnectError as error:
        raise Unreachable(url, _reason(error)) from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise Unreachable(url, f"the connection broke off: {_reason(error)}") from error


def bounded(piece: bytes, before: int, url: str) -> bytes:
    """Return a piece of an answer, if the answer is not too large with it.

    Raises:
        Unreachable: it is; whatever sends that is no gateway.
    """
    if before + len(piece) > MAX_ANSWER_BYTES:
        raise Unreachable(url, f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB")
    return piece


def failure(response: httpx.Response, body: bytes) -> SmgApiError:
    """Make the error of an answer."""
    return api_error(response.status_code, response.headers, body)


def result(call: Call[T], response: httpx.Response, body: bytes, url: str) -> T:
    """Read an answer.

    Raises:
        SmgApiError: it is an error.
        Unreachable: it is nothing that a gateway says.
    """
    if not response.is_success and response.status_code not in call.also_ok:
        raise failure(response, body)
    try:
        return call.read(response.status_code, body)
    except ValueError as error:
        raise Unreachable(url, f"what answers there is no gateway: {call.path} is not what it should be ({error})") from error


def _reason(error: Exception) -> str:
    """Say what a socket error means in words; httpx hides it below the exception."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {below.verify_message.lower()}"
        if isinstance(below, ConnectionRefusedError):
            return "connection refused"
        if isinstance(below, socket.gaierror):
            return f"its host name is not known: {(below.strerror or str(below)).lower()}"
        below = below.__cause__ or below.__context__
    text = str(error) or type(error).__name__
    return "connection refused" if "refused" in text or "All connection attempts failed" in text else text[:200]
