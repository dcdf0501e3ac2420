"""Phase admit: may this request run now. Who asks, within which limits, in which class, at once or after a wait."""

from __future__ import annotations

from gateway.admission.admission import Ticket, Waiting
from gateway.config.model import PriorityClass, Role
from gateway.errors import ClientError, Code, GatewayError, Retry, Source
from gateway.pipeline.context import Exchange
from gateway.runtime import Runtime

_CLASSES = {cls.value.encode(): cls for cls in PriorityClass}
_RANK = {cls: rank for rank, cls in enumerate(PriorityClass)}
_BYTES_A_TOKEN = 4
"""English text has about four bytes a token (OpenAI's help pages); an estimate until the engine has counted."""


def admit(x: Exchange, rt: Runtime) -> Ticket | Waiting | GatewayError:
    """Ask for admission; a `Waiting` calls `x.driver.admitted` later."""
    identity = rt.keyring.identify(x.bearer, x.header(rt.tenant_header) if rt.tenant_header else None)
    if isinstance(identity, GatewayError):
        return identity
    x.identity = identity
    if Role.DATA not in identity.roles:
        return ClientError(Code.FORBIDDEN, "this api key may not be used for inference")
    if rt.draining:
        return GatewayError(Code.DRAINING, "the gateway is shutting down, retry elsewhere", retry_after_s=1.0)
    wanted = x.header(b"x-smg-priority")
    if wanted is not None:
        x.priority = _class(wanted.strip().lower(), identity.max_priority)
    facts = x.facts
    estimate = len(facts.prompt) // _BYTES_A_TOKEN + facts.max_tokens * facts.n
    return rt.admission.enter(identity, x.priority, estimate, x.driver.waker(x))


def _class(wanted: bytes, most: PriorityClass) -> PriorityClass:
    """The class asked for, no higher than allowed; an unknown name is the default class."""
    asked = _CLASSES.get(wanted, PriorityClass.DEFAULT)
    return asked if _RANK[asked] >= _RANK[most] else most


def overloaded(message: str, retry_after_s: float = 1.0) -> GatewayError:
    """The refusal of a gateway that has no room."""
    return GatewayError(Code.OVERLOADED, message, source=Source.GATEWAY, retry=Retry.CLIENT, retry_after_s=retry_after_s)
