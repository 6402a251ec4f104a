"""What an API key may use."""

from gatewright.api.facts import RequestFacts
from gatewright.config import ModelConfig
from gatewright.errors import ModelNotAllowed, Problem


def may_use(models: frozenset[str], model: ModelConfig) -> bool:
    """Whether a key that is limited to these models may use this one."""
    return model.name in models or not models.isdisjoint(model.aliases)


def refusal_of_key(
    facts: RequestFacts, name: str, *, is_route: bool, model: ModelConfig | None
) -> Problem | None:
    """Why a request's key does not allow what it names; None if it does."""
    key = facts.key
    if key is None:
        return None
    if is_route:
        allowed = key.routes is None or name in key.routes
    else:
        allowed = key.models is None or (model is not None and may_use(key.models, model))
    if allowed:
        return None
    kind = "route" if is_route else "model"
    return ModelNotAllowed(f"The API key '{key.name}' may not use the {kind} '{name}'").problem
