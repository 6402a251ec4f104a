"""A month of traffic for one route in virtual time: models with true chances that nobody knows, and choosers that learn."""

from collections.abc import Callable, Mapping
from functools import cache
from random import Random

from attrs import evolve, field, frozen

from gatewright.accounting.experience import Experience
from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.selection.beliefs import PastOutcomes
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.choosing import choose
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.criteria import ScoringWeights
from gatewright.selection.decision import Decision, Requirements
from gatewright.selection.profiles import ModelProfile, Pricing

DAY_S = 24 * 3600.0
MONTH_S = 30 * DAY_S
WEIGHTS = ScoringWeights(quality=0.8, cost=0.1, latency=0.1, readiness=0.0)
PROMPT_TOKENS, ANSWER_TOKENS = 800, 256


@frozen(kw_only=True)
class TrueModel:
    """A model as it is, and as its profile says.

    Attributes:
        profile: What is said of it.
        skill: Chance at middling difficulty in truth, by task.
        later: The same from the middle of the month on, where it changes.
        latency_ms: Mean time in truth.
        is_there: Share of the calls that its upstream answers.
    """

    profile: ModelProfile
    skill: Mapping[str, float]
    later: Mapping[str, float] = field(factory=dict)
    latency_ms: float = 1000.0
    is_there: float = 1.0

    def chance(self, task: str, complexity: TaskComplexity, now: float) -> float:
        skill = self.skill[task]
        if now >= MONTH_S / 2:
            skill = self.later.get(task, skill)
        return float(skill ** (2.0 ** (complexity.level - 2)))


def model(
    name: str, said: tuple[float, float, float], skills: tuple[float, float, float], **more: object
) -> TrueModel:
    """A model of which quality, price and latency are said, with its true chance at each task."""
    quality, usd, latency_ms = said
    profile = ModelProfile(
        name=name,
        context_tokens=128_000,
        quality=quality,
        latency_ms=latency_ms,
        pricing=Pricing(input_per_million=usd, output_per_million=4 * usd),
    )
    skill = dict(zip(TASKS, skills, strict=True))
    true = TrueModel(profile=profile, skill=skill, latency_ms=latency_ms)
    return evolve(true, **more)


TASKS = ("extract", "write", "code")
MODELS = (
    # The expensive one is as good as it says; the others are better or worse than they say, depending on the task.
    model("large", (0.9, 5.0, 4000.0), (0.92, 0.9, 0.9)),
    model("middle", (0.8, 0.6, 1500.0), (0.94, 0.55, 0.75)),
    model("small", (0.6, 0.05, 500.0), (0.9, 0.5, 0.3), later={"extract": 0.4}),
    model("coder", (0.65, 0.3, 1200.0), (0.5, 0.4, 0.93)),
    model("boaster", (0.88, 1.0, 1500.0), (0.6, 0.6, 0.5), is_there=0.97),
    model("riser", (0.55, 0.2, 800.0), (0.5, 0.5, 0.5), later={"write": 0.93, "extract": 0.93}),
)
BY_NAME = {each.profile.name: each for each in MODELS}
CATALOGUE = Catalogue(each.profile for each in MODELS)


@frozen(kw_only=True)
class Request:
    """One request.

    Attributes:
        at: When it comes.
        task: Its task.
        complexity: How hard it is.
    """

    at: float
    task: str
    complexity: TaskComplexity

    @property
    def requirements(self) -> Requirements:
        return Requirements(
            prompt_tokens=PROMPT_TOKENS,
            answer_tokens=ANSWER_TOKENS,
            task=self.task,
            complexity=ComplexityEstimate(complexity=self.complexity, score=self.complexity.level / 4),
        )

    def true_value(self, name: str) -> float:
        """The score of a model with its true chance, as the weights count it."""
        return WEIGHTS.quality * BY_NAME[name].chance(self.task, self.complexity, self.at) + _rest(name)

    @property
    def best_value(self) -> float:
        return max(self.true_value(name) for name in BY_NAME)


@cache
def _rest(name: str) -> float:
    """The part of a model's score that quality is not in."""
    true = BY_NAME[name]
    profile = evolve(true.profile, quality=0.0, latency_ms=true.latency_ms)
    requirements = Requirements(prompt_tokens=PROMPT_TOKENS, answer_tokens=ANSWER_TOKENS)
    decision = choose(requirements, Catalogue((profile,)), weights=WEIGHTS)
    assert isinstance(decision, Decision)
    return decision.score


def traffic(seed: int, requests: int) -> list[Request]:
    chance = Random(seed)
    times = sorted(chance.random() * MONTH_S for _ in range(requests))
    levels, weights = tuple(TaskComplexity), (3, 4, 4, 2, 1)
    return [
        Request(at=at, task=chance.choice(TASKS), complexity=chance.choices(levels, weights)[0])
        for at in times
    ]


Chooser = Callable[[Request, PastOutcomes | None, Random], Decision]


def static(request: Request, past: PastOutcomes | None, chance: Random) -> Decision:
    """What the profiles say."""
    return _choose(request, None, None)


def always(name: str) -> Chooser:
    """The same model for all requests."""

    def choose_it(request: Request, past: PastOutcomes | None, chance: Random) -> Decision:
        return Decision(chain=(name,))

    return choose_it


def greedy(request: Request, past: PastOutcomes | None, chance: Random) -> Decision:
    return _choose(request, past, None)


def thompson(request: Request, past: PastOutcomes | None, chance: Random) -> Decision:
    return _choose(request, past, chance)


def _choose(request: Request, past: PastOutcomes | None, chance: Random | None) -> Decision:
    decision = choose(
        request.requirements, CATALOGUE, weights=WEIGHTS, past=past, now=request.at, chance=chance
    )
    assert isinstance(decision, Decision)
    return decision


@frozen(kw_only=True)
class Month:
    """What came of a month.

    Attributes:
        regret: By request: how much better the best choice would have been.
        outcomes: What was learnt.
        experience: From that.
    """

    regret: list[float]
    outcomes: list[ModelOutcome]
    experience: Experience

    def regret_between(self, first_day: float, last_day: float) -> float:
        return sum(
            regret
            for regret, outcome in zip(self.regret, self.outcomes, strict=True)
            if first_day * DAY_S <= outcome.at < last_day * DAY_S
        )


def live(chooser: Chooser, requests: list[Request], seed: int) -> Month:
    """A month; half of the answers look well and are corrected by feedback a while later."""
    chance, draws = Random(seed), Random(seed + 1)
    experience = Experience(half_life_s=5 * DAY_S)
    month = Month(regret=[], outcomes=[], experience=experience)
    late: list[tuple[float, Feedback]] = []
    for number, request in enumerate(requests):
        while late and late[0][0] <= request.at:
            experience.take_feedback(late.pop(0)[1])
        decision = chooser(request, experience, draws)
        name = decision.chain[0]
        true = BY_NAME[name]
        is_there = chance.random() < true.is_there
        is_good = chance.random() < true.chance(request.task, request.complexity, request.at)
        is_told_later = chance.random() < 0.5
        outcome = ModelOutcome(
            request_id=f"r{number}",
            model=name,
            success=is_there and (is_good or is_told_later),
            at=request.at,
            task=request.task,
            complexity=request.complexity,
            latency_ms=true.latency_ms * chance.lognormvariate(0, 0.3),
            is_available=is_there,
            propensity=decision.propensity,
        )
        experience.learn(outcome)
        if is_told_later:
            said = Feedback(request_id=outcome.request_id, score=float(is_good), at=request.at + 3600)
            late.append((said.at, said))
        month.regret.append(request.best_value - request.true_value(name))
        month.outcomes.append(outcome)
    return month
