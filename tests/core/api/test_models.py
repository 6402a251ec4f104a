import pytest

from gatewright.api.models import banner, encode, find_model, health, list_models
from gatewright.config import Config, ModelConfig
from gatewright.engines.spec import EngineSpec
from gatewright.errors import ModelNotFound

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


def test_health_and_banner():
    assert encode(health()) == b'{"status":"ok"}'
    assert banner("1.2")["version"] == "1.2"
