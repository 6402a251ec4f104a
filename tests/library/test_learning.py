"""Learning: what is recorded changes the choice, for everybody who shares the directory, and only where it should."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from attrs import evolve

from gatewright_library import (
    DEFAULT_MODELS,
    ExperienceStore,
    Exploration,
    ModelConfig,
    ModelSelector,
    TaskComplexity,
)


@dataclass
class Spec:
    name: str
    docstring: str


SPEC = Spec("extract_values", "Extract values from a text")
INPUTS = {"text": "a short text"}

CHEAP = ModelConfig("cheap", cost_per_1k_input=0.0001, cost_per_1k_output=0.0001, quality_score=0.7)


def record(selector, model, *, success, times=1, task=SPEC.name, complexity=None):
    for _ in range(times):
        selector.record_execution(
            task, model, INPUTS, success=success, latency_ms=500.0, complexity=complexity
        )


def test_what_is_recorded_is_in_the_store(store):
    selector = ModelSelector(store)
    selector.record_execution("extract", "gpt-4o", {"a": "b"}, True, 120.0, 0.002)  # noqa: FBT003  # as in older code
    found = store.get_performance("gpt-4o", "extract")
    assert (found.total_calls, found.success_rate) == (1, 1.0)
    assert (found.avg_latency_ms, found.total_cost) == (120.0, 0.002)


def test_failures_turn_the_choice_to_another_model_and_only_for_that_task(store):
    selector = ModelSelector(store, [CHEAP, evolve(CHEAP, name="twin", cost_per_1k_input=0.0002)])
    assert selector.select(SPEC, INPUTS) == "cheap"
    record(selector, "cheap", success=False, times=12)
    record(selector, "twin", success=True, times=12)
    assert selector.select(SPEC, INPUTS) == "twin"
    record(selector, "cheap", success=True, times=12, task="other")
    record(selector, "twin", success=False, times=12, task="other")
    assert selector.select(SPEC, INPUTS) == "twin"
    assert selector.select(Spec("other", "Another thing"), INPUTS) == "cheap"


def test_another_process_of_the_same_user_goes_by_the_same_experience(tmp_path):
    models = [CHEAP, evolve(CHEAP, name="twin", cost_per_1k_input=0.0002)]
    with ExperienceStore(tmp_path / "e") as one, ExperienceStore(tmp_path / "e") as other:
        first, second = ModelSelector(one, models), ModelSelector(other, models)
        record(first, "cheap", success=False, times=12)
        record(first, "twin", success=True, times=12)
        assert second.select(SPEC, INPUTS) == "twin"


def test_unreachable_models_are_not_thought_worse_of(store):
    selector = ModelSelector(store, [CHEAP, evolve(CHEAP, name="twin", cost_per_1k_input=0.0002)])
    for _ in range(20):
        selector.record_execution(
            SPEC.name, "cheap", INPUTS, success=False, latency_ms=1.0, is_available=False
        )
    assert selector.select(SPEC, INPUTS) == "cheap"
    assert store.get_performance("cheap", SPEC.name) is None


def test_a_call_counts_at_the_level_at_which_its_model_was_selected(store):
    selector = ModelSelector(store)
    level = selector.select_with_details(SPEC, INPUTS).complexity
    assert level is not TaskComplexity.EXPERT
    record(selector, "gpt-4o", success=False, times=20)
    record(selector, "gpt-4o", success=True, times=20, complexity=TaskComplexity.EXPERT)
    now = store._clock()
    with store.beliefs() as experience:
        at_level = experience.success("gpt-4o", "unseen task", level, 0.9, now).mean
        elsewhere = experience.success("gpt-4o", "unseen task", TaskComplexity.EXPERT, 0.9, now).mean
    assert at_level < 0.5 < elsewhere


def test_an_estimator_of_ones_own_is_not_asked_again_for_the_record(store):
    asked = []

    def estimator(task, _inputs):
        asked.append(task)
        return TaskComplexity.EXPERT

    selector = ModelSelector(store, complexity_estimator=estimator)
    selector.select(SPEC, INPUTS)
    record(selector, "gpt-4o", success=True)
    record(selector, "gpt-4o", success=True, task="never selected for")
    assert asked == [SPEC]


def test_a_store_that_is_damaged_stops_no_choice(tmp_path, caplog):
    (tmp_path / "gatewright.db").write_bytes(b"no database" * 100)
    assert ModelSelector(ExperienceStore(tmp_path)).select(SPEC, INPUTS) in DEFAULT_MODELS
    assert "goes by what is known already" in caplog.text


def test_exploring_tries_what_is_not_known(store):
    models = [evolve(CHEAP, name=name, quality_score=quality) for name, quality in (("a", 0.7), ("b", 0.69))]
    greedy = {ModelSelector(store, models).select(SPEC, INPUTS) for _ in range(50)}
    selector = ModelSelector(store, models, exploration=Exploration.THOMPSON, chance=random.Random(1))
    explored = {selector.select(SPEC, INPUTS) for _ in range(50)}
    assert greedy == {"a"}
    assert explored == {"a", "b"}


def test_many_threads_select_and_record_at_once(store):
    selector = ModelSelector(store)
    barrier = threading.Barrier(8)

    def work(number):
        barrier.wait(30)
        for call in range(25):
            name = selector.select(Spec(f"task{number % 3}", "Do it"), {"text": "x" * call})
            assert name in selector.models
            chain = selector.get_fallback_chain(SPEC, INPUTS, max_length=5)
            assert "deepseek-v3" in chain
            if call % 5 == 0:
                selector.models[f"extra{number}"] = ModelConfig(f"extra{number}", quality_score=call / 25)
            selector.record_execution("shared", "gpt-4o", INPUTS, success=call % 2 == 0, latency_ms=1.0)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result(90)
    found = store.get_performance("gpt-4o", "shared")
    assert (found.total_calls, found.successful_calls) == (200, 104)
    assert len(selector.models) == 14
