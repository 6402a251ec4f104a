"""Estimators: a model that is asked, a Python function; see test_learned_estimator.py for what is learned."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from gatewright.api.facts import ApiFormat, RequestFacts, Wishes
from gatewright.commands import EstimateComplexity
from gatewright.events import ComplexityEstimated, EstimationFailed
from gatewright.ids import CommandId, RequestId
from gatewright.route_config import EstimatorConfig, EstimatorKind
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.signals import PromptSignals
from gatewright_host.estimators import Estimators
from gatewright_host.estimators.asked import AskedModels
from gatewright_host.estimators.custom import CustomEstimators, EstimatorError, Task, read_answer

FACTS = RequestFacts(path="/v1/chat/completions", format=ApiFormat.CHAT)
CANDIDATES = ("weak", "strong")


def command(kind: EstimatorKind, **members: Any) -> EstimateComplexity:
    return EstimateComplexity(
        command_id=CommandId(7),
        request_id=RequestId("r"),
        estimator=EstimatorConfig(kind=kind, **members),
        candidates=CANDIDATES,
    )


def refuse(model: str, body: bytes, timeout_s: float) -> str:
    raise AssertionError("nobody is to be asked")


def ask_for(kind: EstimatorKind, text: str = "hi", ask: Callable[..., str] = refuse, **members: Any) -> Any:
    return Estimators().estimate(command(kind, **members), FACTS, text, ask)


# --- the kinds that ask nobody


def test_the_heuristic_can_be_had_here_too():
    found = ask_for(EstimatorKind.HEURISTIC, "Prove it")
    assert isinstance(found, ComplexityEstimated)
    assert (found.command_id, found.estimate.estimator) == (7, "heuristic")


def test_the_heuristic_looks_at_the_request_s_own_signals():
    facts = evolve(FACTS, signals=PromptSignals(text_characters=10**6, code=500, mathematics=500, steps=500))
    found = Estimators().estimate(command(EstimatorKind.HEURISTIC), facts, "hi", refuse)
    assert isinstance(found, ComplexityEstimated)
    assert found.estimate.score > 0.7


def test_nobody_is_a_failure():
    assert isinstance(ask_for(EstimatorKind.NONE), EstimationFailed)


@pytest.mark.parametrize("kind", [EstimatorKind.MODEL, EstimatorKind.CUSTOM])
def test_an_estimator_without_a_name_fails(kind):
    assert isinstance(ask_for(kind), EstimationFailed)


# --- a model


class Answering:
    """A model; remembers what it was asked."""

    def __init__(self, answer: str = '{"complexity": "complex"}') -> None:
        self.answer = answer
        self.asked: list[tuple[str, Any, float]] = []

    def __call__(self, model: str, body: bytes, timeout_s: float) -> str:
        self.asked.append((model, json.loads(body), timeout_s))
        return self.answer


def test_a_model_is_asked_in_a_chat():
    ask = Answering()
    found = ask_for(EstimatorKind.MODEL, "Prove it", ask, model="tiny", timeout_s=1.5)
    assert isinstance(found, ComplexityEstimated)
    assert (found.estimate.complexity, found.estimate.estimator) == (TaskComplexity.COMPLEX, "model")
    ((model, body, timeout_s),) = ask.asked
    assert (model, body["model"], timeout_s) == ("tiny", "tiny", 1.5)
    assert "Prove it" in body["messages"][-1]["content"]


def test_a_model_is_asked_once_about_each_prompt():
    models, ask = AskedModels(), Answering()
    for text in ("a", "b", "a", "a", "b"):
        models.estimate("tiny", "", text, timeout_s=1, ask=ask)
    assert len(ask.asked) == 2
    models.estimate("other", "", "a", timeout_s=1, ask=ask)
    models.estimate("tiny", "task", "a", timeout_s=1, ask=ask)
    assert len(ask.asked) == 4


def test_of_many_answers_the_latest_used_are_remembered():
    models, ask = AskedModels(most_answers=2), Answering()
    for text in ("a", "b", "a", "c"):
        models.estimate("tiny", "", text, timeout_s=1, ask=ask)
    assert len(ask.asked) == 3
    models.estimate("tiny", "", "a", timeout_s=1, ask=ask)
    assert len(ask.asked) == 3
    models.estimate("tiny", "", "b", timeout_s=1, ask=ask)
    assert len(ask.asked) == 4


def test_a_model_that_names_no_level_fails_and_is_asked_again():
    models, ask = AskedModels(), Answering("no idea")
    for _ in range(2):
        with pytest.raises(EstimatorError, match="tiny named no level: 'no idea'"):
            models.estimate("tiny", "", "a", timeout_s=1, ask=ask)
    assert len(ask.asked) == 2


def test_a_model_that_cannot_be_asked_fails():
    def late(model: str, body: bytes, timeout_s: float) -> str:
        raise TimeoutError

    found = ask_for(EstimatorKind.MODEL, ask=late, model="tiny")
    assert found == EstimationFailed(command_id=CommandId(7), reason="tiny could not be asked: TimeoutError")


def test_a_prompt_with_half_a_character_does_no_harm():
    ask_for(EstimatorKind.MODEL, "\ud800", Answering(), model="tiny")


# --- a function


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"estimator_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import threading\n"
        "from gatewright.selection.complexity import TaskComplexity\n"
        "number = 3\n"
        "held = threading.Event()\n"
        "def by_name(task, inputs):\n"
        "    assert inputs == {'prompt': 'hi'}\n"
        "    assert task.description == ''\n"
        "    return task.name or TaskComplexity.SIMPLE\n"
        "def breaks(task, inputs):\n"
        "    raise ValueError('not\\ntoday')\n"
        "def leaves(task, inputs):\n"
        "    raise SystemExit(3)\n"
        "def hangs(task, inputs):\n"
        "    held.wait(60)\n"
        "class Shelf:\n"
        "    @staticmethod\n"
        "    def half(task, inputs):\n"
        "        return 0.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_function_is_told_task_and_inputs(module):
    estimators = Estimators()
    facts = evolve(FACTS, wishes=Wishes(task="expert"))
    ask = command(EstimatorKind.CUSTOM, function=f"{module}:by_name")
    named, unnamed = (estimators.estimate(ask, told, "hi", refuse) for told in (facts, FACTS))
    assert isinstance(named, ComplexityEstimated)
    assert isinstance(unnamed, ComplexityEstimated)
    assert named.estimate.complexity is TaskComplexity.EXPERT
    assert unnamed.estimate.complexity is TaskComplexity.SIMPLE
    assert named.estimate.estimator == f"{module}:by_name"


def test_a_function_may_be_part_of_something(module):
    found = ask_for(EstimatorKind.CUSTOM, function=f"{module}:Shelf.half")
    assert isinstance(found, ComplexityEstimated)
    assert found.estimate.score == 0.5


def test_thresholds_are_for_numbers(module):
    found = ask_for(EstimatorKind.CUSTOM, function=f"{module}:Shelf.half", thresholds=(0.1, 0.2, 0.3, 0.4))
    assert found.estimate.complexity is TaskComplexity.EXPERT


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("{}:breaks", "{}:breaks raised ValueError: not today"),
        ("{}:leaves", "{}:leaves raised SystemExit: 3"),
        ("{}:absent", "{}:absent cannot be imported: {} has no absent"),
        ("{}:number", "{}:number is no function"),
        ("no_such_module_here:f", "no_such_module_here:f cannot be imported: ModuleNotFoundError"),
        ("no_colon", "'no_colon' must be 'module:function'"),
    ],
)
def test_a_function_that_does_not_work_fails_with_its_reason(module, function, reason):
    found = ask_for(EstimatorKind.CUSTOM, function=function.replace("{}", module))
    assert isinstance(found, EstimationFailed)
    assert found.reason.startswith(reason.replace("{}", module))


def test_a_function_that_hangs_is_not_waited_for_and_many_of_them_are_not_begun(module):
    estimators = CustomEstimators()

    def hang(timeout_s: float = 0.0) -> str:
        with pytest.raises(EstimatorError) as failed:
            estimators.estimate(f"{module}:hangs", Task(""), {}, timeout_s=timeout_s)
        return str(failed.value)

    try:
        assert hang(0.05) == f"{module}:hangs has not returned within 0.05 s"
        assert "16 earlier calls have not returned yet" in [hang() for _ in range(16)][-1]
    finally:
        sys.modules[module].held.set()


GIVEN = ComplexityEstimate(complexity=TaskComplexity.EXPERT, score=0.99, estimator="mine")


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (TaskComplexity.COMPLEX, "complex"),
        ("Moderate ", "moderate"),
        (0, "trivial"),
        (1, "expert"),
        (0.45, "moderate"),
        (GIVEN, "expert"),
    ],
)
def test_answers_of_all_kinds_are_understood(answer, level):
    found = read_answer("m:f", answer)
    assert found.complexity.value == level
    assert found is GIVEN if answer is GIVEN else found.estimator == "m:f"


@pytest.mark.parametrize(
    "answer", [None, True, -0.1, 1.1, float("nan"), "hard-ish", [], {"complexity": "simple"}]
)
def test_other_answers_are_a_failure_that_says_what_is_wanted(answer):
    with pytest.raises(EstimatorError, match="it must return one of 'trivial'"):
        read_answer("m:f", answer)
