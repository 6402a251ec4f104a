"""Answers that need no engine: health, the models, who we are."""

from importlib.metadata import version
from typing import Any, Final

from gatewright.api.models import banner, encode, find_model, health, list_models
from gatewright.api.routes import Route, RouteKind
from gatewright.wire.fields import Headers
from gatewright_asyncio.service import Service

JSON: Final[Headers] = ((b"content-type", b"application/json"),)

_VERSION: Final = version("gatewright")


def local_document(route: Route, service: Service) -> bytes:
    """The JSON body of a local route's answer.

    Raises:
        ModelNotFound: The route names a model that is not there.
    """
    return encode(_document(route, service))


def _document(route: Route, service: Service) -> dict[str, Any]:
    match route.kind:
        case RouteKind.BANNER:
            return banner(_VERSION)
        case RouteKind.HEALTH:
            return health()
        case RouteKind.MODEL_LIST:
            return list_models(service.config, service.started_at)
        case RouteKind.MODEL:
            return find_model(service.config, route.model_id or "", service.started_at)
        case RouteKind.GENERATE | RouteKind.ENGINE:
            raise AssertionError(f"{route.target} is not answered here")
