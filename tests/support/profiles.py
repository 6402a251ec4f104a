"""Model profiles for tests of choices, and a past that was made up."""

from typing import Any

from attrs import define, field, frozen
from hypothesis import strategies as st

from gatewright.selection.beliefs import Belief, LatencyBelief
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.criteria import ScoringWeights, SelectionCriteria
from gatewright.selection.decision import Requirements
from gatewright.selection.profiles import Capability, Feature, ModelProfile, Pricing


def profile(name="a", *, price=1.0, **fields: Any):
    """A model whose completion tokens cost three times what its prompt tokens cost."""
    pricing = Pricing(input_per_million=price, output_per_million=3 * price)
    return ModelProfile(name=name, **{"context_tokens": 8192, "pricing": pricing, **fields})


def estimate(complexity):
    return ComplexityEstimate(complexity=TaskComplexity(complexity), score=0.5, confidence=0.5)


@frozen
class KnownModel:
    """What is known of one model: successes of outcomes, and a time."""

    successes: float = 0.0
    failures: float = 0.0
    mean_ms: float | None = None


@define
class MadeUpPast:
    """A `PastOutcomes` in which tasks and complexities make no difference."""

    known: dict[str, KnownModel] = field(factory=dict)
    strength: float = 4.0

    def success(self, model, task, complexity, prior, now):  # noqa: ARG002 - as the protocol says
        past = self.known.get(model, KnownModel())
        prior = min(max(prior, 1e-6), 1 - 1e-6)
        return Belief(
            self.strength * prior + past.successes,
            self.strength * (1 - prior) + past.failures,
            past.successes + past.failures,
        )

    def latency(self, model, complexity, now):  # noqa: ARG002 - as the protocol says
        past = self.known.get(model)
        if past is None or past.mean_ms is None:
            return None
        return LatencyBelief(
            mean_ms=past.mean_ms,
            p50_ms=past.mean_ms,
            p95_ms=2 * past.mean_ms,
            evidence=past.successes + past.failures,
        )

    def has_any(self, model):
        return model in self.known

    def models(self):
        return self.known.keys()


# --- for properties

TASKS = ("", "translate", "prove")
SHARES = st.floats(0, 1, allow_subnormal=False)
# Few values besides many: ties are where an order goes wrong.
PRICES = st.sampled_from([0.0, 0.15, 1.0]) | st.floats(0, 50, allow_subnormal=False)


@st.composite
def profiles(draw, name="a"):
    return ModelProfile(
        name=name,
        context_tokens=draw(st.sampled_from([0, 4096, 8192, 131_072])),
        capabilities=draw(st.frozensets(st.sampled_from([Capability.CODE, Capability.MATH]))),
        features=draw(st.frozensets(st.sampled_from([Feature.TOOLS, Feature.JSON_MODE]))),
        tags=draw(st.frozensets(st.sampled_from(["fast", "ours"]))),
        pricing=Pricing(
            input_per_million=draw(PRICES),
            output_per_million=draw(PRICES),
            engine_hour=draw(st.sampled_from([0.0, 0.0, 0.3, 4.0])),
        ),
        quality=draw(st.sampled_from([0.5, 0.9]) | SHARES),
        quality_by_task=draw(st.dictionaries(st.sampled_from(TASKS[1:]), SHARES, max_size=2)),
        latency_ms=draw(st.sampled_from([500.0, 2000.0]) | st.floats(1, 60_000)),
        output_tokens_per_s=draw(st.none() | st.floats(1, 500)),
    )


@st.composite
def catalogues(draw, least=0, most=60):
    count = draw(st.integers(least, most))
    return [draw(profiles(name=f"m{number}")) for number in range(count)]


CRITERIA = st.builds(
    SelectionCriteria,
    required_capabilities=st.frozensets(st.sampled_from([Capability.CODE, Capability.MATH])),
    required_features=st.frozensets(st.sampled_from([Feature.TOOLS, Feature.JSON_MODE]), max_size=1),
    required_tags=st.frozensets(st.sampled_from(["fast", "ours"]), max_size=1),
    max_cost_per_1k_tokens=st.none() | st.floats(0, 0.05),
    max_latency_ms=st.none() | st.floats(1, 30_000),
    min_quality_threshold=st.none() | SHARES,
    min_context_tokens=st.none() | st.sampled_from([1, 8192, 10_000]),
)
REQUIREMENTS = st.builds(
    Requirements,
    prompt_tokens=st.integers(0, 100_000),
    answer_tokens=st.integers(0, 8000),
    need_tokens=st.sampled_from([0, 5000]),
    task=st.sampled_from(TASKS),
    complexity=st.none() | st.sampled_from(TaskComplexity).map(estimate),
    criteria=CRITERIA | st.just(SelectionCriteria()),
)
WEIGHTS = st.builds(ScoringWeights, quality=SHARES, cost=SHARES, latency=SHARES, readiness=SHARES)


def random_profiles(chance, count):
    """Many models at once, which would take hypothesis too long; some are alike but for their names."""

    def one(number):
        price = chance.choice([0.0, 0.5, 10 ** chance.uniform(-2, 1.5)])
        return ModelProfile(
            name=f"m{number:04}",
            context_tokens=chance.choice([4096, 8192, 131_072]),
            capabilities=frozenset(chance.sample(list(Capability), 6)),
            features=frozenset(chance.sample(list(Feature), 6)),
            tags=frozenset(chance.sample(["fast", "ours"], chance.randint(0, 2))),
            pricing=Pricing(
                input_per_million=price,
                output_per_million=price * chance.choice([1, 3, 5]),
                engine_hour=chance.choice([0.0, 0.0, 0.0, 1.0]),
            ),
            quality=chance.choice([0.5, 0.8, chance.uniform(0.2, 0.99)]),
            quality_by_task={"translate": chance.random()} if chance.random() < 0.1 else {},
            latency_ms=chance.choice([500.0, 10 ** chance.uniform(2, 4.5)]),
            output_tokens_per_s=chance.choice([None, 50.0, chance.uniform(5, 300)]),
        )

    return [one(number) for number in range(count)]
