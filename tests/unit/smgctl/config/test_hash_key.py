import hashlib
import json

import pytest
import yaml

from gateway.config.load import ConfigSource
from tests.support.cli import Smgctl

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_key_is_hashed(smgctl: Smgctl) -> None:
    """The entry can be pasted into the configuration; the line end of the input is not part of the key."""
    result = smgctl("config", "hash-key", "--id", "ops", "--role", "admin", "--role", "data", stdin="abc\n")
    assert result.exit_code == 0
    assert result.output == f"auth:\n  keys:\n    - id: ops\n      sha256: {ABC}\n      roles: [admin, data]\n"
    (key,) = ConfigSource().load_text(result.output).auth.keys
    assert (key.id, key.sha256, key.roles) == ("ops", ABC, ("admin", "data"))


def test_a_key_is_made(smgctl: Smgctl) -> None:
    """It is shown once, is different each time, and belongs to the hash."""
    results = [smgctl("config", "hash-key", "--generate") for _ in range(2)]
    keys = [result.output.splitlines()[0].removeprefix("# the key, shown only now: ") for result in results]
    assert keys[0] != keys[1]
    assert all(key.startswith("smg-") and len(key) == 47 for key in keys)
    entry = yaml.safe_load(results[0].output)["auth"]["keys"][0]
    assert entry == {"id": "key-1", "sha256": hashlib.sha256(keys[0].encode()).hexdigest(), "roles": ["data"]}


def test_the_entry_is_printed_as_json(smgctl: Smgctl) -> None:
    """With the key only where it was made here."""
    assert json.loads(smgctl("config", "hash-key", "--json", stdin="abc").output) == {"id": "key-1", "sha256": ABC, "roles": ["data"]}
    assert json.loads(smgctl("config", "hash-key", "--json", "--generate").output)["key"].startswith("smg-")


@pytest.mark.parametrize(
    ("args", "stdin", "said"),
    [
        ((), "\n", "error: the key is empty\n"),
        (("--role", "boss"), "abc", "error: --role: input should be 'data', 'view' or 'admin'\n"),
        (("--id", "a b"), "abc", "error: --id: string should match pattern '^[A-Za-z0-9._-]{1,64}$'\n"),
    ],
)
def test_what_makes_no_entry_is_2(smgctl: Smgctl, args: tuple[str, ...], stdin: str, said: str) -> None:
    """An empty key, an unknown role and a strange id are refused."""
    result = smgctl("config", "hash-key", *args, stdin=stdin)
    assert (result.exit_code, result.output, result.errors) == (2, "", said)
