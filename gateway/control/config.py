"""`/config` and `/status`: see the configuration in force, change it as a transaction, go back; see the processes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.control.answers import answer
from gateway.control.body import read_object, read_text
from gateway.errors import ClientError, Code
from gateway.processes.port import LeaderPort

_SWITCH = {"": False, "false": False, "0": False, "true": True, "1": True}


class Configuration:
    """The handlers of `/config` and `/status`. Each raises `GatewayError`, or returns an answer."""

    def __init__(self, port: LeaderPort) -> None:
        self._port = port

    async def show(self, request: Request) -> Response:
        """`GET /config`."""
        return answer(await self._port.config())

    async def apply(self, request: Request) -> Response:
        """`PUT /config`, a whole YAML text; with `?dry_run=true` nothing is changed."""
        dry_run = _SWITCH.get(request.query_params.get("dry_run", ""))
        if dry_run is None:
            raise ClientError(Code.INVALID_REQUEST, "dry_run must be true or false", param="dry_run")
        return answer(await self._port.apply_config(await read_text(request), dry_run=dry_run))

    async def rollback(self, request: Request) -> Response:
        """`POST /config/rollback`."""
        await read_object(request)
        return answer(await self._port.rollback())

    async def status(self, request: Request) -> Response:
        """`GET /status`."""
        return answer(await self._port.status())
