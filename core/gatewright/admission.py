"""A request's way to its call: which model, which variant, how many tokens, at whose expense.

Its methods are the steps; `gateway.py` has the transitions, and what follows from failures.
"""

from collections.abc import Mapping
from typing import Final, assert_never

from attrs import evolve

from gatewright import orders, replies
from gatewright.api.facts import RequestFacts, Wishes
from gatewright.choice import Choice
from gatewright.commands import Log, RecordRequest, Severity
from gatewright.config import Config, ModelConfig
from gatewright.errors import InvalidRequest, ModelNotFound, Problem, StoreUnavailable
from gatewright.events import RequestReceived, SpendRefused, SpendReserved, SpendUnknown
from gatewright.leases import EngineLoad
from gatewright.open_requests import OpenRequests
from gatewright.permissions import may_use, refusal_of_key
from gatewright.requests import AwaitingLoads, Counting, Estimating, Held, Request, Reserving
from gatewright.route_config import BudgetFailure, EstimatorKind, RouteConfig
from gatewright.routing import Router
from gatewright.selection import failures
from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.complexity_heuristic import estimate_complexity
from gatewright.selection.failures import Failure
from gatewright.selection.fallback import Attempts
from gatewright.selection.tokens import TokenEstimator, exactly
from gatewright.selection.variants import Fits, TooLarge, Unsure, choose_variant
from gatewright.waiting import PATIENCE_S

STORE_RETRY_S: Final = 5.0

_ASKED_ESTIMATORS: Final = frozenset({EstimatorKind.MODEL, EstimatorKind.LEARNED, EstimatorKind.CUSTOM})
"""Those that are somewhere else."""


class Admission:
    """The steps before a call.

    Args:
        config: Configuration.
        books: The Gateway's.
        router: Chooses models.
        estimator: Of tokens.
    """

    def __init__(
        self, config: Config, books: OpenRequests, router: Router, estimator: TokenEstimator
    ) -> None:
        self._config = config
        self._open = books
        self._router = router
        self._estimator = estimator

    def replace_config(self, config: Config) -> None:
        """Another configuration holds."""
        self._config = config
        self._router.replace_config(config)

    # --- what a request names

    def find(self, facts: RequestFacts) -> ModelConfig | RouteConfig | Problem:
        """What a request names, if it may use that."""
        unknown = self._unknown_fallback(facts)
        if unknown is not None:
            return unknown
        name = facts.model or self._config.server.default_model
        route = self._config.find_route(name)
        if route is not None:
            return refusal_of_key(facts, route.name, is_route=True, model=None) or route
        model = self._config.default_model
        if name is not None:
            try:
                model = self._config.find_model(name)
            except ModelNotFound:
                return self._config.not_found(name).problem
        if model is None:
            return replies.model_missing(self._config)
        return refusal_of_key(facts, model.name, is_route=False, model=model) or model

    def refuse(self, event: RequestReceived, problem: Problem) -> RecordRequest:
        """The record of a request that may not come in."""
        return replies.record_of_refusal(event.request_id, event.facts, problem, self._config)

    def _unknown_fallback(self, facts: RequestFacts) -> Problem | None:
        wished = facts.wishes.fallbacks if facts.wishes is not None else None
        for name in wished or ():
            try:
                self._config.find_model(name)
            except ModelNotFound:
                text = f"'gatewright.fallbacks' names '{name}', which is no model"
                return InvalidRequest(text, param="gatewright.fallbacks").problem
        return None

    def receive(self, event: RequestReceived, found: ModelConfig | RouteConfig) -> Request:
        """Open the books for a request that names this."""
        now, facts = self._open.now, event.facts
        attempts = Attempts(()) if isinstance(found, RouteConfig) else self._attempts_of(found, facts)
        request = Request(event.request_id, facts, attempts, now, now, comment_at=now + PATIENCE_S)
        if facts.wishes is not None:
            request.log.task = facts.wishes.task
        if facts.signals is not None and isinstance(found, ModelConfig):
            request.log.complexity = estimate_complexity(facts.signals).complexity
        self._open.add(request)
        return request

    def _attempts_of(self, model: ModelConfig, facts: RequestFacts) -> Attempts:
        """The chain of a model that was asked for by name."""
        wishes = facts.wishes or Wishes()
        chain = self._config.chain_of(model, wishes.fallbacks)
        key = facts.key
        if key is not None and key.models is not None:
            allowed = key.models
            chain = tuple([each for each in chain if may_use(allowed, each)])
        return Attempts(chain, limit=wishes.max_attempts)

    # --- the choice of a model

    def begin_choice(self, request: Request, route: RouteConfig) -> None:
        """Choose a model, or ask first what the choice depends on."""
        choice = self._router.begin(route, request.facts, request.request_id, self._open.now)
        request.choice = choice
        if choice.estimator.kind in _ASKED_ESTIMATORS and request.facts.signals is not None:
            command_id = self._open.expect(request)
            request.become(Estimating(command_id))
            self._open.await_something(request)
            self._open.out.append(orders.estimate(command_id, request, choice))
        else:
            self._ask_loads(request, choice)

    def estimated(self, request: Request, estimate: ComplexityEstimate, chances: Mapping[str, float]) -> None:
        """The estimator has said how hard the request is."""
        choice = _choice_of(request)
        choice.estimate, choice.chances = estimate, chances
        self._ask_loads(request, choice)

    def estimation_failed(self, request: Request, reason: str) -> None:
        """It has not: the heuristic takes its place."""
        choice = _choice_of(request)
        self._router.estimate_by_heuristic(choice, request.facts)
        # One that learns knows too little for a while, which is no news.
        is_news = choice.estimator.kind is not EstimatorKind.LEARNED
        severity = Severity.INFO if is_news else Severity.DEBUG
        self._log(severity, f"{request.request_id}: complexity by the heuristic: {reason}")
        self._ask_loads(request, choice)

    def _ask_loads(self, request: Request, choice: Choice) -> None:
        engines = self._router.engines_to_ask(choice)
        if engines:
            self._open.ask_loads(request, engines)
        else:
            self._decide(request, choice)

    def loads_told(self, request: Request, state: AwaitingLoads, loads: tuple[EngineLoad, ...]) -> None:
        """The Fleet has said what it would cost to run the candidates, or could not."""
        del self._open.by_lease[state.lease_id]
        choice = _choice_of(request)
        self._router.take_loads(choice, loads, self._likely_tokens(request.facts))
        self._decide(request, choice)

    def _decide(self, request: Request, choice: Choice) -> None:
        """Choose; afterwards the request has its chain of models, or has ended."""
        facts = request.facts
        decision = self._router.decide(choice, facts, self._likely_tokens(facts), self._open.now)
        if isinstance(decision, Problem):
            self._open.fail(request, decision)
            return
        request.attempts = self._router.attempts_of(decision, choice, facts)
        chain = tuple([model.name for model in request.attempts.chain])
        request.decision = decision = evolve(decision, chain=chain)
        log = request.log
        log.complexity, log.propensity = decision.complexity, decision.propensity
        log.experiment, log.arm, log.unit = decision.experiment, decision.arm, choice.unit
        self._open.set_alarm(request)

    def another_model(self, request: Request, failure: Failure) -> ModelConfig | None:
        """One more candidate against a failure that nobody left in the chain helps against."""
        if request.choice is None or request.attempts.is_used_up:
            return None
        return self._router.another(
            request.choice,
            request.facts,
            self._likely_tokens(request.facts),
            self._open.now,
            failure=failure,
            attempts=request.attempts,
        )

    def _likely_tokens(self, facts: RequestFacts) -> int:
        return self._estimator.estimate("", facts).likely

    # --- the choice of a variant

    def begin_attempt(self, request: Request) -> Failure | None:
        """Find the variants of the present model that hold the request; a failure where none does."""
        model, facts = request.model, request.transformed_facts
        known = request.prompt_tokens
        estimate = self._estimator.estimate(model.name, facts) if known is None else exactly(known)
        match choose_variant(model, facts, estimate):
            case Fits() as fits:
                return self._reserve(request, fits, estimate.likely)
            case TooLarge(problem=problem):
                return failures.of_size(model, problem)
            case Unsure(best_guess=guess) if model.is_remote:
                return self._reserve(request, guess, estimate.likely)
            case Unsure(best_guess=guess):
                self._open.ask_lease_to_count(request, guess)
                return None
            case _ as unreachable:
                assert_never(unreachable)

    def count(self, request: Request, held: Held | None, base_url: str | None, guess: Fits) -> None:
        """Count its prompt, on an engine or by a program."""
        command_id = self._open.expect(request)
        request.become(Counting(command_id, held, guess))
        self._open.out.append(orders.count(command_id, request, base_url))

    def count_without_engine(self, request: Request, guess: Fits, reason: str) -> Failure | None:
        """Second choice a tokenizer program, third the best guess; a failure where that comes to nothing."""
        program_failed = isinstance(request.state, Counting) and request.state.held is None
        if request.model.tokenization is not None and not program_failed:
            self.count(request, None, None, guess)
            return None
        self._log(Severity.WARNING, replies.not_counted(request, reason, guess))
        likely = self._estimator.estimate(request.model.name, request.transformed_facts).likely
        return self._reserve(request, guess, likely)

    def counted(self, request: Request, prompt_tokens: int) -> None:
        """The exact size of its prompt is known."""
        self._estimator.learn(request.model.name, request.transformed_facts, prompt_tokens)
        request.prompt_tokens = prompt_tokens

    # --- money

    def _reserve(self, request: Request, fits: Fits, prompt_tokens: int) -> Failure | None:
        """Have the store keep what the call may cost, where there is a budget or a rate limit; then ask for an engine."""
        facts, model = request.facts, request.model
        charges = self._router.charges(model, request.route_name, facts)
        if charges or request.log.charges:
            request.log.charge_to(charges)
        if facts.key is None and not charges:
            return self._ask_lease(request, fits)
        order = orders.reservation(request, charges, prompt_tokens)
        cost_usd = orders.most_cost_usd(request, model, prompt_tokens)
        request.attempts.costs_usd[model.name] = cost_usd
        is_reserved = request.reserved_for == (model.name, request.log.cost_usd)
        # What costs nothing is allowed whatever was spent: the store need not be asked.
        is_free = order.amount_usd == 0 and request.reserved_for is None
        if (order.key is None and (not charges or is_free)) or is_reserved:
            return self._ask_lease(request, fits)
        command_id = self._open.expect(request)
        request.become(Reserving(command_id, fits, cost_usd))
        self._open.await_something(request)
        self._open.out.append(evolve(order, command_id=command_id))
        return None

    def _ask_lease(self, request: Request, fits: Fits) -> Failure | None:
        """Ask for an engine; a failure where the operator turns out to have stopped the one that broke off."""
        if request.taken_back is not None:
            return failures.of_lease(request.model, request.taken_back)
        self._open.ask_lease(request, fits, self._config.server)
        return None

    def reserved(self, request: Request, state: Reserving, event: SpendReserved) -> Failure | None:
        """The store keeps it; a failure where there is no use for it any more."""
        request.is_rated, request.reserved_for = True, (request.model.name, request.log.cost_usd)
        for warning in event.warnings:
            self._log(Severity.WARNING, warning)
        return self._ask_lease(request, state.fits)

    def reservation_failed(self, request: Request, state: Reserving, event: SpendUnknown) -> Failure | None:
        """The store cannot be asked: serve or refuse, as the configuration says; a failure where it refuses."""
        request.is_rated = True
        if self._config.store.when_unavailable is BudgetFailure.CLOSED:
            self._log(Severity.WARNING, f"{request.request_id}: not served: {event.reason}")
            text = "budgets and limits cannot be checked now"
            problem = StoreUnavailable(text, retry_after_s=STORE_RETRY_S).problem
            self._price_others(request)
            return failures.of_budget(request.model, problem, state.cost_usd, is_rate=False)
        self._log(
            Severity.WARNING, f"{request.request_id}: budgets and limits were not checked: {event.reason}"
        )
        return self._ask_lease(request, state.fits)

    def refused_by_budget(self, request: Request, state: Reserving, event: SpendRefused) -> Failure:
        """A budget or a rate limit does not allow it: what that means."""
        self._price_others(request)
        return failures.of_budget(request.model, event.problem, state.cost_usd, is_rate=event.is_rate)

    def _price_others(self, request: Request) -> None:
        """Find out what others would cost, so that a cheaper one can be asked."""
        prompt_tokens = self._estimator.estimate(request.model.name, request.transformed_facts).likely
        others = request.attempts.chain
        if request.choice is not None:
            others += request.choice.candidates
        for model in others:
            cost_usd = orders.most_cost_usd(request, model, prompt_tokens)
            request.attempts.costs_usd.setdefault(model.name, cost_usd)

    def _log(self, severity: Severity, text: str) -> None:
        self._open.out.append(Log(severity=severity, text=text))


def _choice_of(request: Request) -> Choice:
    assert request.choice is not None, "it named a model"
    return request.choice
