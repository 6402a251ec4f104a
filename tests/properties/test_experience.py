"""Experience and experiments: the order of news does not matter, and beliefs are what the definition says they are."""

import math
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gatewright.accounting.experience import STRENGTH, Experience
from gatewright.accounting.experiments import ExperimentBook
from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.pooling import CERTAIN
from gatewright.selection.complexity import TaskComplexity

MODELS, TASKS = ("qwen", "gpt"), ("", "sort", "merge")
COMPLEXITIES = (None, TaskComplexity.SIMPLE, TaskComplexity.MODERATE, TaskComplexity.EXPERT)
DIFFICULTY = {None: 1.0, TaskComplexity.SIMPLE: 0.5, TaskComplexity.MODERATE: 1.0, TaskComplexity.EXPERT: 4.0}
HALF_LIFE_S = 100.0
PRIOR = 0.4
News = ModelOutcome | Feedback

times = st.floats(-1000, 1000)
scores = st.floats(0, 1)
requests = st.integers(0, 5).map(lambda number: f"r{number}")
feedbacks = st.builds(
    Feedback, request_id=requests, score=scores, at=times, by=st.sampled_from(("user", "judge"))
)


@st.composite
def outcomes(draw: st.DrawFn) -> ModelOutcome:
    request_id = draw(requests)
    return ModelOutcome(
        request_id=request_id,
        model=draw(st.sampled_from(MODELS)),
        sequence=draw(st.integers(0, 2)),
        success=draw(st.booleans()),
        at=draw(times),
        task=draw(st.sampled_from(TASKS)),
        complexity=draw(st.sampled_from(COMPLEXITIES)),
        latency_ms=draw(st.none() | st.floats(0, 1e6)),
        cost_usd=draw(st.floats(0, 10)),
        score=draw(st.none() | scores),
        is_available=draw(st.booleans()),
        experiment="prompts",
        # A request is in one arm, for one unit.
        arm="ab"[int(request_id[1:]) % 2],
        unit=(None, "jo", "al")[int(request_id[1:]) // 2],
    )


def key(outcome: ModelOutcome) -> tuple[str, str, int]:
    return outcome.request_id, outcome.model, outcome.sequence


unique_outcomes = st.lists(outcomes(), max_size=12, unique_by=key)


def learnt(news: Iterable[News]) -> tuple[Experience, ExperimentBook]:
    experience, book = Experience(half_life_s=HALF_LIFE_S), ExperimentBook()
    for each in news:
        match each:
            case ModelOutcome():
                experience.learn(each)
                book.learn(each)
            case Feedback():
                experience.take_feedback(each)
                book.take_feedback(each)
    return experience, book


def everything(experience: Experience, book: ExperimentBook) -> list[float]:
    """All that can be seen, as numbers."""
    now = 1000.0
    seen: list[float | None] = []
    for model in MODELS:
        for complexity in COMPLEXITIES:
            for task in TASKS:
                belief = experience.success(model, task, complexity, 0.7, now)
                seen += [belief.alpha, belief.beta, belief.evidence]
            latency = experience.latency(model, complexity, now)
            if latency is not None:
                seen += [latency.mean_ms, latency.p50_ms, latency.p95_ms, latency.evidence]
        for task in (None, "sort", "merge"):
            summary = experience.summary(model, task, now)
            seen += [summary.calls, summary.successes, summary.success_rate, summary.mean_latency_ms]
            seen += [summary.mean_cost_usd, summary.unavailable, summary.last_at]
    for name in "ab":
        arm = book.arm("prompts", name)
        seen += [arm.requests, arm.units, arm.success, arm.timed, arm.latency_ms, arm.cost_usd]
    return [-1.0 if number is None else number for number in seen]


@given(data=st.data(), told=unique_outcomes, said=st.lists(feedbacks, max_size=6))
def test_any_order_with_any_repetitions_ends_the_same(
    data: st.DataObject, told: list[ModelOutcome], said: list[Feedback]
) -> None:
    news: list[News] = [*told, *said]
    again = data.draw(st.lists(st.sampled_from(news), max_size=8)) if news else []
    shuffled = data.draw(st.permutations([*news, *again]))
    in_order = sorted(told, key=lambda outcome: (outcome.at, key(outcome)))
    expected = everything(*learnt([*in_order, *sorted(said, key=lambda each: each.at)]))
    assert everything(*learnt(shuffled)) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@given(st.lists(outcomes() | feedbacks, max_size=20))
def test_a_replay_ends_in_exactly_the_same(news: list[News]) -> None:
    assert everything(*learnt(news)) == everything(*learnt(news))


any_number = st.floats(allow_nan=True, allow_infinity=True)


@given(
    number=st.integers(1, 60),
    score=st.none() | any_number,
    said=any_number,
    latency_ms=any_number,
    step_s=st.floats(-1e9, 1e9),
    prior=st.floats(0, 1),
    now=st.floats(-1e12, 1e12),
)
def test_posteriors_never_leave_0_to_1(
    *,
    number: int,
    score: float | None,
    said: float,
    latency_ms: float,
    step_s: float,
    prior: float,
    now: float,
) -> None:
    experience = Experience()
    for count in range(number):
        experience.learn(
            ModelOutcome(
                request_id=f"r{count}",
                model="qwen",
                success=count % 3 > 0,
                at=count * step_s,
                task="sort",
                complexity=TaskComplexity.SIMPLE,
                score=score if count % 2 else None,
                latency_ms=latency_ms,
            )
        )
        if count % 4 == 0:
            experience.take_feedback(Feedback(request_id=f"r{count // 2}", score=said, at=float(count)))
    for task in TASKS:
        for complexity in COMPLEXITIES:
            belief = experience.success("qwen", task, complexity, prior, now)
            assert belief.alpha > 0
            assert belief.beta > 0
            assert 0 <= belief.mean <= 1
            assert math.isfinite(belief.alpha + belief.beta)
            assert 0 <= belief.evidence <= number + STRENGTH
    latency = experience.latency("qwen", TaskComplexity.SIMPLE, now)
    if latency is not None:
        assert 0 <= latency.p50_ms <= latency.p95_ms
        assert math.isfinite(latency.mean_ms)
    rate = experience.summary("qwen", None, now).success_rate
    assert rate is None or 0 <= rate <= 1


@given(unique_outcomes, outcomes())
def test_a_success_never_makes_a_model_look_worse(told: list[ModelOutcome], more: ModelOutcome) -> None:
    fresh = ModelOutcome(
        request_id="more",
        model=more.model,
        success=True,
        at=more.at,
        task=more.task,
        complexity=more.complexity,
    )
    before, after = learnt(told)[0], learnt([*told, fresh])[0]
    for task in TASKS:
        for complexity in COMPLEXITIES:
            old = before.success(more.model, task, complexity, 0.7, 1000.0).mean
            assert after.success(more.model, task, complexity, 0.7, 1000.0).mean >= old - 1e-9


# --- against the definition


def rank(feedback: Feedback) -> tuple[bool, float, float]:
    return feedback.by == "user", feedback.at, feedback.score


class ExperienceMachine(RuleBasedStateMachine):
    """Outcomes, their repetitions and feedback in any order; beliefs are compared with what the definition gives."""

    def __init__(self) -> None:
        super().__init__()
        self.experience = Experience(half_life_s=HALF_LIFE_S)
        self.told: dict[tuple[str, str, int], ModelOutcome] = {}
        self.said: dict[str, Feedback] = {}
        self.now = 0.0

    @rule(seconds=st.floats(0, 300))
    def pass_time(self, seconds):
        self.now += seconds

    @rule(outcome=outcomes())
    def learn(self, outcome):
        self.experience.learn(outcome)
        self.told.setdefault(key(outcome), outcome)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def hear_again(self, data):
        self.experience.learn(data.draw(st.sampled_from(sorted(self.told.values(), key=key))))

    @rule(feedback=feedbacks)
    def say(self, feedback):
        self.experience.take_feedback(feedback)
        old = self.said.get(feedback.request_id)
        if old is None or rank(feedback) > rank(old):
            self.said[feedback.request_id] = feedback

    def success_of(self, outcome):
        siblings = [
            each for each in self.told.values() if each.request_id == outcome.request_id and each.is_available
        ]
        last = max(siblings, key=lambda each: (each.sequence, each.success, each.at, each.model))
        if outcome is last and outcome.request_id in self.said:
            return self.said[outcome.request_id].score
        return float(outcome.success) if outcome.score is None else outcome.score

    def expected(self, model, task, complexity, now):
        """Level by level, with the outcomes of each that do not belong to the next."""
        of_model = [each for each in self.told.values() if each.model == model]
        now = max([now, *[each.at for each in of_model]])
        own = [each for each in of_model if each.is_available]
        if complexity is None:
            levels = [own]
        else:
            levels = [own, [each for each in own if each.complexity == complexity]]
        if task:
            levels.append([each for each in levels[-1] if each.task == task])
        levels.append([])
        mean = PRIOR
        for coarse, fine in pairwise(levels):
            here = [each for each in coarse if each not in fine]
            mean = self.transferred(mean, complexity, here, now)
            alpha, beta = STRENGTH * mean, STRENGTH * (1 - mean)
            for each in here:
                if DIFFICULTY[each.complexity] == DIFFICULTY[complexity]:
                    weight = 0.5 ** ((now - each.at) / HALF_LIFE_S)
                    alpha += weight * self.success_of(each)
                    beta += weight * (1 - self.success_of(each))
            mean = alpha / (alpha + beta)
        return alpha, beta

    def transferred(self, mean, complexity, here, now):
        """Failures for each unit of difficulty, those of the prior included."""
        mean = min(1 - CERTAIN, max(CERTAIN, mean))
        rate = -math.log(mean) / DIFFICULTY[complexity]
        failures = STRENGTH * (1 - mean)
        way = failures / rate
        others = [each for each in here if DIFFICULTY[each.complexity] != DIFFICULTY[complexity]]
        for each in others:
            weight, difficulty = 0.5 ** ((now - each.at) / HALF_LIFE_S), DIFFICULTY[each.complexity]
            success = self.success_of(each)
            failures += weight * (1 - success)
            way += weight * success * difficulty
            way += weight * (1 - success) * (1 / rate - difficulty / math.expm1(rate * difficulty))
        moved = math.exp(-failures / way * DIFFICULTY[complexity])
        return min(1 - CERTAIN, max(CERTAIN, moved)) if others else mean

    @invariant()
    def beliefs_are_what_the_definition_says(self):
        for model in MODELS:
            for task in TASKS:
                for complexity in COMPLEXITIES:
                    belief = self.experience.success(model, task, complexity, PRIOR, self.now)
                    expected = self.expected(model, task, complexity, self.now)
                    assert (belief.alpha, belief.beta) == pytest.approx(expected, rel=1e-6, abs=1e-6)

    @invariant()
    def counts_are_exact(self):
        for model in MODELS:
            own = [each for each in self.told.values() if each.model == model]
            summary = self.experience.summary(model, None, self.now)
            assert summary.calls == sum(each.is_available for each in own)
            assert summary.unavailable == len(own) - summary.calls
            assert self.experience.has_any(model) == (summary.calls > 0)


TestExperience = ExperienceMachine.TestCase
TestExperience.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
