"""`smgctl config hash-key`: make the entry of an API key, which the configuration keeps as a hash."""

from __future__ import annotations

import hashlib
import secrets
import sys
from typing import Annotated

import typer

from smgctl.context import ExitCode, SmgContext
from smgctl.options import Json, examples

EPILOG = examples(
    "smgctl config hash-key --generate --id team-a",
    "smgctl config hash-key --id ops --role admin < key.txt",
)


def hash_key(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Option("--id", metavar="ID", help="Name of the key in logs, metrics and limits.")] = "key-1",
    role: Annotated[
        list[str] | None, typer.Option("--role", metavar="ROLE", help="data, view or admin; repeatable: data unless set.")
    ] = None,
    generate: Annotated[bool, typer.Option("--generate", help="Make a new key and print it, once.")] = False,
    as_json: Json = False,
) -> None:
    """Hash an API key for auth.keys of the configuration. The key is read from standard input, or asked for."""
    from pydantic import ValidationError

    from gateway.config.model import ApiKeyConfig
    from gateway.config.validate import SHA256_OF_NOTHING

    context: SmgContext = ctx.obj
    key = f"smg-{secrets.token_urlsafe(32)}" if generate else _read_key()
    digest = hashlib.sha256(key.encode()).hexdigest()
    if digest == SHA256_OF_NOTHING:
        context.abort("the key is empty", ExitCode.USAGE)
    try:
        entry = ApiKeyConfig.model_validate({"id": key_id, "sha256": digest, "roles": role or ["data"]})
    except ValidationError as error:
        wrong = error.errors()[0]
        context.abort(f"--{wrong['loc'][0]}: {wrong['msg'][:1].lower()}{wrong['msg'][1:]}".replace("--roles", "--role"), ExitCode.USAGE)
    if as_json:
        values = {"id": entry.id, "sha256": entry.sha256, "roles": [str(one) for one in entry.roles]}
        context.out.json(values | ({"key": key} if generate else {}))
        return
    if generate:
        context.out.line(f"# the key, shown only now: {key}")
    context.out.text(
        f"auth:\n  keys:\n    - id: {entry.id}\n      sha256: {entry.sha256}\n      roles: [{', '.join(map(str, entry.roles))}]\n"
    )


def _read_key() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("key", hide_input=True))
    return sys.stdin.readline().rstrip("\r\n")
