import pytest

from gatewright.api.transforms import Reasoning, Transform
from gatewright.configuration.schema import read_config
from gatewright.errors import ConfigError
from gatewright.route_config import (
    EstimatorConfig,
    EstimatorKind,
    FallbackPolicy,
    FallbackStrategy,
    JudgeConfig,
    RouteConfig,
)
from gatewright.selection.criteria import WEIGHTS, Prefer, Relaxation, ScoringWeights, SelectionCriteria
from gatewright.selection.decision import Exploration
from tests.support.routes import MODELS, only_problem, problems, read, route


def test_no_routes():
    assert read().routes == ()
    assert read_config({"server": {}, "models": list(MODELS)}).routes == ()


def test_an_empty_route_takes_every_default():
    assert route() == RouteConfig(name="auto")
    assert read(auto=[]).routes == (RouteConfig(name="auto"),)


def test_everything_that_a_route_can_say():
    assert route(
        candidates=["gpt", "qwen", "big"],
        tags=["eu"],
        criteria={
            "capabilities": ["code"],
            "features": ["tools", "JSON_SCHEMA"],
            "tags": ["eu"],
            "max_cost_per_1k": 0.01,
            "max_latency_ms": 3000,
            "min_quality": 0.7,
            "min_context": 8000.0,
        },
        weights={"quality": 3, "cost": 1},
        relax=["latency", "cost", "latency"],
        estimator={
            "kind": "model",
            "model": "gpt",
            "timeout": 5,
            "min_outcomes": 50,
            "thresholds": [0.1, 0.2, 0.3, 0.4],
            "weights": {"code": 0.5, "turns": 0},
        },
        exploration="thompson",
        fallback={"strategies": ["retry", "cheaper"], "max_length": 4, "max_attempts": 6},
        transform={"system_prefix": "Be brief.", "reasoning": "off"},
        judge={"model": "gpt", "sample": 0.5, "instructions": "Be strict."},
    ) == RouteConfig(
        name="auto",
        candidates=("big", "qwen"),
        tags=("eu",),
        criteria=SelectionCriteria(
            required_capabilities=frozenset({"code"}),
            required_features=frozenset({"tools", "json_schema"}),
            required_tags=frozenset({"eu"}),
            max_cost_per_1k_tokens=0.01,
            max_latency_ms=3000.0,
            min_quality_threshold=0.7,
            min_context_tokens=8000,
        ),
        weights=ScoringWeights(quality=3.0, cost=1.0, latency=0.0, readiness=0.0),
        relax=(Relaxation.LATENCY, Relaxation.COST),
        estimator=EstimatorConfig(
            kind=EstimatorKind.MODEL,
            model="big",
            timeout_s=5.0,
            min_outcomes=50,
            thresholds=(0.1, 0.2, 0.3, 0.4),
            weights={"code": 0.5, "turns": 0.0},
        ),
        exploration=Exploration.THOMPSON,
        fallback=FallbackPolicy(
            strategies=(FallbackStrategy.RETRY, FallbackStrategy.CHEAPER), max_length=4, max_attempts=6
        ),
        transform=Transform(system_prefix="Be brief.", reasoning=Reasoning.OFF),
        judge=JudgeConfig(model="big", sample=0.5, instructions="Be strict."),
    )


@pytest.mark.parametrize("prefer", Prefer)
def test_preferences_are_presets_of_weights(prefer):
    assert route(prefer=prefer.value).weights == WEIGHTS[prefer]


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [
        ("retry", FallbackPolicy(strategies=(FallbackStrategy.RETRY,))),
        (
            ["cheaper", "retry", "cheaper"],
            FallbackPolicy(strategies=(FallbackStrategy.CHEAPER, FallbackStrategy.RETRY)),
        ),
        (False, FallbackPolicy(strategies=(), max_length=1)),
        ({"max_length": 1}, FallbackPolicy(max_length=1)),
        ({}, FallbackPolicy()),
    ],
)
def test_ways_to_write_a_fallback(fallback, expected):
    assert route(fallback=fallback).fallback == expected


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("learned", EstimatorConfig(kind=EstimatorKind.LEARNED)),
        ("none", EstimatorConfig(kind=EstimatorKind.NONE)),
        ({}, EstimatorConfig()),
        (
            {"kind": "custom", "python": "a.b:C.d"},
            EstimatorConfig(kind=EstimatorKind.CUSTOM, function="a.b:C.d"),
        ),
    ],
)
def test_ways_to_write_an_estimator(estimator, expected):
    assert route(estimator=estimator).estimator == expected


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"candidate": ["gpt"]}, 'routes.auto.candidate: unknown field; did you mean "candidates"?'),
        (
            {"name": "x"},
            "routes.auto.name: the route's name stands before the table: routes = { NAME = { ... } }",
        ),
        (
            {"candidates": ["gtp"]},
            'routes.auto.candidates[1]: got "gtp", expected the name of a model; did you mean "gpt"?',
        ),
        (
            {"candidates": ["auto"]},
            'routes.auto.candidates[1]: got "auto", expected the name of a model; this is a route',
        ),
        (
            {"criteria": {"capabilities": ["cod"]}},
            (
                'routes.auto.criteria.capabilities[1]: got "cod", expected one of "chat", "code", "reasoning", "math", '
                '"extraction", "summarization", "creative", "multilingual", "long_context", "agent", "embedding", "rerank"'
            ),
        ),
        (
            {"criteria": {"min_quality": 7}},
            "routes.auto.criteria.min_quality: got 7, expected a number from 0 to 1",
        ),
        (
            {"prefer": "cost", "weights": {"cost": 1}},
            "routes.auto.weights: stands beside prefer, which is a choice of weights; remove one of them",
        ),
        (
            {"weights": {"cost": 0}},
            "routes.auto.weights: nothing counts; expected at least one of quality, cost, latency, readiness above 0",
        ),
        ({"weights": {"cost": -1}}, "routes.auto.weights.cost: got -1, expected a number, 0 or more"),
        (
            {"estimator": "model"},
            'routes.auto.estimator: "model" needs to know more; expected a table { kind = "model", model = "small" }',
        ),
        (
            {"estimator": {"kind": "custom"}},
            'routes.auto.estimator.python: missing; expected a Python function such as "my_package.my_module:my_function"',
        ),
        ({"estimator": {"model": "gpt"}}, 'routes.auto.estimator.model: only for kind = "model"'),
        (
            {"estimator": {"thresholds": [0.2, 0.2, 0.3, 0.4]}},
            "routes.auto.estimator.thresholds: expected four rising numbers between 0 and 1, such as { 0.2, 0.4, 0.6, 0.8 }",
        ),
        (
            {"estimator": {"thresholds": [0.1, 0.2, 0.3, 1]}},
            "routes.auto.estimator.thresholds[4]: got 1, expected a number between 0 and 1",
        ),
        (
            {"estimator": {"weights": {"cod": 1}}},
            'routes.auto.estimator.weights.cod: unknown field; did you mean "code"?',
        ),
        (
            {"fallback": "again"},
            (
                'routes.auto.fallback: got "again", expected one of "retry", "next_in_ranking", "larger_context", "cheaper", '
                '"configured", "local_when_offline"'
            ),
        ),
        ({"judge": {"sample": 1}}, "routes.auto.judge.model: missing; expected the name of a model"),
        (
            {"transform": {"overrides": {"model": "x"}}},
            "routes.auto.transform.overrides.model: is the client's to say, or decided before; it cannot be set here",
        ),
        (
            {"transform": {"defaults": {"max_tokens": 0}}},
            "routes.auto.transform.defaults.max_tokens: got 0, expected a whole number of tokens above 0, or -1 for no limit",
        ),
        (
            {"transform": {"removals": ["messages"]}},
            (
                'routes.auto.transform.removals[1]: got "messages", expected the name of a parameter that may be left out, '
                'such as "logit_bias"'
            ),
        ),
        (
            {"transform": {"defaults": {"x": {"y": float("inf")}}}},
            "routes.auto.transform.defaults.x.y: got inf, expected a value that JSON has",
        ),
    ],
)
def test_fields_that_are_not_allowed(fields, problem):
    assert only_problem(**fields) == problem


def test_all_that_is_wrong_is_said_at_once():
    found = problems(candidates=["x", 5], prefer="best", criteria={"min_context": 0}, fallback=5)
    assert [line.partition(":")[0] for line in found] == [
        "routes.auto.candidates[1]",
        "routes.auto.candidates[2]",
        "routes.auto.criteria.min_context",
        "routes.auto.prefer",
        "routes.auto.fallback",
    ]


def test_names_of_routes_are_in_the_name_space_of_models():
    with pytest.raises(ConfigError) as caught:
        read(big={}, gpt={}, **{" x": {}})
    assert caught.value.problems == (
        "routes.big: is already the name of a model; requests could mean either",
        'routes.gpt: is already an alias of "big", the name of a model; requests could mean either',
        'routes[" x"]: not a name for a route; expected a name of 1 to 200 printable characters, without spaces around it',
    )


def test_routes_have_names():
    with pytest.raises(ConfigError, match=r"routes: got a list, expected a table with the routes' names"):
        read_config({"server": {}, "models": list(MODELS), "routes": [{}]})
    with pytest.raises(ConfigError, match=r"routes\.auto: got 5, expected a route such as"):
        read(auto=5)


def test_a_route_may_be_the_default():
    raw = {"server": {"default_model": "auto"}, "models": list(MODELS), "routes": {"auto": {}}}
    assert read_config(raw).server.default_model == "auto"
    raw["server"]["default_model"] = "aut"
    with pytest.raises(ConfigError, match='expected the name of a model or route; did you mean "auto"'):
        read_config(raw)


def test_routes_are_checked_without_models():
    with pytest.raises(ConfigError) as caught:
        read_config({"server": {}, "routes": {"auto": {"candidates": ["x"], "prefer": "best"}}})
    assert [line.partition(":")[0] for line in caught.value.problems] == ["models", "routes.auto.prefer"]
