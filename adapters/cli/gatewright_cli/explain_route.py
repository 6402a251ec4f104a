"""`gw-cli explain` for a route: the whole ranking, without asking any model."""

from random import Random
from typing import Any, Final

from attrs import asdict, evolve, frozen

from gatewright.api.counting import prompt_text
from gatewright.api.transforms import Transform, describe_transform
from gatewright.choice import Choice
from gatewright.commands import EstimateComplexity
from gatewright.config import Config, ModelConfig
from gatewright.errors import Problem
from gatewright.events import BudgetsSeen, ComplexityEstimated, ExperimentsSet, OutcomesLearnt
from gatewright.ids import CommandId, RequestId
from gatewright.route_config import EstimatorKind, RouteConfig
from gatewright.routing import Router
from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.decision import Decision, Exploration, RankedModel, Rejection
from gatewright.selection.ranking import rank_models
from gatewright.selection.tokens import TokenEstimator
from gatewright_cli.engine_loads import look_at_engines
from gatewright_cli.question import QuestionRequest
from gatewright_cli.storing import Opened
from gatewright_host.state_dir import StateDir

MOST_OUTCOMES: Final = 20_000
"""What an explanation learns from; a running server has heard of more."""
_PATIENCE_S: Final = 30.0
"""For estimators that have to be loaded first, which in a server they are."""
_TELLING: Final = 0.005
"""A smaller difference in a term is no reason."""


@frozen(kw_only=True)
class Use:
    """One budget that the request counts on.

    Attributes:
        account: Its account.
        left_usd: What is left of it.
        limit_usd: Its limit.
        hard: Whether it refuses.
    """

    account: str
    left_usd: float
    limit_usd: float
    hard: bool


@frozen(kw_only=True)
class RouteExplanation:
    """How a route chooses for one question.

    Attributes:
        route: The route.
        task: Name of the task.
        estimate: How hard the question is thought to be.
        estimate_note: Why somebody else has said so than who usually does; empty where that is not so.
        decision: What is chosen; None where no model fits.
        problem: Why none does.
        chain: Models that are asked in turn.
        ranked: Those that meet all criteria, best first.
        why_not: Why each of these but the chosen one lost, by model.
        rejections: Those that do not meet the criteria.
        transforms: What is done to the request, by whom it is declared.
        changes: The same as the route and its experiment declare it.
        budgets: What it counts on.
        arm: Arm of an experiment, with its name.
        engines: What is known of the engines; empty where nothing depends on them.
        outcomes: What the choice has learnt from.
    """

    route: RouteConfig
    task: str
    estimate: ComplexityEstimate | None
    estimate_note: str
    decision: Decision | None
    problem: Problem | None
    chain: tuple[str, ...]
    ranked: tuple[RankedModel, ...]
    why_not: dict[str, str]
    rejections: tuple[Rejection, ...]
    transforms: tuple[tuple[str, tuple[str, ...]], ...]
    changes: tuple[Transform, ...]
    budgets: tuple[Use, ...]
    arm: str | None
    engines: str
    outcomes: int

    def plain(self) -> dict[str, Any]:
        """The same as JSON has it."""
        decision = self.decision
        return {
            "route": self.route.name,
            "task": self.task,
            "complexity": None if self.estimate is None else asdict(self.estimate),
            "complexity_note": self.estimate_note or None,
            "decision": None if decision is None else asdict(decision),
            "error": None if self.problem is None else self.problem.message,
            "chain": list(self.chain),
            "ranking": [{**asdict(each), "why_not": self.why_not.get(each.model)} for each in self.ranked],
            "rejected": [asdict(each) for each in self.rejections],
            "transforms": [{"of": name, "does": list(lines)} for name, lines in self.transforms],
            "budgets": [asdict(use) for use in self.budgets],
            "arm": self.arm,
            "engines": self.engines or None,
            "outcomes": self.outcomes,
        }


def explain_route(
    config: Config,
    route: RouteConfig,
    request: QuestionRequest,
    opened: Opened | None,
    state: StateDir,
) -> RouteExplanation:
    """Let the core choose as it would for a client, with what the store knows, and tell how it comes to that.

    Args:
        config: With the registered models.
        route: Who is asked.
        request: The question.
        opened: The store, if there is one.
        state: Where a learned estimator is kept, and whose engine host is asked.
    """
    router = Router(config, Random(0))  # noqa: S311  # nothing is decided by it that anybody relies on
    outcomes, uses = _recall(router, opened)
    now = opened.now_s if opened is not None else 0.0
    facts = request.facts
    # Draws are for requests: what is explained is the order by expectation.
    choice = router.begin(evolve(route, exploration=Exploration.GREEDY), facts, "explained", now)
    note = _estimate(router, choice, request, state)
    tokens = TokenEstimator().estimate("", facts).likely
    engines = look_at_engines(state, router.engines_to_ask(choice))
    router.take_loads(choice, engines.loads, tokens)
    decided = router.decide(choice, facts, tokens, now)
    ranking = rank_models(
        router.requirements(choice, facts, tokens),
        choice.catalogue,
        weights=choice.weights,
        past=router.experience,
        loads=choice.loads,
        now=now,
        relax=route.relax,
    )
    chosen = config.find_model(decided.chain[0]) if isinstance(decided, Decision) else None
    chain: tuple[str, ...] = ()
    if isinstance(decided, Decision):
        chain = tuple(model.name for model in router.attempts_of(decided, choice, facts).chain)
    return RouteExplanation(
        route=route,
        task=facts.wishes.task if facts.wishes is not None else "",
        estimate=choice.estimate,
        estimate_note=note,
        decision=decided if isinstance(decided, Decision) else None,
        problem=decided if isinstance(decided, Problem) else None,
        chain=chain,
        ranked=ranking.ranked,
        why_not=_why_not(ranking.ranked),
        rejections=ranking.rejections,
        transforms=_transforms(choice, chosen),
        changes=choice.transforms,
        budgets=_budgets(router, route, chosen, request, uses),
        arm=choice.arm.name if choice.arm is not None else None,
        engines=engines.note,
        outcomes=outcomes,
    )


def _recall(router: Router, opened: Opened | None) -> tuple[int, dict[str, float]]:
    """Tell the router what the store knows; the number of outcomes, and what is left of each budget."""
    if opened is None:
        return 0, {}
    news = opened.store.first_news(MOST_OUTCOMES)
    left = {use.account: use.left_usd for use in opened.store.budget_use()}
    router.hear(OutcomesLearnt(outcomes=news.outcomes, feedback=news.feedback))
    router.hear(ExperimentsSet(states=opened.store.experiment_states()))
    router.hear(BudgetsSeen(left_usd=left))
    return len(news.outcomes), left


def _estimate(router: Router, choice: Choice, request: QuestionRequest, state: StateDir) -> str:
    """Have the question estimated by whoever can without being started; what to say if that is somebody else."""
    estimator = choice.estimator
    match estimator.kind:
        case EstimatorKind.HEURISTIC | EstimatorKind.NONE:
            return ""
        case EstimatorKind.MODEL:
            router.estimate_by_heuristic(choice, request.facts)
            return f"by the heuristic: {estimator.model} is not asked for an explanation"
        case _:
            from gatewright_host.estimators import Estimators  # noqa: PLC0415  # loads much

    estimators = Estimators(state.path)
    told = estimators.estimate(
        EstimateComplexity(
            command_id=CommandId(0),
            request_id=RequestId("explained"),
            estimator=evolve(estimator, timeout_s=_PATIENCE_S),
            candidates=tuple(model.name for model in choice.candidates),
        ),
        request.facts,
        prompt_text(request.facts, request.body),
        _ask_nobody,
    )
    if isinstance(told, ComplexityEstimated):
        choice.estimate, choice.chances = told.estimate, told.chances
        return ""
    router.estimate_by_heuristic(choice, request.facts)
    return f"by the heuristic: {told.reason}"


def _ask_nobody(_model: str, _body: bytes, _timeout_s: float) -> str:
    raise AssertionError  # only estimators that ask a model come here, and these are not asked


def _why_not(ranked: tuple[RankedModel, ...]) -> dict[str, str]:
    """What each model is behind the best one in."""
    if not ranked:
        return {}
    best, *others = ranked
    values = {term.name: term.value * term.weight for term in best.terms}
    found = {}
    for model in others:
        differences = [(term.value * term.weight - values[term.name], term.name) for term in model.terms]
        worse = [f"{name} {lost:+.3f}" for lost, name in sorted(differences) if lost < -_TELLING]
        better = [f"{name} {won:+.3f}" for won, name in sorted(differences, reverse=True) if won > _TELLING]
        text = f"{best.score - model.score:.3f} behind {best.model}"
        if worse:
            text += f": {', '.join(worse)}"
        found[model.model] = f"{text}; ahead in {', '.join(better)}" if better else text
    return found


def _transforms(choice: Choice, chosen: ModelConfig | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What is done to the request, in the order in which it is: the model's own, the route's, the arm's."""
    declared: list[tuple[str, Transform | None]] = []
    if chosen is not None:
        declared.append((chosen.name, chosen.transform))
    declared.append((choice.route.name, choice.route.transform))
    if choice.arm is not None:
        declared.append((f"arm {choice.arm.name}", choice.arm.transform))
    return tuple(
        (name, describe_transform(transform)) for name, transform in declared if transform is not None
    )


def _budgets(
    router: Router,
    route: RouteConfig,
    chosen: ModelConfig | None,
    request: QuestionRequest,
    left_usd: dict[str, float],
) -> tuple[Use, ...]:
    if chosen is None:
        return ()
    return tuple(
        Use(
            account=charge.account,
            left_usd=left_usd.get(charge.account, charge.limit_usd),
            limit_usd=charge.limit_usd,
            hard=charge.hard,
        )
        for charge in router.charges(chosen, route.name, request.facts)
    )
