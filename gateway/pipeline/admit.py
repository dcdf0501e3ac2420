"""Phase admit: may this request run now. Who asks, within which limits, in which class, at once or after a wait."""

from __future__ import annotations

from functools import partial

from gateway.admission.admission import Ticket, Waiting
from gateway.config.model import PriorityClass
from gateway.errors import ClientError, Code, GatewayError
from gateway.pipeline.context import Exchange
from gateway.runtime import Runtime

_CLASSES = {cls.value.encode(): cls for cls in PriorityClass}
_RANK = {cls: rank for rank, cls in enumerate(PriorityClass)}
BYTES_A_TOKEN = 4
"""English text has about four bytes a token (OpenAI's help pages); an estimate until the engine has counted."""


def admit(x: Exchange, rt: Runtime) -> Ticket | Waiting | GatewayError:
    """Ask for admission; a `Waiting` calls `x.driver.admitted` later."""
    identity = rt.keyring.identify(x.bearer, x.tenant_header)
    if isinstance(identity, GatewayError):
        return identity
    x.identity = identity
    if not identity.data:
        return ClientError(Code.FORBIDDEN, "this api key may not be used for inference")
    facts = x.facts
    return rt.admission.enter(
        identity,
        identity.usual_priority if x.wanted_priority is None else _class(x.wanted_priority.strip().lower(), identity.max_priority),
        len(facts.prompt) // BYTES_A_TOKEN + facts.max_tokens * facts.n,
        partial(x.driver.admitted, x),
    )


def _class(wanted: bytes, most: PriorityClass) -> PriorityClass:
    """The class asked for, no higher than allowed; an unknown name is the default class."""
    asked = _CLASSES.get(wanted, PriorityClass.DEFAULT)
    return asked if _RANK[asked] >= _RANK[most] else most
