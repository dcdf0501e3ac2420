"""Who may use the control plane: a key with the role for it, or, where no key has one, this machine alone.

Cases, in order:

1. Some key opens the control plane (role `view` or `admin`): a request needs one of them.
2. None does, and the gateway listens on a loopback address: open to this machine. The `host` header must name it, so that
   a web page whose name was made to resolve to 127.0.0.1 (DNS rebinding) is refused; and no proxy may have passed it on.
3. None does, and others can reach the gateway: closed to everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request

from gateway.admission.keyring import Keyring
from gateway.config.model import GatewayConfig, Role
from gateway.config.validate import is_loopback
from gateway.errors import ClientError, Code, GatewayError

_CONTROL = frozenset({Role.VIEW, Role.ADMIN})
_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of requests that come from somewhere else than this machine."""


class Guard(Protocol):
    """Decides on a request, before anything of it but its head is read. Returns the error, does not raise it.

    Example::

        def nobody(request, role):
            return ClientError(Code.FORBIDDEN, "the control plane is switched off")
    """

    def __call__(self, request: Request, role: Role) -> GatewayError | None:
        """Say why this request may not do what `role` may; None if it may."""
        ...


class KeyGuard:
    """The guard of a gateway: asks the keyring and the configuration in force at every request."""

    def __init__(
        self,
        keyring: Callable[[], Keyring],
        config: Callable[[], GatewayConfig],
        bearer_of: Callable[[Request], bytes | None],
    ) -> None:
        self._keyring = keyring
        self._config = config
        self._bearer_of = bearer_of

    def __call__(self, request: Request, role: Role) -> GatewayError | None:
        """Say why this request may not do what `role` may; None if it may."""
        keyring = self._keyring()
        if not keyring.roles & _CONTROL:
            return self._without_a_key(request)
        identity = keyring.identify(self._bearer_of(request), None)
        if isinstance(identity, GatewayError):
            return identity
        if Role.ADMIN in identity.roles or role in identity.roles:
            return None
        return ClientError(Code.FORBIDDEN, f"this needs an api key with the role {role}")

    def _without_a_key(self, request: Request) -> GatewayError | None:
        if not is_loopback(self._config().server.host):
            return ClientError(
                Code.FORBIDDEN,
                "the control plane is closed: set an api key with the role admin, or listen on 127.0.0.1 only",
            )
        if not is_local_name(request.headers.get("host", "")):
            return ClientError(
                Code.FORBIDDEN,
                "without a key the control plane answers to localhost, 127.0.0.1 and [::1] only: "
                "use one of them in the url, or set an api key with the role admin",
            )
        if any(name in request.headers for name in _OF_PROXIES):
            return ClientError(
                Code.FORBIDDEN,
                "without a key the control plane answers to nothing that a proxy passes on: set an api key with the role admin",
            )
        return None


def is_local_name(host: str) -> bool:
    """Tell whether a `host` header names this machine by one of the names that nobody else can own."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name = host
    elif not port.isdigit():
        return False
    return name.lower() in ("localhost", "127.0.0.1", "[::1]")
