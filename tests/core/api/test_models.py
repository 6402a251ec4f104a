import pytest
from attrs import evolve

from gatewright.api.models import banner, encode, find_model, health, list_models
from gatewright.config import Config, ModelConfig
from gatewright.engines.spec import EngineSpec
from gatewright.errors import ModelNotFound
from gatewright.route_config import RouteConfig

CONFIG = Config(
    models=(
        ModelConfig(
            name="org/qwen",
            aliases=("qwen",),
            variants=(
                EngineSpec(model="org/qwen", context_tokens=2048, connect="http://x"),
                EngineSpec(model="org/qwen", context_tokens=8192, connect="http://x", parallel=4),
            ),
        ),
        ModelConfig(
            name="other", variants=(EngineSpec(model="other", context_tokens=512, connect="http://y"),)
        ),
    )
)
QWEN = {
    "id": "org/qwen",
    "object": "model",
    "created": 7,
    "owned_by": "gatewright",
    "aliases": ["qwen"],
    "meta": {"n_ctx": 8192, "variants": [{"n_ctx": 2048, "parallel": None}, {"n_ctx": 8192, "parallel": 4}]},
}


def test_the_list_keeps_the_order_of_the_configuration():
    models = list_models(CONFIG, created=7)
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == ["org/qwen", "other"]
    assert models["data"][0] == QWEN


def test_one_model_by_name_or_alias():
    assert find_model(CONFIG, "org/qwen", created=7) == QWEN
    assert find_model(CONFIG, "qwen", created=7) == QWEN
    with pytest.raises(ModelNotFound):
        find_model(CONFIG, "nope")


def test_routes_stand_behind_the_models():
    routed = evolve(
        CONFIG, routes=(RouteConfig(name="auto"), RouteConfig(name="small", candidates=("other",)))
    )
    listed = list_models(routed, created=7)["data"]
    assert [model["id"] for model in listed] == ["org/qwen", "other", "auto", "small"]
    assert listed[2] == {
        "id": "auto",
        "object": "model",
        "created": 7,
        "owned_by": "gatewright",
        "aliases": [],
        "meta": {"route": True, "n_ctx": 8192, "candidates": ["org/qwen", "other"]},
    }
    assert find_model(routed, "small", created=7) == listed[3]
    assert listed[3]["meta"]["n_ctx"] == 512
    assert find_model(routed, "qwen", created=7) == QWEN


def test_health_and_banner():
    assert encode(health()) == b'{"status":"ok"}'
    assert banner("1.2")["version"] == "1.2"
