import pytest

from gatewright.configuration.schema import config_warnings, read_config
from tests.support.configs import remote_model
from tests.support.routes import MODELS, read, warnings


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        (
            {"tags": ["eu", "us"]},
            'no model of this file has the tag "us"; only registered models can answer to it',
        ),
        (
            {"criteria": {"max_cost_per_1k": 0.0001, "min_context": 9000}},
            (
                "no candidate meets its criteria: big (cost: 0.00625 above 0.0001), small (cost: 0.000375 above 0.0001), "
                "qwen (context: 4096 below 9000); only registered models can answer"
            ),
        ),
        (
            {"criteria": {"tags": ["us"]}, "tags": ["eu"]},
            "no candidate meets its criteria: big (tags: no us); only registered models can answer",
        ),
        (
            {"criteria": {"tags": ["us"]}, "candidates": ["big"]},
            "no candidate meets its criteria: big (tags: no us); every request will be refused",
        ),
        (
            {"criteria": {"tags": ["us"]}, "candidates": ["big", "small"], "relax": ["tags"]},
            "no candidate meets its criteria: big (tags: no us), small (tags: no us); it depends on relax",
        ),
    ],
)
def test_routes_that_are_hardly_meant(fields, warning):
    assert f"routes.auto: {warning}" in warnings(*MODELS, **fields)


def test_without_a_store_nobody_else_can_be_registered():
    config = read_config(
        {
            "server": {},
            "models": list(MODELS),
            "routes": {"auto": {"criteria": {"capabilities": ["agent"], "min_context": 10**9}}},
            "store": {"enabled": False},
        }
    )
    (warning,) = config_warnings(config)
    assert warning.endswith("; every request will be refused")


def test_routes_without_suspicions():
    assert warnings(*MODELS, prefer="cost") == ()
    assert warnings(*MODELS, criteria={"min_context": 8000, "tags": ["eu"]}, prefer="quality") == ()


def test_cost_counts_where_nothing_has_a_price():
    free = [remote_model(name=name) for name in ("a", "b")]
    text = "routes.auto: cost counts much, but none of its candidates has prices: all seem free"
    assert warnings(*free, prefer="cost") == (text,)
    assert warnings(*free, prefer="speed") == ()


def test_what_is_learnt_is_forgotten_without_a_store():
    raw = {
        "server": {},
        "models": list(MODELS),
        "store": {"enabled": False},
        "routes": {"auto": {"estimator": "learned"}},
    }
    assert config_warnings(read_config(raw)) == (
        "routes.auto: learns from outcomes, and store.enabled is false: they are forgotten at every start",
    )


def test_more_stop_sequences_than_openai_takes():
    found = config_warnings(read(remote_model(transform={"stop": list("abcde")})))
    assert found == ("gpt: transform: 5 stop sequences, and OpenAI takes 4 together with the client's",)
