"""A register of models, and what it raises where there is nobody."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gatewright_library import (
    DEFAULT_MODELS,
    CapabilityNotSupported,
    ModelConfig,
    ModelManager,
    ModelNotFound,
    NoSuitableModel,
    SelectionCriteria,
)

CODER = ModelConfig(
    "coder", capabilities=["code"], cost_per_1k_input=0.05, cost_per_1k_output=0.05, tags=("eu",)
)
WRITER = ModelConfig("writer", capabilities=["creative"])


@pytest.fixture
def manager():
    return ModelManager([CODER, WRITER])


def test_without_models_it_has_the_presets():
    assert ModelManager().models == dict(DEFAULT_MODELS)


def test_models_come_and_go(manager):
    manager.register_model(ModelConfig("third"))
    assert [model.name for model in manager.list_models()] == ["coder", "third", "writer"]
    assert manager.remove_model("third").name == "third"
    with pytest.raises(ModelNotFound, match="third"):
        manager.remove_model("third")
    with pytest.raises(ModelNotFound, match="third"):
        manager.get_model("third")


def test_a_name_is_taken_once(manager):
    with pytest.raises(ValueError, match="pass replace=True"):
        manager.register_model(ModelConfig("coder"))
    manager.register_model(ModelConfig("coder", quality_score=0.1), replace=True)
    assert manager.get_model("coder").quality_score == 0.1


def test_lists_can_be_narrowed(manager):
    manager.register_model(ModelConfig("off", capabilities=["code"], enabled=False))
    assert [model.name for model in manager.list_models(capability="code")] == ["coder", "off"]
    assert [model.name for model in manager.list_models(capability="code", only_enabled=True)] == ["coder"]
    assert manager.list_models(tag="eu") == [CODER]


def test_the_best_that_meets_the_requirements_is_had(manager):
    assert manager.get_model(["code"]) == CODER
    assert manager.get_model(SelectionCriteria(["creative"])) == WRITER
    assert manager.get_model() in {CODER, WRITER}
    assert manager.get_model("writer") is WRITER


def test_an_ability_that_nobody_has_is_an_error_of_its_own(manager):
    with pytest.raises(CapabilityNotSupported, match="flying"):
        manager.get_model(["flying"])
    with pytest.raises(CapabilityNotSupported):
        manager.get_model(SelectionCriteria(required_features=["flying"]))


def test_other_criteria_that_nobody_meets_say_who_failed_on_what(manager):
    with pytest.raises(NoSuitableModel, match="coder") as caught:
        manager.get_model(SelectionCriteria(["code"]))
    assert isinstance(caught.value, ModelNotFound)
    assert caught.value.problem.status == 404
    with pytest.raises(NoSuitableModel):
        manager.get_model(task="summarize", inputs={"text": "word" * 40_000})
    with pytest.raises(ModelNotFound):
        ModelManager([]).get_model()


def test_threads_may_register_and_read_at_once(manager):
    def work(number):
        for call in range(50):
            manager.register_model(ModelConfig(f"m{number}-{call}"))
            assert manager.get_model(["code"]).name == "coder"
            if call % 2:
                manager.remove_model(f"m{number}-{call}")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, number) for number in range(4)]:
            done.result(60)
    assert len(manager.models) == 2 + 4 * 25
