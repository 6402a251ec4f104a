"""What servers answer themselves, whatever the engines do: health, the models, who we are, requests that do not arrive."""

from importlib.metadata import version
from typing import Any, Final

from attrs import evolve

from gatewright.api.endpoints import Endpoint, EndpointKind
from gatewright.api.models import banner, encode, find_model, health, list_models
from gatewright.config import Config
from gatewright.errors import InvalidRequest, Problem
from gatewright.wire.fields import Headers

JSON: Final[Headers] = ((b"content-type", b"application/json"),)
LINGER_S: Final = 1.0
"""How long a refused client may go on sending, so that it gets to read the refusal before the reset."""

_VERSION: Final = version("gatewright")


def local_document(endpoint: Endpoint, config: Config, started_at: int) -> bytes:
    """The JSON body of a local endpoint's answer.

    Args:
        endpoint: A local one.
        config: Present configuration.
        started_at: Unix seconds; shown as the models' creation time.

    Raises:
        ModelNotFound: The endpoint names a model that is not there.
    """
    return encode(_document(endpoint, config, started_at))


def _document(endpoint: Endpoint, config: Config, started_at: int) -> dict[str, Any]:
    match endpoint.kind:
        case EndpointKind.BANNER:
            return banner(_VERSION)
        case EndpointKind.HEALTH:
            return health()
        case EndpointKind.MODEL_LIST:
            return list_models(config, started_at)
        case EndpointKind.MODEL:
            return find_model(config, endpoint.model_id or "", started_at)
        case EndpointKind.GENERATE | EndpointKind.ENGINE | EndpointKind.MANAGEMENT | EndpointKind.METRICS:
            raise AssertionError(f"{endpoint.target} is not answered here")


def late_request(what: str, timeout_s: float) -> Problem:
    """A client that does not send what it began.

    Args:
        what: Part of the request: "head" or "body".
        timeout_s: How long it was waited for.
    """
    text = f"the request's {what} did not arrive within {timeout_s:g} s"
    return evolve(InvalidRequest(text).problem, status=408, code="request_timeout")
