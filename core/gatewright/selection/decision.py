"""The vocabulary of a choice between models: what is needed, who is ranked how and why, who was turned away."""

from enum import StrEnum

from attrs import field, frozen

from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.criteria import SelectionCriteria


class Exploration(StrEnum):
    """How a choice treats what it does not know."""

    GREEDY = "greedy"
    """The best by expectation."""
    THOMPSON = "thompson"
    """The best of one draw from what is believed of each: the less is known of a model, the likelier it gets a try."""


@frozen(kw_only=True)
class Requirements:
    """What one request needs of a model.

    Attributes:
        prompt_tokens: Likely size of the prompt.
        answer_tokens: Likely size of the answer, for cost and latency.
        need_tokens: Context that prompt and answer need at least.
        task: Name of the task; empty where there is none.
        complexity: How hard it is; None where nobody estimated.
        chances: Chance of success by model, where a learned estimator told them; they stand for quality.
        criteria: Of the route and the request together.
        features: Values of `Feature` that the request itself makes necessary, whatever the criteria say.
        modalities: Values of `Modality` of its input.
        excluded: Models that are out of the question by name, and why, in words that name the budget or the key.
    """

    prompt_tokens: int = 0
    answer_tokens: int = 200
    need_tokens: int = 0
    task: str = ""
    complexity: ComplexityEstimate | None = None
    chances: dict[str, float] = field(factory=dict, hash=False)
    criteria: SelectionCriteria = field(factory=SelectionCriteria)
    features: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()
    excluded: dict[str, str] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class Term:
    """One term of a score.

    Attributes:
        name: "quality", "cost", "latency" or "readiness".
        value: 0 to 1, more is better.
        weight: How much it counts, of 1 altogether.
        detail: Where the value comes from, one line for people.
    """

    name: str
    value: float
    weight: float
    detail: str = ""


@frozen(kw_only=True)
class RankedModel:
    """One candidate that meets all criteria.

    Attributes:
        model: Its name.
        score: 0 to 1.
        terms: What the score is made of.
        estimated_cost_usd: Of this request.
        expected_latency_ms: Of this request, loading and queue included.
        expected_quality: Chance of success that went into the score.
    """

    model: str
    score: float
    terms: tuple[Term, ...] = ()
    estimated_cost_usd: float = 0.0
    expected_latency_ms: float = 0.0
    expected_quality: float = 0.0


@frozen(kw_only=True)
class Rejection:
    """One candidate that does not.

    Attributes:
        model: Its name.
        criterion: What it failed on: "capabilities", "features", "modalities", "tags", "context", "cost", "latency",
            "quality", "budget", "key", "excluded", "unavailable".
        reason: One line for people, with the figures.
    """

    model: str
    criterion: str
    reason: str


@frozen(kw_only=True)
class Decision:
    """Who answers a request, and why.

    Attributes:
        route: Route that the request named; None where it named a model.
        chain: Models in the order in which they are asked; the first is the choice. Never empty.
        complexity: How hard the request was thought to be; None where nobody estimated.
        complexity_score: The same as a number, 0 to 1.
        estimator: Who estimated that.
        score: Of the choice, 0 to 1.
        confidence: 0 to 1: how sure the choice is, from how far the second is behind and how much is known.
        reason: One line for people.
        estimated_cost_usd: Of the choice.
        propensity: Probability with which this choice was made, for learning from it later.
        relaxed: Criteria that were given up, in this order.
        experiment: Experiment that the request takes part in.
        arm: Its arm.
        considered: Number of candidates.
        explored: It is another choice than the best by expectation.
    """

    chain: tuple[str, ...]
    route: str | None = None
    complexity: TaskComplexity | None = None
    complexity_score: float | None = None
    estimator: str = ""
    score: float = 0.0
    confidence: float = 0.0
    reason: str = ""
    estimated_cost_usd: float = 0.0
    propensity: float = 1.0
    relaxed: tuple[str, ...] = ()
    experiment: str | None = None
    arm: str | None = None
    considered: int = 0
    explored: bool = False
