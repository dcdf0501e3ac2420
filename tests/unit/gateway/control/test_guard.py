"""Who may use the control plane."""

from hashlib import sha256

import pytest

from gateway.control.guard import is_local_name, is_loopback

from .conftest import Opening

KEYS = """
auth:
  keys:
    - {{id: data, sha256: "{data}", roles: [data]}}
    - {{id: view, sha256: "{view}", roles: [view]}}
    - {{id: ops, sha256: "{admin}", roles: [admin]}}
""".format(**{name: sha256(name.encode()).hexdigest() for name in ("data", "view", "admin")})
PUBLIC = "server: {host: 0.0.0.0}\n"


@pytest.mark.parametrize(
    ("key", "reads", "changes"), [(None, 401, 401), ("wrong", 401, 401), ("data", 403, 403), ("view", 200, 403), ("admin", 200, 202)]
)
@pytest.mark.parametrize("where", ["", PUBLIC])
async def test_keys_open_what_their_role_says(opened: Opening, where: str, key: str | None, reads: int, changes: int) -> None:
    """View reads, admin changes, a data key does neither; on loopback and beyond."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with opened(where + KEYS, base_url="http://gateway.example") as client:
        assert (await client.get("/workers", headers=headers)).status_code == reads
        answer = await client.post("/workers", json={"url": "http://10.0.0.1:1"}, headers=headers)
        assert answer.status_code == changes
        if changes == 401:
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("text", [PUBLIC, PUBLIC + KEYS.rsplit("    - {id: view", 1)[0]], ids=["no key", "data key only"])
async def test_without_a_key_for_it_it_is_closed_beyond_loopback(opened: Opening, text: str) -> None:
    """Reads too; the message says what to do."""
    async with opened(text) as client:
        for path in ("/workers", "/config", "/status"):
            answer = await client.get(path, headers={"authorization": "Bearer data"})
            assert answer.status_code == 403
            assert answer.json()["error"]["message"] == (
                "the control plane is closed: set an api key with the role admin, or listen on 127.0.0.1 only"
            )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:30000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:30000", 200),
        ("[::1]", 200),
        ("attacker.example:30000", 403),
        ("127.0.0.1.attacker.example", 403),
        ("localhost.attacker.example:30000", 403),
        ("127.0.0.1:30000@attacker.example", 403),
        ("", 403),
    ],
)
async def test_a_keyless_control_plane_answers_to_local_names_alone(opened: Opening, host: str, status: int) -> None:
    """A page whose name was made to resolve to 127.0.0.1 cannot use it."""
    async with opened() as client:
        assert (await client.get("/workers", headers={"host": host})).status_code == status


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"])
async def test_a_keyless_control_plane_is_closed_to_what_a_proxy_passes_on(opened: Opening, name: str) -> None:
    """A proxy on this machine speaks for others; with a key its requests are as good as any."""
    async with opened() as client:
        assert (await client.get("/workers", headers={name: "203.0.113.9"})).status_code == 403
        assert (await client.get("/workers")).status_code == 200
    async with opened(KEYS) as client:
        assert (await client.get("/workers", headers={name: "203.0.113.9", "authorization": "Bearer view"})).status_code == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("gateway", False),
    ],
)  # fmt: skip
def test_loopback_addresses(host: str, local: bool) -> None:
    """Only what this machine alone can reach is loopback."""
    assert is_loopback(host) is local


def test_a_port_that_is_no_number_is_no_local_name() -> None:
    """A malformed host header is not trusted."""
    assert not is_local_name("localhost:evil")
