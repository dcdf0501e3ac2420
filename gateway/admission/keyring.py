"""API keys: who a credential belongs to, which roles it opens, and for which tenant it counts.

Keys are known by their SHA-256 alone. A credential is hashed and its digest looked up, so that every wrong key costs the
same, whatever it shares with a right one. Credentials that were right are remembered as they came (the hash is then saved);
wrong ones never are, so that guessing fills no memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from gateway.config.model import ApiKeyConfig, AuthConfig, PriorityClass, Role
from gateway.errors import ClientError, Code, GatewayError

MAX_REMEMBERED = 4096
"""(credential, tenant header) pairs remembered; one pair is about 300 bytes."""
ANONYMOUS = "anonymous"
"""Key id and tenant of a client without a key, where none is needed."""

_TENANT = re.compile(rb"[!-~]{1,128}")
_RANK = {priority: rank for rank, priority in enumerate(PriorityClass)}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request comes from."""

    key_id: str
    tenant: str
    roles: frozenset[Role]
    max_priority: PriorityClass
    """Highest class that this client may ask for."""
    usual_priority: PriorityClass
    """Class of a request that asks for none: the default class, or a lower one where only that is allowed."""
    data: bool = True
    """It may use the data plane; `Role.DATA in roles`, asked for every request."""


class Keyring:
    """The keys of one configuration. Made anew with each version; nothing to close."""

    def __init__(self, auth: AuthConfig) -> None:
        self._keys: dict[bytes, ApiKeyConfig] = {bytes.fromhex(key.sha256): key for key in auth.keys}
        self._trust_tenant_header = auth.trust_tenant_header
        self._remembered: dict[tuple[bytes | None, bytes | None], Identity] = {}
        self.roles: frozenset[Role] = frozenset(role for key in auth.keys for role in key.roles)
        """Roles that some key opens; the control plane needs a key as soon as one opens it."""

    def __repr__(self) -> str:
        return f"<Keyring {len(self._keys)} keys>"

    def identify(self, bearer: bytes | None, tenant_header: bytes | None) -> Identity | GatewayError:
        """Say who brings this credential; the error is returned, not raised.

        Without keys everybody is `anonymous` and may use the data plane. The tenant header counts only where it is trusted,
        and never for a key that is bound to a tenant.
        """
        if not self._keys:
            bearer = None
        if not self._trust_tenant_header:
            tenant_header = None
        remembered = self._remembered
        known = remembered.get((bearer, tenant_header))
        if known is not None:
            return known
        key = None
        if self._keys:
            if not bearer:
                return ClientError(Code.UNAUTHENTICATED, "an api key is needed, send it as 'authorization: Bearer <key>'")
            key = self._keys.get(sha256(bearer).digest())
            if key is None:
                return ClientError(Code.UNAUTHENTICATED, "the api key is not known here")
        tenant = None
        if tenant_header:
            if _TENANT.fullmatch(tenant_header) is None:
                return ClientError(Code.INVALID_REQUEST, "the tenant header must be 1 to 128 visible ascii characters")
            tenant = tenant_header.decode("ascii")
        if len(remembered) >= MAX_REMEMBERED:
            del remembered[next(iter(remembered))]
        identity = remembered[bearer, tenant_header] = _identity(key, tenant)
        return identity


def _identity(key: ApiKeyConfig | None, header_tenant: str | None) -> Identity:
    if key is None:
        tenant = header_tenant or ANONYMOUS
        return Identity(ANONYMOUS, tenant, frozenset({Role.DATA}), PriorityClass.INTERACTIVE, PriorityClass.DEFAULT)
    usual = max(PriorityClass.DEFAULT, key.max_priority, key=_RANK.__getitem__)
    tenant = key.tenant or header_tenant or key.id
    return Identity(key.id, tenant, frozenset(key.roles), key.max_priority, usual, Role.DATA in key.roles)
