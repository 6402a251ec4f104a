"""What we answer ourselves: the configured models, health, who we are."""

from typing import Any

import msgspec

from gatewright.config import Config, ModelConfig
from gatewright.errors import ModelNotFound
from gatewright.route_config import RouteConfig


def model_object(model: ModelConfig, created: int = 0) -> dict[str, Any]:
    """One model in OpenAI's format; `meta` in the manner of llama-server, with what the configuration knows.

    Args:
        model: The model.
        created: Unix time in seconds; clients want a number here.
    """
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "gatewright",
        "aliases": list(model.aliases),
        "meta": {
            "n_ctx": model.largest_context_tokens,
            "variants": [
                {"n_ctx": variant.context_tokens, "parallel": variant.parallel} for variant in model.variants
            ],
        },
    }


def route_object(config: Config, route: RouteConfig, created: int = 0) -> dict[str, Any]:
    """One route, in the place of a model: clients may ask for it by its name just the same.

    Args:
        config: The configuration that it belongs to.
        route: The route.
        created: Unix time in seconds.
    """
    candidates = config.candidates_of(route)
    return {
        "id": route.name,
        "object": "model",
        "created": created,
        "owned_by": "gatewright",
        "aliases": [],
        "meta": {
            "route": True,
            "n_ctx": max((model.largest_context_tokens for model in candidates), default=0),
            "candidates": [model.name for model in candidates],
        },
    }


def list_models(config: Config, created: int = 0) -> dict[str, Any]:
    """All models, in the order of the configuration, and then its routes."""
    models = [model_object(model, created) for model in config.models]
    return {
        "object": "list",
        "data": models + [route_object(config, route, created) for route in config.routes],
    }


def find_model(config: Config, model_id: str, created: int = 0) -> dict[str, Any]:
    """One model by name or alias, or one route.

    Raises:
        ModelNotFound: There is none of that name.
    """
    route = config.find_route(model_id)
    if route is not None:
        return route_object(config, route, created)
    try:
        return model_object(config.find_model(model_id), created)
    except ModelNotFound:
        raise config.not_found(model_id) from None


def health() -> dict[str, Any]:
    """That we are here, as llama-server says it."""
    return {"status": "ok"}


def banner(version: str) -> dict[str, Any]:
    """Who we are, for people who point a browser at us."""
    return {"name": "gatewright", "version": version, "status": "ok", "models": "/v1/models"}


def encode(document: dict[str, Any]) -> bytes:
    """A document as JSON."""
    return msgspec.json.encode(document)
