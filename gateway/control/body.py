"""Reads the bodies of the control plane: bounded, of the declared type, and every mistake with the path of its field.

A body must say what it is (`content-type: application/json`): a web page of somebody else can send a form or plain text to
the gateway without asking, but not that.
"""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from gateway.config.mistake import dotted
from gateway.config.model import WorkerConfig
from gateway.errors import ClientError, Code

MAX_BODY_BYTES = 1 << 20
JSON = ("application/json",)
YAML = ("application/yaml", "application/x-yaml", "text/yaml", "application/json")
"""JSON is YAML."""

_IGNORED = {"worker_type": "regular", "connection_mode": "http"}
"""What smg's clients say of every worker that this gateway has; another value is refused."""
_RUNTIMES = {"external": "openai"}


async def read_body(request: Request, types: tuple[str, ...]) -> bytes:
    """Return the body of a request.

    Raises:
        ClientError: `unsupported_media_type` when it is declared as something else, `payload_too_large`, or `client_gone`.
    """
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in types:
        raise ClientError(Code.UNSUPPORTED_MEDIA_TYPE, f"send the body as `content-type: {types[0]}`")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
    except ClientDisconnect as error:
        raise ClientError(Code.CLIENT_GONE, "the client left") from error
    return bytes(body)


async def read_object(request: Request) -> dict[str, Any]:
    """Return a JSON object; an empty body is an empty one.

    Raises:
        ClientError: as `read_body`; `invalid_request` when it is no JSON object.
    """
    body = await read_body(request, JSON)
    if not body:
        return {}
    try:
        value: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ClientError(Code.INVALID_REQUEST, "the body must be a JSON object") from error
    return value


async def read_text(request: Request) -> str:
    """Return a YAML text; raises as `read_body`, and `invalid_request` when it is not UTF-8."""
    try:
        return (await read_body(request, YAML)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClientError(Code.INVALID_REQUEST, f"the body must be UTF-8; byte {error.start} is not") from None


def worker_of(fields: dict[str, Any]) -> WorkerConfig:
    """Return the worker section that a body is, in our words or in those of smg's clients.

    Raises:
        ClientError: `invalid_request`, naming every field that is wrong; `param` is the first.
    """
    fields = dict(fields)
    for name, value in _IGNORED.items():
        if fields.pop(name, value) != value:
            raise ClientError(Code.INVALID_REQUEST, f"{name}: only {value} workers are served here", param=name)
    for name in ("runtime_type", "runtime"):
        if name in fields:
            runtime = fields.pop(name)
            fields.setdefault("engine", _RUNTIMES.get(runtime, runtime) if isinstance(runtime, str) else runtime)
    if isinstance(fields.get("models"), list):
        fields["models"] = [_model_name(model) for model in fields["models"]]
    if fields.get("api_key_env") is not None:
        message = "api_key_env: can be set in the configuration file alone; send `api_key`"
        raise ClientError(Code.INVALID_REQUEST, message, param="api_key_env")
    try:
        return WorkerConfig.model_validate(fields)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        said = [f"{dotted(detail['loc'])}: {detail['msg'].lower()}" for detail in details]
        raise ClientError(Code.INVALID_REQUEST, "; ".join(said[:10]), param=dotted(details[0]["loc"])) from None


def _model_name(model: Any) -> Any:
    """A model may be given by name, or as smg's model card."""
    return model.get("id", model.get("name")) if isinstance(model, dict) else model


def _too_large() -> ClientError:
    return ClientError(Code.PAYLOAD_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes")
