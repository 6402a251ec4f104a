"""What is allowed in routes, budgets and transforms and yet hardly meant."""

from collections.abc import Iterator
from typing import Final

from gatewright.accounting.costs import mean_cost_per_1k_tokens
from gatewright.accounting.spending import BudgetConfig, BudgetScope
from gatewright.api.transforms import Transform
from gatewright.config import Config, ModelConfig
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.presets import PROVIDERS
from gatewright.route_config import EstimatorKind, RouteConfig
from gatewright.selection.criteria import SelectionCriteria
from gatewright.selection.profiles import ModelProfile, Pricing

Suspicions = Iterator[tuple[str, str]]
"""Label of what it is about, and the text."""

_MOST_OPENAI_STOPS: Final = 4
_MOST_SHOWN: Final = 5
_COSTLY: Final = 0.3


def choice_warnings(config: Config) -> Suspicions:
    """Suspicions about how models are chosen and paid for, in the order of the configuration."""
    for model in config.models:
        if model.is_remote:
            yield from _transform_warnings(f"{model.name}: transform", model.transform)
    for route in config.routes:
        yield from _route_warnings(config, route)
    for budget in config.budgets:
        yield from _budget_warnings(config, budget)


def _transform_warnings(label: str, transform: Transform | None) -> Suspicions:
    if transform is not None and len(transform.stop) > _MOST_OPENAI_STOPS:
        text = f"{len(transform.stop)} stop sequences, and OpenAI takes {_MOST_OPENAI_STOPS} together with the client's"
        yield label, text


def _route_warnings(config: Config, route: RouteConfig) -> Suspicions:
    label = f"routes.{route.name}"
    known = {tag for model in config.models for tag in model.profile.tags}
    for tag in route.tags:
        if tag not in known:
            yield label, f'no model of this file has the tag "{tag}"; only registered models can answer to it'
    models = config.candidates_of(route)
    if not models:
        return
    fitting = [model for model in models if _fails_on(model, route.criteria) is None]
    if not fitting:
        reasons = [f"{model.name} ({_fails_on(model, route.criteria)})" for model in models[:_MOST_SHOWN]]
        more = f" and {len(models) - _MOST_SHOWN} more" if len(models) > _MOST_SHOWN else ""
        yield (
            label,
            f"no candidate meets its criteria: {', '.join(reasons)}{more}; {_who_else(config, route)}",
        )
    if route.weights.cost >= _COSTLY * _total(route) and not any(map(_has_price, models)):
        yield label, "cost counts much, but none of its candidates has prices: all seem free"
    if not config.store.enabled and (route.experiment is not None or _learns(route)):
        yield label, "learns from outcomes, and store.enabled is false: they are forgotten at every start"


def _who_else(config: Config, route: RouteConfig) -> str:
    """Who can answer for a route none of whose configured candidates can."""
    if route.relax:
        return "it depends on relax"
    # Registered models are kept in the store, and are candidates by their tags, or where a route names nobody.
    if config.store.enabled and (route.tags or not route.candidates):
        return "only registered models can answer"
    return "every request will be refused"


def _total(route: RouteConfig) -> float:
    weights = route.weights
    return weights.quality + weights.cost + weights.latency + weights.readiness


def _learns(route: RouteConfig) -> bool:
    return route.estimator.kind is EstimatorKind.LEARNED


def _has_price(model: ModelConfig) -> bool:
    return model.profile.pricing != Pricing()


def _may_cost_unknown(model: ModelConfig) -> bool:
    """Whether somebody else may send a bill of which nothing is known here.

    Servers that people run themselves send none, on whichever of their machines; a provider without a preset may be anybody,
    even on loopback, where it may be a relay.
    """
    preset = PROVIDERS.get(model.profile.provider)
    is_own = preset is not None and preset.is_local
    return model.is_remote and not is_own and not _has_price(model)


def _fails_on(model: ModelConfig, criteria: SelectionCriteria) -> str | None:
    """The first of the criteria that nothing but another configuration can make true; speed and quality are learnt."""
    profile = model.profile
    return _lacks(profile, criteria) or _exceeds(model, criteria)


def _lacks(profile: ModelProfile, criteria: SelectionCriteria) -> str | None:
    for name, wanted, there in (
        ("capabilities", criteria.required_capabilities, profile.capabilities),
        ("features", criteria.required_features, profile.features),
        ("tags", criteria.required_tags, profile.tags),
    ):
        missing = sorted(wanted - there)
        if missing:
            return f"{name}: no {', '.join(missing)}"
    return None


def _exceeds(model: ModelConfig, criteria: SelectionCriteria) -> str | None:
    cost, limit = mean_cost_per_1k_tokens(model.profile.pricing), criteria.max_cost_per_1k_tokens
    if limit is not None and cost > limit:
        return f"cost: {cost:g} above {limit:g}"
    least, context = criteria.min_context_tokens, model.largest_context_tokens
    if least is not None and context < least and context != UNBOUNDED_CONTEXT_TOKENS:
        return f"context: {context} below {least}"
    return None


def _budget_warnings(config: Config, budget: BudgetConfig) -> Suspicions:
    label = f"budgets.{budget.name}"
    if not config.store.enabled:
        yield label, "store.enabled is false: nobody counts what is spent"
    models = _payers(config, budget)
    unknown = [model.name for model in models if _may_cost_unknown(model)]
    if models and not any(map(_has_price, models)):
        yield label, "none of the models that it is about has prices: nothing is ever spent"
    elif budget.hard and unknown:
        yield (
            label,
            f"calls of {', '.join(unknown)} count nothing: give their input_per_million and output_per_million",
        )


def _payers(config: Config, budget: BudgetConfig) -> tuple[ModelConfig, ...]:
    if budget.of is not None and budget.scope is BudgetScope.MODEL:
        return (config.find_model(budget.of),)
    if budget.of is not None and budget.scope is BudgetScope.ROUTE:
        route = config.find_route(budget.of)
        return () if route is None else config.candidates_of(route)
    if budget.of is not None and budget.scope is BudgetScope.TAG:
        return tuple([model for model in config.models if budget.of in model.profile.tags])
    return config.models
