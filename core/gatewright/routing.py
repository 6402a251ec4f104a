"""Choosing a model for requests that name a route: what the Gateway knows for it, and the steps to a decision.

Nothing is commanded here: `gateway.py` asks estimators and the Fleet, and says what came of it.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

from attrs import evolve

from gatewright.accounting.budgets import charges_of, used_up
from gatewright.accounting.experience import Experience
from gatewright.accounting.experiments import Assignment, ExperimentBook, assign
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.spending import Charge
from gatewright.api.facts import ApiFormat, RequestFacts, Wishes
from gatewright.api.transforms import transform_facts
from gatewright.choice import Choice, both_criteria
from gatewright.config import Config, ModelConfig
from gatewright.digests import digest
from gatewright.engines.spec import EngineSpec
from gatewright.errors import Problem
from gatewright.events import BudgetsSeen, ExperimentsSet, OutcomesLearnt
from gatewright.leases import EngineLoad, LoadState
from gatewright.permissions import may_use
from gatewright.route_config import (
    ArmConfig,
    EstimatorKind,
    ExperimentState,
    FallbackStrategy,
    RouteConfig,
    Sticky,
)
from gatewright.selection.beliefs import Chance
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.choosing import NoModelFits, choose
from gatewright.selection.complexity_heuristic import estimate_complexity
from gatewright.selection.criteria import WEIGHTS
from gatewright.selection.decision import Decision, Exploration, Requirements
from gatewright.selection.failures import Failure, Remedy
from gatewright.selection.fallback import Attempts, can_handle
from gatewright.selection.profiles import Capability

EXPECTED_ANSWER_TOKENS: Final = 256
"""Of a request that sets no smaller limit: for comparing models, which is all that it is used for."""
MOST_UNLEARNT: Final = 10_000
"""Outcomes that wait for a choice where there is no route; of more, the oldest are forgotten."""
UNLEARNT_WITH_ROUTES: Final = 100
"""The same where a choice may come, which is not to wait until thousands are taken in."""
MOST_LOADS_ASKED: Final = 256
"""Engines whose load is asked for in one choice."""


class Router:
    """What choices go by: the configuration, experience, experiments, budgets.

    Args:
        config: Configuration.
        chance: Random numbers.
    """

    def __init__(self, config: Config, chance: Chance) -> None:
        self.experience = Experience(half_life_s=config.experience.half_life_s)
        self.book = ExperimentBook()
        self._config = config
        self._chance = chance
        self._catalogues: dict[
            tuple[str, str | None, Capability | None], tuple[tuple[ModelConfig, ...], Catalogue]
        ] = {}
        self._used_up: frozenset[str] = frozenset()
        self._states: Mapping[str, ExperimentState] = {}
        self._unlearnt: deque[ModelOutcome] = deque(maxlen=MOST_UNLEARNT)

    def replace_config(self, config: Config) -> None:
        """Another configuration holds; what was learnt stays, and counts as it did."""
        self._config, self._catalogues = config, {}

    # --- what is learnt

    def hear(self, event: OutcomesLearnt | BudgetsSeen | ExperimentsSet) -> None:
        """News of the store."""
        match event:
            case OutcomesLearnt(outcomes=outcomes, feedback=feedback):
                self._catch_up()
                for outcome in outcomes:
                    self._take_in(outcome)
                for each in feedback:
                    self.experience.take_feedback(each)
                    self.book.take_feedback(each)
            case BudgetsSeen(left_usd=left_usd):
                self._used_up = frozenset(name for name, left in left_usd.items() if left <= 0)
            case ExperimentsSet(states=states):
                self._states = {state.experiment: state for state in states}

    def learn(self, outcome: ModelOutcome) -> None:
        """How a model did. It is taken in when somebody wants to know: most gateways have more calls than choices."""
        self._unlearnt.append(outcome)
        if self._config.routes and len(self._unlearnt) >= UNLEARNT_WITH_ROUTES:
            self._catch_up()

    def _catch_up(self) -> None:
        while self._unlearnt:
            self._take_in(self._unlearnt.popleft())

    def _take_in(self, outcome: ModelOutcome) -> None:
        self.experience.learn(outcome)
        self.book.learn(outcome)

    # --- the steps of a choice

    def begin(self, route: RouteConfig, facts: RequestFacts, request_id: str, now: float) -> Choice:
        """Begin to choose for a request."""
        self._catch_up()
        wishes = facts.wishes or Wishes()
        assignment = self._assign(route, facts, wishes, request_id)
        arm = assignment.arm if assignment is not None else None
        candidates, catalogue = self._candidates(route, arm, _kind_of(facts))
        weights = route.weights
        if arm is not None and arm.weights is not None:
            weights = arm.weights
        if wishes.prefer is not None:
            weights = WEIGHTS[wishes.prefer]
        estimator = route.estimator
        if arm is not None and arm.estimator is not None:
            estimator = arm.estimator
        choice = Choice(self._config, route, candidates, catalogue, weights, estimator, now, arm)
        if assignment is not None:
            choice.propensity, choice.unit = assignment.propensity, assignment.unit
        if route.judge is not None and self._chance.random() < route.judge.sample:
            choice.judge = route.judge
        if estimator.kind is EstimatorKind.HEURISTIC:
            self.estimate_by_heuristic(choice, facts)
        return choice

    def estimate_by_heuristic(self, choice: Choice, facts: RequestFacts) -> None:
        """The estimate that needs nobody else, and that takes the place of any other that fails."""
        if facts.signals is not None:
            estimator = choice.estimator
            choice.estimate = estimate_complexity(
                facts.signals, thresholds=estimator.thresholds, weights=estimator.weights
            )

    def engines_to_ask(self, choice: Choice) -> tuple[EngineSpec, ...]:
        """The engines whose load matters to the choice; none where nothing depends on it."""
        if len(choice.candidates) < 2:  # noqa: PLR2004  # one candidate is no choice
            return ()
        engines = [spec for model in choice.candidates for spec in model.variants if not model.is_remote]
        if not engines:
            return ()
        remote = [model.variants[0] for model in choice.candidates if model.is_remote]
        return tuple((engines + remote)[:MOST_LOADS_ASKED])

    def take_loads(self, choice: Choice, loads: tuple[EngineLoad, ...], need_tokens: int) -> None:
        """What the Fleet says: of each model the engine that would serve the request."""
        for load in loads:
            known = choice.loads.get(load.model)
            if load.context_tokens >= need_tokens and (known is None or _is_nearer(load, known)):
                if load.load_s is not None:
                    choice.loads[load.model] = load
                else:
                    expected_s = choice.config.find_model(load.model).profile.load_s
                    choice.loads[load.model] = evolve(load, load_s=expected_s)

    def decide(
        self, choice: Choice, facts: RequestFacts, prompt_tokens: int, now: float
    ) -> Decision | Problem:
        """Choose.

        Args:
            choice: From `begin`, with whatever was learnt since.
            facts: The request.
            prompt_tokens: Likely size of its prompt.
            now: Seconds, on the Gateway's clock.
        """
        choice.ended_at = now
        needs = self.requirements(choice, facts, prompt_tokens)
        decided = self._choose(choice, needs, now)
        if isinstance(decided, NoModelFits):
            return decided.problem
        arm = choice.arm
        experiment = choice.route.experiment
        if arm is None or experiment is None:
            return decided
        return evolve(
            decided,
            experiment=experiment.name,
            arm=arm.name,
            propensity=decided.propensity * choice.propensity,
        )

    def attempts_of(self, decision: Decision, choice: Choice, facts: RequestFacts) -> Attempts:
        """The chain of a decision, as the route's policy and the client's wishes have it."""
        wishes, policy = facts.wishes or Wishes(), choice.route.fallback
        config = choice.config
        found = tuple([config.find_model(name) for name in decision.chain])
        if wishes.fallbacks is not None:
            found = config.chain_of(found[0], wishes.fallbacks)
        elif FallbackStrategy.CONFIGURED in policy.strategies:
            found = _with_own(found, config.chain_of(found[0]), policy.strategies)
        chain = list({model.name: model for model in found}.values())
        if wishes.fallbacks is None:
            chain = chain[: policy.max_length]
        allowed = facts.key.models if facts.key is not None else None
        return Attempts(
            tuple([model for model in chain if allowed is None or may_use(allowed, model)]),
            limit=wishes.max_attempts or policy.max_attempts,
            strategies=policy.strategies,
        )

    def another(
        self,
        choice: Choice,
        facts: RequestFacts,
        prompt_tokens: int,
        now: float,
        *,
        failure: Failure,
        attempts: Attempts,
    ) -> ModelConfig | None:
        """One more model against a failure that no model left in the chain helps against, if the policy has one."""
        strategies = attempts.strategies
        if not any(can_handle(strategy, failure) for strategy in strategies if strategy in _SEARCHING):
            return None
        needs = self.requirements(choice, facts, prompt_tokens)
        excluded = dict(needs.excluded)
        for model in choice.candidates:
            if model in attempts.chain or not _helps(model, failure, attempts, strategies):
                excluded[model.name] = "was tried, or does not help"
        decided = self._choose(choice, evolve(needs, excluded=excluded), now)
        return None if isinstance(decided, NoModelFits) else choice.config.find_model(decided.chain[0])

    def _choose(self, choice: Choice, needs: Requirements, now: float) -> Decision | NoModelFits:
        explores = choice.route.exploration is Exploration.THOMPSON
        return choose(
            needs,
            choice.catalogue,
            route=choice.route,
            weights=choice.weights,
            past=self.experience,
            loads=choice.loads,
            now=now,
            chance=self._chance if explores else None,
        )

    # --- what they go by

    def _assign(
        self, route: RouteConfig, facts: RequestFacts, wishes: Wishes, request_id: str
    ) -> Assignment | None:
        experiment = route.experiment
        if experiment is None:
            return None
        state = self._states.get(experiment.name)
        if state is not None and state.is_ended:
            return None
        user = wishes.user or (facts.key.key_id if facts.key is not None else None)
        session = wishes.session or user
        match experiment.sticky:
            case Sticky.USER:
                unit = digest(user) if user is not None else request_id
            case Sticky.SESSION:
                unit = digest(session) if session is not None else request_id
            case Sticky.REQUEST:
                unit = request_id
        return assign(experiment, state, self.book, unit)

    def _candidates(
        self, route: RouteConfig, arm: ArmConfig | None, kind: Capability | None
    ) -> tuple[tuple[ModelConfig, ...], Catalogue]:
        names = arm.candidates if arm is not None else ()
        key = (route.name, arm.name if names and arm is not None else None, kind)
        found = self._catalogues.get(key)
        if found is None:
            candidates = _of_kind(self._config.candidates_of(route, names), kind)
            found = self._catalogues[key] = (candidates, Catalogue(model.profile for model in candidates))
        return found

    def requirements(self, choice: Choice, facts: RequestFacts, prompt_tokens: int) -> Requirements:
        """What the request needs of a model; the arguments are those of `decide`."""
        wishes = facts.wishes or Wishes()
        changed = transform_facts(facts, choice.transforms) if choice.transforms else facts
        limit = changed.answer_tokens
        answer_tokens = EXPECTED_ANSWER_TOKENS if limit is None else min(limit, EXPECTED_ANSWER_TOKENS)
        return Requirements(
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            need_tokens=prompt_tokens + (limit or 1) if facts.sized else 0,
            task=wishes.task,
            complexity=choice.estimate,
            chances=dict(choice.chances),
            criteria=both_criteria(choice.route.criteria, wishes.criteria),
            features=changed.features,
            modalities=facts.modalities,
            excluded=self._excluded(choice, facts),
        )

    def _excluded(self, choice: Choice, facts: RequestFacts) -> dict[str, str]:
        key, excluded = facts.key, {}
        if key is not None and key.models is not None:
            for model in choice.candidates:
                if not may_use(key.models, model):
                    excluded[model.name] = "the API key may not use it"
        if self._used_up:
            excluded.update(self._out_of_budget(choice, facts))
        return excluded

    def _out_of_budget(self, choice: Choice, facts: RequestFacts) -> dict[str, str]:
        """Models of which the store has said that a hard budget is used up; the store itself has the last word."""
        found = {}
        out = used_up(self._config.budgets, self._used_up, route=choice.route.name, key=facts.key)
        for model in choice.candidates:
            account = out.account_of(model.name, model.profile.tags)
            if account is None:
                continue
            pricing = model.profile.pricing
            if pricing.input_per_million or pricing.output_per_million or pricing.engine_hour:
                found[model.name] = f"the budget '{account}' is used up"
        return found

    def charges(self, model: ModelConfig, route: str | None, facts: RequestFacts) -> tuple[Charge, ...]:
        """The accounts on which a request to a model counts."""
        if not self._config.budgets and (facts.key is None or facts.key.budget_usd is None):
            return ()
        return charges_of(
            self._config.budgets, model=model.name, tags=model.profile.tags, route=route, key=facts.key
        )


_SEARCHING: Final = frozenset(
    {FallbackStrategy.LARGER_CONTEXT, FallbackStrategy.CHEAPER, FallbackStrategy.LOCAL_WHEN_OFFLINE}
)
"""Strategies that know what to look for beyond the chain."""


_SPECIAL: Final = frozenset({Capability.EMBEDDING.value, Capability.RERANK.value})
"""What models can do that do nothing else."""


def _kind_of(facts: RequestFacts) -> Capability | None:
    """What a request wants that is no text; None for text."""
    if facts.format is not ApiFormat.OTHER:
        return None
    path = facts.path.partition("?")[0]
    return next((kind for word, kind in _KINDS if word in path), None)


_KINDS: Final = (("embedding", Capability.EMBEDDING), ("rerank", Capability.RERANK))
"""By words of their paths."""


def _of_kind(candidates: tuple[ModelConfig, ...], kind: Capability | None) -> tuple[ModelConfig, ...]:
    """Those that make what is wanted, as far as their profiles tell; all of them where no profile does."""
    if kind is None:
        found = [
            model
            for model in candidates
            if not model.profile.capabilities or not model.profile.capabilities <= _SPECIAL
        ]
    else:
        found = [model for model in candidates if kind in model.profile.capabilities]
    return tuple(found) or candidates


def _with_own(
    ranked: tuple[ModelConfig, ...], own: tuple[ModelConfig, ...], strategies: tuple[FallbackStrategy, ...]
) -> tuple[ModelConfig, ...]:
    """The chosen model with those that were ranked next and its own fallbacks, in the order of the strategies."""
    if FallbackStrategy.NEXT_IN_RANKING not in strategies:
        return own
    configured = strategies.index(FallbackStrategy.CONFIGURED)
    return ranked + own if strategies.index(FallbackStrategy.NEXT_IN_RANKING) < configured else own + ranked


def _helps(
    model: ModelConfig, failure: Failure, attempts: Attempts, strategies: tuple[FallbackStrategy, ...]
) -> bool:
    match failure.remedy:
        case Remedy.LARGER:
            return model.largest_context_tokens > failure.context_tokens
        case Remedy.CHEAPER:
            return attempts.costs_usd.get(model.name, 0.0) < failure.cost_usd
        case _:
            return FallbackStrategy.LOCAL_WHEN_OFFLINE in strategies and not model.is_remote


def _is_nearer(load: EngineLoad, known: EngineLoad) -> bool:
    """Whether an engine is the one that would rather be used: one that runs, else the smallest that has not failed."""
    if known.state is LoadState.UNAVAILABLE:
        return load.state is not LoadState.UNAVAILABLE
    return load.state is LoadState.READY and known.state is not LoadState.READY
