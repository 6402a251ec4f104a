"""From the task to the answer: selected, called, helped along after failures, recorded."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from gatewright_library import (
    AnswerRejected,
    Budget,
    BudgetExceeded,
    ConfiguredFallbacks,
    Executor,
    ExperienceStore,
    FallbackExhausted,
    ModelAnswer,
    ModelConfig,
    ModelNotFound,
    ModelSelector,
    SelectionCriteria,
    TaskComplexity,
    TokenManager,
)
from tests.library.steady import Steady


@dataclass
class Spec:
    name: str
    docstring: str


SPEC = Spec("extract", "Extract the values")
INPUTS = {"text": "a=1"}
MODELS = [
    ModelConfig("best", quality_score=0.95, cost_per_1k_input=0.002, cost_per_1k_output=0.004),
    ModelConfig("second", quality_score=0.9, cost_per_1k_input=0.002, cost_per_1k_output=0.004),
    ModelConfig("third", quality_score=0.85, cost_per_1k_input=0.002, cost_per_1k_output=0.004),
]


@pytest.fixture
def selector(store):
    return ModelSelector(store, MODELS, default_model="third")


@pytest.fixture
def steady(store):
    return Steady(store, MODELS, default_model=MODELS[-1].name)


class Calls:
    """Answers by model: a value, or an error to raise; the same each time, or one after the other."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.models: list[str] = []

    def __call__(self, model: ModelConfig, _task: object, _inputs: object) -> Any:
        self.models.append(model.name)
        answer = self.answers[model.name]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def executor(selector, call: Callable[..., Any], **settings: Any) -> Executor:
    return Executor(selector, call=call, sleep=settings.pop("sleep", lambda _: None), **settings)


def both_ways(make: Callable[[], Executor]) -> list[Callable[..., Any]]:
    """The executor's `run`, and its `arun` in an event loop."""
    return [
        lambda *given: make().run(*given),
        lambda *given: asyncio.run(make().arun(*given)),
    ]


def test_a_task_is_done_by_the_best_model_and_recorded(selector, store):
    answer = ModelAnswer(text="1", prompt_tokens=1000, completion_tokens=500)
    for run in both_ways(lambda: executor(selector, Calls(best=answer))):
        result = run(SPEC, INPUTS)
        assert result.answer is answer
        assert str(result) == "1"
        assert result.model == result.selection.selected_model == "best"
        assert result.failed_attempts == ()
        assert result.cost_usd == pytest.approx(0.004)
        assert (result.prompt_tokens, result.completion_tokens) == (1000, 500)
        assert isinstance(result.complexity, TaskComplexity)
        assert result.latency_ms >= 0
    found = store.get_performance("best", "extract")
    assert (found.total_calls, found.successful_calls) == (2, 2)
    assert found.total_cost == pytest.approx(0.008)


def test_another_model_is_asked_where_one_fails(steady, store):
    for run in both_ways(lambda: executor(steady, Calls(best=ValueError("no JSON"), second="ok"))):
        result = run(SPEC, INPUTS)
        assert (result.answer, result.model) == ("ok", "second")
        assert [(each.model, each.kind) for each in result.failed_attempts] == [("best", "ValueError")]
    assert store.get_performance("best", "extract").success_rate == 0.0
    assert store.get_performance("second", "extract").success_rate == 1.0


def test_a_model_that_cannot_be_reached_is_tried_again_and_not_thought_worse_of(selector, store):
    waits: list[float] = []
    calls = Calls(best=ConnectionRefusedError("down"), second="ok")
    result = executor(selector, calls, sleep=waits.append).run(SPEC, INPUTS)
    assert calls.models == ["best", "best", "second"]
    assert len(waits) == 1
    assert 0.25 <= waits[0] <= 0.5
    assert result.model == "second"
    assert store.get_performance("best", "extract") is None


def test_what_is_over_soon_is_waited_for(selector, monkeypatch):
    monkeypatch.setattr("gatewright_library.fallback.FIRST_BACKOFF_S", 0.001)
    for run in both_ways(lambda: executor(selector, Calls(best=[ConnectionResetError(), "ok"]))):
        assert run(SPEC, INPUTS).model == "best"


def test_where_all_fail_the_first_cause_is_told(steady):
    first = ValueError("first")
    for run in both_ways(
        lambda: executor(steady, Calls(best=first, second=KeyError("x"), third=TimeoutError("slow")))
    ):
        with pytest.raises(FallbackExhausted, match="3 attempts with 3 models failed; first best") as caught:
            run(SPEC, INPUTS)
        assert caught.value.__cause__ is first
        assert [each.model for each in caught.value.attempts] == ["best", "second", "third"]


def test_what_no_other_model_would_answer_ends_at_once(selector, store):
    calls = Calls(best=type("BadRequest", (Exception,), {"status_code": 400})("bad request"))
    with pytest.raises(FallbackExhausted):
        executor(selector, calls).run(SPEC, INPUTS)
    assert calls.models == ["best"]
    assert store.get_performance("best", "extract") is None


def test_without_a_chain_the_calls_own_error_is_raised_and_still_recorded(steady, store):
    error = ValueError("x")
    for run in both_ways(lambda: executor(steady, Calls(best=error, second="ok"), use_fallback_chain=False)):
        with pytest.raises(ValueError, match="x") as caught:
            run(SPEC, INPUTS)
        assert caught.value is error
    assert store.get_performance("best", "extract").total_calls == 2


def test_attempts_and_models_are_limited(selector):
    calls = Calls(best=ValueError(), second=ValueError(), third="ok")
    with pytest.raises(FallbackExhausted, match="2 attempts"):
        executor(selector, calls, max_attempts=2).run(SPEC, INPUTS)
    assert (
        executor(selector, Calls(best=ValueError(), third="ok"), max_length=2).run(SPEC, INPUTS).model
        == "third"
    )


def test_strategies_may_name_models_of_which_nothing_is_known(selector):
    calls = Calls(best=ValueError("x"))
    with pytest.raises(FallbackExhausted) as caught:
        executor(selector, calls, strategies=[ConfiguredFallbacks(["nobody"])]).run(SPEC, INPUTS)
    assert [each.kind for each in caught.value.attempts] == ["ValueError", "ModelNotFound"]
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_answer_that_is_not_accepted_counts_as_a_failure_and_costs_what_it_costs(selector, store):
    answers = Calls(best=ModelAnswer(text="", prompt_tokens=1000, completion_tokens=0), second="good")
    result = executor(selector, answers, accept=lambda answer: str(answer) == "good").run(SPEC, INPUTS)
    assert result.model == "second"
    assert [each.kind for each in result.failed_attempts] == [AnswerRejected.__name__]
    assert result.cost_usd > 0.002
    assert store.get_performance("best", "extract").total_cost == pytest.approx(0.002)
    assert store.get_performance("best", "extract").success_rate == 0.0


def test_use_is_read_of_whatever_tells_it(selector):
    usage = SimpleNamespace(
        prompt_tokens=100, completion_tokens=10, prompt_tokens_details=SimpleNamespace(cached_tokens=50)
    )
    for answer, expected in (
        (SimpleNamespace(usage=usage), (100, 10)),
        ("word" * 10, (6, 10)),
        (SimpleNamespace(usage=None), (6, 4)),
    ):
        result = executor(selector, Calls(best=answer)).run(SPEC, INPUTS)
        assert result.prompt_tokens == expected[0]
        assert result.completion_tokens >= expected[1]


def test_criteria_are_passed_on(selector):
    criteria = SelectionCriteria(["flying"])
    result = executor(selector, Calls(best="ok")).run(SPEC, INPUTS, criteria)
    assert "capabilities" in result.selection.relaxed


def test_without_a_model_there_is_nothing_to_do(store):
    with pytest.raises(ModelNotFound):
        executor(ModelSelector(store, {}), Calls()).run(SPEC, INPUTS)


def test_an_interruption_is_no_failure_of_the_model(selector, store):
    tokens = TokenManager({model.name: model for model in MODELS}, budgets=[Budget(limit_usd=0.002)])
    with pytest.raises(KeyboardInterrupt):
        executor(selector, Calls(best=KeyboardInterrupt()), token_manager=tokens).run(SPEC, INPUTS)
    assert store.get_performance("best", "extract") is None
    tokens.check_budget("best", 1000)


def test_learning_changes_who_is_asked_first(selector):
    calls = Calls(best=ValueError("never works"), second="ok", third="ok")
    worker = executor(selector, calls)
    for _ in range(15):
        worker.run(SPEC, INPUTS)
    calls.models.clear()
    worker.run(SPEC, INPUTS)
    assert calls.models == ["second"]


def test_an_answer_is_worth_more_than_its_record(tmp_path, caplog):
    (tmp_path / "gatewright.db").write_bytes(b"no database" * 100)
    worker = executor(ModelSelector(ExperienceStore(tmp_path), MODELS), Calls(best="ok"))
    assert worker.run(SPEC, INPUTS).answer == "ok"
    assert "was not recorded" in caplog.text


# --- budgets


def test_a_used_up_budget_leads_to_a_cheaper_model(store):
    models = [
        *MODELS,
        ModelConfig("free", "ollama", cost_per_1k_input=0, cost_per_1k_output=0, quality_score=0.3),
    ]
    selector = ModelSelector(store, models)
    tokens = TokenManager(selector.models, budgets=[Budget(limit_usd=0.005)])
    calls = Calls(best=ModelAnswer(text="ok", prompt_tokens=1000, completion_tokens=500), free="ok")
    worker = executor(selector, calls, token_manager=tokens)
    assert worker.run(SPEC, INPUTS, SelectionCriteria(min_quality_threshold=0.2)).model == "best"
    result = worker.run(SPEC, INPUTS, SelectionCriteria(min_quality_threshold=0.2))
    assert result.model == "free"
    assert [each.kind for each in result.failed_attempts] == [BudgetExceeded.__name__]
    assert calls.models == ["best", "free"]
    assert tokens.usage().cost_usd == pytest.approx(0.004)


def test_a_budget_that_allows_nobody_ends_the_task_without_a_call(selector):
    calls = Calls()
    tokens = TokenManager(selector.models, budgets=[Budget(limit_usd=0.0)])
    with pytest.raises(FallbackExhausted) as caught:
        executor(selector, calls, token_manager=tokens).run(SPEC, INPUTS)
    assert isinstance(caught.value.__cause__, BudgetExceeded)
    assert calls.models == []


@pytest.mark.parametrize("own", [None, {"other": ModelConfig("other")}], ids=["no models", "other models"])
def test_budgets_drop_no_model_that_the_selector_knows(selector, own):
    tokens = TokenManager(own, budgets=[Budget(limit_usd=5)])
    worker = executor(selector, Calls(best="ok"), token_manager=tokens)
    assert worker.run(SPEC, INPUTS).failed_attempts == ()
    assert tokens.usage("best").cost_usd > 0
    tokens.set_budget(Budget(limit_usd=0.0, model="best"))
    with pytest.raises(FallbackExhausted):
        worker.run(SPEC, INPUTS)


def test_a_token_manager_knows_the_selector_s_models_as_they_are_now(selector):
    tokens = TokenManager()
    worker = executor(selector, Calls(late="ok"), token_manager=tokens)
    assert tokens.estimate_cost("best", 1000) == pytest.approx(0.002)
    late = ModelConfig("late", cost_per_1k_input=0.5, cost_per_1k_output=0.0)
    selector.models = {"late": late}
    assert tokens.estimate_cost("late", 1000) == pytest.approx(0.5)
    assert tokens.estimate_cost("gpt-4o", 1000) == pytest.approx(0.0025)
    assert worker.run(SPEC, INPUTS, SelectionCriteria(max_cost_per_1k_tokens=None)).model == "late"
    with pytest.raises(ModelNotFound):
        tokens.check_budget("best")


def test_prices_of_a_token_manager_s_own_count(selector):
    dear = ModelConfig("best", cost_per_1k_input=7.0)
    tokens = TokenManager({"best": dear}, budgets=[Budget(limit_usd=0.0001)])
    calls = Calls(second="ok")
    with pytest.raises(FallbackExhausted):
        executor(selector, calls, token_manager=tokens).run(SPEC, INPUTS)
    assert tokens.estimate_cost("best", 1000) == pytest.approx(7.0)


def test_a_budget_goes_by_the_name_under_which_a_model_is_chosen(store):
    selector = ModelSelector(store, {"fast": MODELS[0], "slow": ModelConfig("x", cost_per_1k_input=0.0001)})
    tokens = TokenManager(budgets=[Budget(model="fast", limit_usd=0.0)])
    worker = executor(selector, lambda model, *_: model.name, token_manager=tokens)
    assert worker.run(SPEC, INPUTS).model == "slow"
    assert tokens.estimate_cost("fast", 1000) == pytest.approx(0.002)
    assert set(tokens.usage_by_model()) == {"slow"}


def test_threads_never_overspend(selector):
    tokens = TokenManager(selector.models, budgets=[Budget(limit_usd=0.1)])
    answer = ModelAnswer(text="ok", prompt_tokens=100, completion_tokens=256)
    worker = executor(selector, lambda *_: answer, token_manager=tokens)

    def work(_):
        try:
            worker.run(SPEC, INPUTS)
        except FallbackExhausted:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(work, range(160)))
    assert 0 < done < 160
    assert tokens.usage().calls == done
    # Each call's prompt is estimated too low, by no more than the 100 tokens that it has.
    assert tokens.usage().cost_usd <= 0.1 + 8 * 0.0002


# --- threads and event loops


def test_threads_share_an_executor(selector, store):
    barrier = threading.Barrier(6)
    worker = executor(selector, lambda model, _task, inputs: f"{model.name}:{inputs['number']}")

    def work(number):
        barrier.wait(30)
        return worker.run(SPEC, {"number": number}).answer

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(work, range(6)))
    assert answers == [f"best:{number}" for number in range(6)]
    assert store.get_performance("best", "extract").total_calls == 6


def test_coroutine_functions_are_waited_for_at_once(selector, store):
    async def main():
        arrived: list[int] = []
        all_arrived = asyncio.Event()

        async def call(model, _task, inputs):
            arrived.append(inputs["number"])
            if len(arrived) == 10:
                all_arrived.set()
            await all_arrived.wait()  # none ends before all have begun
            return model.name

        worker = Executor(selector, call=call)
        return await asyncio.gather(*(worker.arun(SPEC, {"number": number}) for number in range(10)))

    results = asyncio.run(asyncio.wait_for(main(), 60))
    assert [result.answer for result in results] == ["best"] * 10
    assert store.get_performance("best", "extract").total_calls == 10


def test_a_plain_function_does_not_stop_the_event_loop(selector):
    release = threading.Event()

    async def main():
        worker = executor(selector, lambda *_: release.wait(30))
        running = asyncio.create_task(worker.arun(SPEC, INPUTS))
        await asyncio.sleep(0)
        release.set()  # were the loop stopped, nobody would
        return await running

    assert asyncio.run(main()).answer is True


def test_a_function_may_give_something_to_wait_for(selector):
    async def later(name):
        return name

    assert asyncio.run(executor(selector, lambda model, *_: later(model.name)).arun(SPEC)).answer == "best"


def test_a_coroutine_function_cannot_be_run_without_an_event_loop(selector):
    async def call(_model, _task, _inputs):
        return "ok"

    class Callable_:  # noqa: N801
        async def __call__(self, _model: object, _task: object, _inputs: object) -> str:
            return "ok"

    for each in (call, Callable_()):
        with pytest.raises(TypeError, match=r"await executor\.arun"):
            executor(selector, each).run(SPEC, INPUTS)
        assert asyncio.run(executor(selector, each).arun(SPEC, INPUTS)).answer == "ok"

    def plain(model, task, inputs):
        return call(model, task, inputs)

    with pytest.raises(FallbackExhausted) as caught:
        executor(selector, plain).run(SPEC, INPUTS)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_cancelled_task_gives_its_reservation_back_and_records_nothing(selector, store):
    tokens = TokenManager(selector.models, budgets=[Budget(limit_usd=0.002)])

    async def main():
        is_called = asyncio.Event()

        async def call(_model, _task, _inputs):
            is_called.set()
            await asyncio.sleep(3600)

        running = asyncio.create_task(Executor(selector, call=call, token_manager=tokens).arun(SPEC, INPUTS))
        await is_called.wait()
        assert len(tokens._reservations) == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert tokens._reservations == {}
    assert store.get_performance("best", "extract") is None
