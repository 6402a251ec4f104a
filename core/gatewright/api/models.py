"""What we answer ourselves: the configured models, health, who we are."""

from typing import Any

import msgspec

from gatewright.config import Config, ModelConfig


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


def list_models(config: Config, created: int = 0) -> dict[str, Any]:
    """All models, in the order of the configuration."""
    return {"object": "list", "data": [model_object(model, created) for model in config.models]}


def find_model(config: Config, model_id: str, created: int = 0) -> dict[str, Any]:
    """One model by name or alias.

    Raises:
        ModelNotFound: There is none of that name.
    """
    return model_object(config.find_model(model_id), created)


def health() -> dict[str, Any]:
    """That we are here, as llama-server says it."""
    return {"status": "ok"}


def banner(version: str) -> dict[str, Any]:
    """Who we are, for people who point a browser at us."""
    return {"name": "gatewright", "version": version, "status": "ok", "models": "/v1/models"}


def encode(document: dict[str, Any]) -> bytes:
    """A document as JSON."""
    return msgspec.json.encode(document)
