"""What the configuration says of routes: names under which clients ask for whichever model suits best."""

from enum import StrEnum

from attrs import field, frozen

from gatewright.api.transforms import Transform
from gatewright.selection.criteria import Relaxation, ScoringWeights, SelectionCriteria
from gatewright.selection.decision import Exploration


class EstimatorKind(StrEnum):
    """Who says how hard a request is."""

    HEURISTIC = "heuristic"
    """Counts over its text."""
    MODEL = "model"
    """A model that is asked."""
    LEARNED = "learned"
    """What was learned from the outcomes of earlier requests; tells each candidate's chance as well."""
    CUSTOM = "custom"
    """A Python function."""
    NONE = "none"
    """Nobody."""


@frozen(kw_only=True)
class EstimatorConfig:
    """An estimator; whoever it is, the heuristic takes its place where it fails.

    Attributes:
        kind: Who estimates.
        model: For `MODEL`: name of the model that is asked.
        function: For `CUSTOM`: "module:function", called with (task, inputs).
        timeout_s: Longest wait for it.
        min_outcomes: For `LEARNED`: outcomes up to which it has too little data.
        thresholds: Scores from which on a task is simple, moderate, complex, expert; None for the heuristic's own.
        weights: Weights of the heuristic's dimensions, for those that are not to have the usual one.
    """

    kind: EstimatorKind = EstimatorKind.HEURISTIC
    model: str | None = None
    function: str | None = None
    timeout_s: float = 2.0
    min_outcomes: int = 200
    thresholds: tuple[float, float, float, float] | None = None
    weights: dict[str, float] = field(factory=dict, hash=False)


class FallbackStrategy(StrEnum):
    """What may be done about a failure."""

    RETRY = "retry"
    """The same model again, where that may help."""
    NEXT_IN_RANKING = "next_in_ranking"
    """The model that was ranked next."""
    LARGER_CONTEXT = "larger_context"
    """After an overflow: the best one with a larger context."""
    CHEAPER = "cheaper"
    """Where a budget does not allow it: the best one that costs less."""
    CONFIGURED = "configured"
    """The chosen model's own `fallbacks`."""
    LOCAL_WHEN_OFFLINE = "local_when_offline"
    """Where a provider cannot be reached: the best one that runs here."""


@frozen(kw_only=True)
class FallbackPolicy:
    """What a route does about failures.

    Attributes:
        strategies: What may be done; of those that can, the first one counts.
        max_length: Models in a chain, the choice included.
        max_attempts: Calls for one request over all models; None for what the chain comes to.
    """

    strategies: tuple[FallbackStrategy, ...] = tuple(FallbackStrategy)
    max_length: int = 3
    max_attempts: int | None = None


class Sticky(StrEnum):
    """For whom an experiment's arm stays the same."""

    USER = "user"
    SESSION = "session"
    REQUEST = "request"


@frozen(kw_only=True)
class ArmConfig:
    """One arm of an experiment; what it does not say is the route's.

    Attributes:
        name: Its name; unique in the experiment.
        share: Its part of the traffic, of 1 over all arms.
        candidates: Models.
        weights: Of the score.
        estimator: Who estimates.
        transform: Of the request, after the route's.
    """

    name: str
    share: float
    candidates: tuple[str, ...] = ()
    weights: ScoringWeights | None = None
    estimator: EstimatorConfig | None = None
    transform: Transform | None = None


@frozen(kw_only=True)
class ExperimentConfig:
    """A comparison between arms on one route.

    Attributes:
        name: Its name; unique.
        arms: At least two; the first is the one that the others are compared with.
        sticky: For whom the arm stays the same.
        alpha: Chance of naming a winner where there is none, over the whole course of the experiment.
        min_success: An arm whose success is surely below this is stopped; None never stops one.
        min_requests: Outcomes of an arm before it may be stopped or promoted.
        auto_promote: The arm that is surely the best gets all traffic by itself.
    """

    name: str
    arms: tuple[ArmConfig, ...]
    sticky: Sticky = Sticky.USER
    alpha: float = 0.05
    min_success: float | None = None
    min_requests: int = 50
    auto_promote: bool = False


@frozen(kw_only=True)
class JudgeConfig:
    """A model that says how good answers are.

    Attributes:
        model: Its name.
        sample: Share of the answers that it is shown, 0 to 1.
        instructions: What a good answer is; empty for the usual instructions.
    """

    model: str
    sample: float = 0.1
    instructions: str = ""


@frozen(kw_only=True)
class RouteConfig:
    """One route.

    Attributes:
        name: Name that clients use as `model`; unique over models, aliases and routes.
        candidates: Models by name; with `tags`, those of both.
        tags: Models that have one of these tags. Without names and tags: all models.
        criteria: Hard conditions.
        relax: Criteria that are given up in this order where no model meets all; empty: that is an error then.
        weights: Of the score.
        estimator: Who says how hard a request is.
        exploration: How a choice treats what it does not know.
        fallback: What is done about failures.
        transform: Of the request, after the model's own.
        experiment: Comparison that runs on it.
        judge: Model that judges its answers.
    """

    name: str
    candidates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    criteria: SelectionCriteria = field(factory=SelectionCriteria)
    relax: tuple[Relaxation, ...] = ()
    weights: ScoringWeights = field(factory=ScoringWeights)
    estimator: EstimatorConfig = field(factory=EstimatorConfig)
    exploration: Exploration = Exploration.GREEDY
    fallback: FallbackPolicy = field(factory=FallbackPolicy)
    transform: Transform | None = None
    experiment: ExperimentConfig | None = None
    judge: JudgeConfig | None = None


class BudgetFailure(StrEnum):
    """What happens to requests with budgets while the store cannot be asked."""

    OPEN = "open"
    """They are served."""
    CLOSED = "closed"
    """They are refused."""


@frozen(kw_only=True)
class StoreConfig:
    """Where records are kept.

    Attributes:
        url: SQLAlchemy URL, such as "postgresql+psycopg://..."; None for SQLite in the state directory.
        enabled: Whether anything is kept at all.
        prompts: Whether the text of prompts is kept.
        retention_days: Age in days at which records are deleted; None keeps them.
        when_unavailable: What happens to requests with budgets.
    """

    url: str | None = field(default=None, repr=False)
    enabled: bool = True
    prompts: bool = False
    retention_days: float | None = 90.0
    when_unavailable: BudgetFailure = BudgetFailure.OPEN


@frozen(kw_only=True)
class ExperienceConfig:
    """How choices learn from outcomes.

    Attributes:
        half_life_days: Age in days at which an outcome counts half.
    """

    half_life_days: float = 30.0

    @property
    def half_life_s(self) -> float:
        """The same in seconds."""
        return self.half_life_days * 86_400.0


@frozen(kw_only=True)
class RegistryConfig:
    """What models that are registered while the gateway runs may do.

    Attributes:
        api_key_env: Environment variables and base URLs to which their values may be sent, besides those that models of
            the file and known providers have.
    """

    api_key_env: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class ExperimentState:
    """What was done to an experiment by hand; what its own rules do follows from the outcomes.

    Attributes:
        experiment: Its name.
        promoted: Arm that gets all traffic; None: none.
        stopped: Arms that get none.
        is_ended: The route is as if there were no experiment.
    """

    experiment: str
    promoted: str | None = None
    stopped: tuple[str, ...] = ()
    is_ended: bool = False
