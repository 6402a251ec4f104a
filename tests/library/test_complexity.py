"""How hard a task is: by counting, by asking a model, and by a function of the caller's."""

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.selection.complexity import ComplexityEstimate
from gatewright_library import (
    TaskComplexity,
    estimate_task_complexity_llm,
    heuristic_complexity_estimator,
    heuristic_estimate,
)
from gatewright_library.complexity import estimate_with
from tests.support.upstream import Upstream, reply

EASY = TaskComplexity.TRIVIAL, TaskComplexity.SIMPLE


@dataclass
class Spec:
    name: str
    docstring: str


def test_formatting_is_trivial():
    spec = Spec("format_text", "Simple formatting")
    assert heuristic_complexity_estimator(spec, {"text": "hi"}) is TaskComplexity.TRIVIAL


def test_extraction_from_a_short_text_is_easy():
    spec = Spec("extract_values", "Extract from text")
    assert heuristic_complexity_estimator(spec, {"text": "short input"}) in EASY


def test_reasoning_over_much_text_is_not_easy():
    spec = Spec("analyze_multi_step_reasoning", "Complex multi-step synthesis")
    estimate = heuristic_estimate(spec, {"data": "x" * 3000})
    assert estimate.complexity.level >= TaskComplexity.MODERATE.level
    assert estimate.dimensions


@given(
    st.sampled_from(["format_text", "extract", "analyze_causes", "prove"]),
    st.dictionaries(st.sampled_from("abcdef"), st.text(max_size=400), max_size=4),
    st.text(alphabet="word. ", max_size=4000),
)
def test_more_input_is_never_easier(name, inputs, more):
    before = heuristic_complexity_estimator(name, inputs).level
    assert heuristic_complexity_estimator(name, {**inputs, "more": more}).level >= before
    # Apart from what is there: "then" with a letter more is no "then".
    longer = {key: f"{value} {more}" for key, value in inputs.items()}
    assert heuristic_complexity_estimator(name, longer).level >= before


@pytest.mark.parametrize("inputs", [None, {}, "plain text", {"deep": [[["x"]]]}, {"bytes": b"x"}])
def test_inputs_may_be_anything(inputs):
    assert isinstance(heuristic_complexity_estimator("classify", inputs), TaskComplexity)


# --- a model is asked


def test_a_model_says_how_hard_it_is():
    asked = []

    def backend(messages, model):
        asked.append((messages, model))
        return '{"complexity": "expert", "reason": "proofs"}'

    spec = Spec("format_text", "Simple formatting")
    found = estimate_task_complexity_llm(spec, {"text": "hi"}, model="judge", llm_backend=backend)
    assert found is TaskComplexity.EXPERT
    ((messages, model),) = asked
    assert model == "judge"
    assert "format_text" in str(messages)
    assert "Simple formatting" in str(messages)


@pytest.mark.parametrize("answer", ["", "no idea", None, 7, b"complex", '{"complexity": "purple"}'])
def test_an_answer_that_says_nothing_is_made_good_by_the_heuristic(answer):
    spec = Spec("format_text", "Simple formatting")
    found = estimate_task_complexity_llm(spec, {"text": "hi"}, llm_backend=lambda *_: answer)
    assert found is TaskComplexity.TRIVIAL


def test_a_backend_that_fails_is_made_good_by_the_heuristic():
    def backend(_messages, _model):
        raise ConnectionError("down")

    spec = Spec("format_text", "Simple formatting")
    assert estimate_task_complexity_llm(spec, {"text": "hi"}, llm_backend=backend) is TaskComplexity.TRIVIAL


def test_a_backend_that_hangs_is_not_waited_for():
    release = threading.Event()

    def backend(_messages, _model):
        release.wait(60)
        return "expert"

    try:
        found = estimate_task_complexity_llm("format_text", {}, llm_backend=backend, timeout_s=0.05)
    finally:
        release.set()
    assert found is heuristic_complexity_estimator("format_text", {})


def test_the_provider_of_a_preset_is_asked(monkeypatch):
    body = (
        b'{"id":"x","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,'
        b'"finish_reason":"stop","message":{"role":"assistant","content":"complex"}}]}'
    )
    with Upstream(lambda connection, _head, _body: connection.sendall(reply(body))) as upstream:
        monkeypatch.setattr(
            "gatewright_library.calling.OpenAICaller._settings",
            lambda _self, _provider: {"base_url": upstream.url + "/v1", "api_key": "k", "max_retries": 0},
        )
        assert estimate_task_complexity_llm("format_text", {"text": "hi"}) is TaskComplexity.COMPLEX
        assert b'"gpt-4o-mini"' in upstream.requests[0][1]


def test_an_unknown_model_is_made_good_by_the_heuristic():
    found = estimate_task_complexity_llm("format_text", {"text": "hi"}, model="nobody")
    assert found is heuristic_complexity_estimator("format_text", {"text": "hi"})


# --- the caller's own function


def test_an_estimator_may_give_a_level_its_name_or_an_estimate():
    estimate = ComplexityEstimate(complexity=TaskComplexity.EXPERT, score=0.99)
    for said in (TaskComplexity.EXPERT, "expert", estimate):
        found = estimate_with(lambda _task, _inputs, said=said: said, "format_text", {})
        assert found.complexity is TaskComplexity.EXPERT
    assert estimate_with(lambda *_: "expert", "format_text", {}).estimator == "<lambda>"


@pytest.mark.parametrize("said", ["purple", None, 3])
def test_an_estimator_that_says_nothing_is_made_good_by_the_heuristic(said, caplog):
    found = estimate_with(lambda *_: said, "format_text", {})
    assert found == heuristic_estimate("format_text", {})
    assert "the heuristic takes its place" in caplog.text
