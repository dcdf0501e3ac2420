"""Who a credential belongs to."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gateway.admission import keyring as module
from gateway.admission.keyring import ANONYMOUS, Identity, Keyring
from gateway.config.model import ApiKeyConfig, AuthConfig, PriorityClass, Role
from gateway.errors import ClientError, Code, GatewayError


def hash_key(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def auth(**more: object) -> AuthConfig:
    return AuthConfig.model_validate(
        {
            "keys": [
                {"id": "app", "sha256": hash_key("sk-app")},
                {"id": "ops", "sha256": hash_key("sk-ops"), "roles": ["admin", "view"], "max_priority": "system"},
                {"id": "batch", "sha256": hash_key("sk-batch"), "tenant": "research", "max_priority": "bulk"},
            ],
            **more,
        }
    )


def test_a_key_is_known_by_its_hash() -> None:
    """The bearer of a configured key gets its id, tenant, roles and highest class."""
    keyring = Keyring(auth())
    assert keyring.identify(b"sk-app", None) == Identity(
        "app", "app", frozenset({Role.DATA}), PriorityClass.INTERACTIVE, PriorityClass.DEFAULT, data=True
    )
    assert keyring.identify(b"sk-ops", None) == Identity(
        "ops", "ops", frozenset({Role.ADMIN, Role.VIEW}), PriorityClass.SYSTEM, PriorityClass.DEFAULT, data=False
    )


def test_a_key_of_a_low_class_runs_in_it_without_asking() -> None:
    """The usual class is never above the highest one that is allowed."""
    identity = Keyring(auth()).identify(b"sk-batch", None)
    assert isinstance(identity, Identity)
    assert (identity.tenant, identity.max_priority, identity.usual_priority) == ("research", PriorityClass.BULK, PriorityClass.BULK)


@pytest.mark.parametrize("bearer", [None, b"", b"sk-ap", b"sk-app ", b"sk-appx", b"\xff\x00", b"app", hash_key("sk-app").encode()])
def test_anything_else_is_refused(bearer: bytes | None) -> None:
    """A missing, wrong or nearly right key is a 401, and so is the hash itself; the answer does not repeat it."""
    error = Keyring(auth()).identify(bearer, None)
    assert isinstance(error, ClientError) and error.code is Code.UNAUTHENTICATED and error.status == 401
    assert "sk-" not in error.message and hash_key("sk-app") not in error.message


def test_without_keys_everybody_is_anonymous() -> None:
    """An open gateway lets any credential through, with the data role alone, and keeps none of them."""
    keyring = Keyring(AuthConfig())
    for bearer in (None, b"", b"sk-of-the-engine", b"another"):
        identity = keyring.identify(bearer, None)
        assert isinstance(identity, Identity)
        assert (identity.key_id, identity.tenant, identity.roles) == (ANONYMOUS, ANONYMOUS, {Role.DATA})
    assert len(keyring._remembered) == 1 and keyring.roles == frozenset()


def test_the_roles_that_keys_open() -> None:
    """The control plane can ask whether some key opens it."""
    assert Keyring(auth()).roles == {Role.DATA, Role.ADMIN, Role.VIEW}


@pytest.mark.parametrize(
    ("trusted", "bearer", "header", "tenant"),
    [
        (False, b"sk-app", b"acme", "app"),
        (True, b"sk-app", b"acme", "acme"),
        (True, b"sk-app", None, "app"),
        (True, b"sk-app", b"", "app"),
        (True, b"sk-batch", b"acme", "research"),
        (True, b"sk-batch", None, "research"),
    ],
)
def test_the_tenant_header(trusted: bool, bearer: bytes, header: bytes | None, tenant: str) -> None:
    """The header names the tenant only where it is trusted, and not for a key that is bound to one."""
    identity = Keyring(auth(trust_tenant_header=trusted)).identify(bearer, header)
    assert isinstance(identity, Identity) and identity.tenant == tenant


def test_an_open_gateway_may_trust_the_header() -> None:
    """Behind a proxy that names the tenant, no key is needed to tell tenants apart."""
    identity = Keyring(AuthConfig(trust_tenant_header=True)).identify(b"whatever", b"acme")
    assert isinstance(identity, Identity) and identity.tenant == "acme" and identity.key_id == ANONYMOUS


@pytest.mark.parametrize("header", [b"a b", b"\xc3\xa9", b"x" * 129, b"a\tb", b"\x00"])
def test_a_malformed_tenant_is_refused(header: bytes) -> None:
    """A trusted header must be a short visible name, since it ends up in logs and tables."""
    error = Keyring(auth(trust_tenant_header=True)).identify(b"sk-app", header)
    assert isinstance(error, GatewayError) and error.code is Code.INVALID_REQUEST


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tenants come, only the latest are remembered, and all are still told apart."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 8)
    keyring = Keyring(auth(trust_tenant_header=True))
    for number in range(100):
        identity = keyring.identify(b"sk-app", b"t%d" % number)
        assert isinstance(identity, Identity) and identity.tenant == f"t{number}"
    assert len(keyring._remembered) == 8


def test_wrong_keys_are_not_remembered() -> None:
    """Guessing fills no memory."""
    keyring = Keyring(auth())
    for number in range(100):
        assert isinstance(keyring.identify(b"guess-%d" % number, None), GatewayError)
    assert not keyring._remembered


def test_keys_do_not_show() -> None:
    """The repr says how many keys there are, not which."""
    assert repr(Keyring(auth())) == "<Keyring 3 keys>"


def test_a_key_is_hashed_as_utf_8() -> None:
    """A key beyond ASCII is known by the hash of its UTF-8 bytes."""
    key = ApiKeyConfig(id="a", sha256=hash_key("p\u00e4ss"))
    assert isinstance(Keyring(AuthConfig(keys=(key,))).identify("p\u00e4ss".encode(), None), Identity)
