"""What the calls of one request came to: how each model did, and what that cost.

A call that nobody can tell the usage of is billed by estimate where its answer had begun, since providers bill it too.
"""

from attrs import define, field

from gatewright.accounting.costs import cost_usd
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.spending import Charge
from gatewright.api.facts import Usage
from gatewright.config import ModelConfig
from gatewright.leases import CallResult
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.failures import Failure


@define(eq=False)
class CallLog:
    """Of one request.

    Attributes:
        request_id: Which.
        task: Name of its task.
        complexity: How hard it was thought to be.
        propensity: Probability with which its first model was chosen.
        experiment: Experiment that it takes part in.
        arm: Its arm.
        unit: For whom the arm stays the same.
        charges: Accounts of the present model.
        accounts: Every account that it was ever to be charged to.
        outcomes: How each model did.
        cost_usd: Of all calls.
        charged_usd: The same by account.
    """

    request_id: str
    task: str = ""
    complexity: TaskComplexity | None = None
    propensity: float = 1.0
    experiment: str | None = None
    arm: str | None = None
    unit: str | None = None
    charges: tuple[Charge, ...] = ()
    outcomes: tuple[ModelOutcome, ...] = ()
    cost_usd: float = 0.0
    charged_usd: dict[str, float] = field(factory=dict)
    accounts: dict[str, Charge] = field(factory=dict)
    _calls: int = 0
    _called_at: float | None = None
    _first_token_ms: float | None = None

    def charge_to(self, charges: tuple[Charge, ...]) -> None:
        """The present model counts on these accounts."""
        self.charges = charges
        self.accounts.update({charge.account: charge for charge in charges})

    def called(self, now: float) -> None:
        """A call begins."""
        self._calls += 1
        self._called_at, self._first_token_ms = now, None

    def answered(self, now: float) -> None:
        """Its answer has begun."""
        if self._called_at is not None:
            self._first_token_ms = (now - self._called_at) * 1000

    def cost_of(self, model: ModelConfig, now: float, usage: Usage | None) -> float:
        """What the request has cost, if the call under way ended now; US dollars.

        Args:
            model: Who was called.
            now: Seconds, on the Gateway's clock.
            usage: Tokens, counted or by estimate; None where none were used.
        """
        return self.cost_usd + self._cost_of_call(model, now, usage)

    def _cost_of_call(self, model: ModelConfig, now: float, usage: Usage | None) -> float:
        if self._called_at is None:
            return 0.0
        usage = usage or Usage(prompt_tokens=0)
        return cost_usd(
            model.profile.pricing,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            engine_s=0.0 if model.is_remote else now - self._called_at,
        )

    def count_failure(self, model: ModelConfig, failure: Failure, now: float) -> None:
        """The call was answered with an error.

        That says nothing about the model where it is the request's fault, and nothing about how good its answers are
        where the upstream is not well.
        """
        is_available = failure.result not in {CallResult.FAILED, CallResult.CREDENTIAL}
        says_something = failure.is_refusal or not is_available
        self.end(model, now, success=False if says_something else None, is_available=is_available)

    def end(
        self,
        model: ModelConfig,
        now: float,
        *,
        success: bool | None,
        is_available: bool = True,
        usage: Usage | None = None,
    ) -> None:
        """The call that was under way is over.

        Args:
            model: Who was called.
            now: Seconds, on the Gateway's clock.
            success: Whether it did the task; None where the call says nothing about the model.
            is_available: Whether it answered at all.
            usage: Tokens, counted or by estimate; None where none were used.
        """
        if self._called_at is None:
            return
        amount = self._cost_of_call(model, now, usage)
        self.cost_usd += amount
        for charge in self.charges:
            self.charged_usd[charge.account] = self.charged_usd.get(charge.account, 0.0) + amount
        latency_ms, self._called_at = (now - self._called_at) * 1000, None
        if success is None:
            return
        outcome = ModelOutcome(
            request_id=self.request_id,
            model=model.name,
            success=success,
            at=now,
            task=self.task,
            complexity=self.complexity,
            latency_ms=latency_ms,
            first_token_ms=self._first_token_ms,
            completion_tokens=usage.completion_tokens if usage is not None else 0,
            cost_usd=amount,
            is_available=is_available,
            # Whom a failure led to was not drawn.
            propensity=self.propensity if self._calls == 1 else 1.0,
            experiment=self.experiment,
            arm=self.arm,
            sequence=self._calls - 1,
            unit=self.unit,
        )
        self.outcomes = (*self.outcomes, outcome)
