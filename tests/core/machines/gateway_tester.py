"""A Gateway, its clock, and short ways to answer what it commanded last."""

from typing import Any

from attrs import evolve

from gatewright.accounting.outcomes import ModelOutcome
from gatewright.api.facts import RequestFacts, UpstreamError
from gatewright.commands import BeginRelay, CallUpstream, CountTokens, GatewayCommand, Outcome, RecordRequest
from gatewright.config import ModelConfig
from gatewright.errors import FailedAttempt, Problem
from gatewright.events import (
    CallFailure,
    ClientGone,
    GatewayEvent,
    RelayEnded,
    RelayFailure,
    RequestReceived,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
    Woke,
)
from gatewright.gateway import Gateway
from gatewright.ids import LeaseId
from gatewright.leases import LeaseEngine, LeaseGranted, LeaseLost, LeaseProgress, LeaseRefused
from gatewright.selection.beliefs import Chance
from tests.core.machines.build import PATH, config, rid

URL = "http://engine"


class GatewayTester:
    """Its methods answer the last lease and the last count, call or relay that was commanded.

    What a record says of each model's outcome is kept in `outcomes`, and left out of the commands: tests that are about
    something else need not repeat it.
    """

    def __init__(self, *models: ModelConfig, chance: Chance | None = None, **server: float) -> None:
        self.gateway = Gateway(config(*models, **server), chance)
        self.lease: LeaseEngine | None = None
        self.work: CountTokens | CallUpstream | BeginRelay | None = None
        self.outcomes: list[ModelOutcome] = []

    def tell(self, now: float, event: GatewayEvent) -> list[GatewayCommand]:
        commands = self.gateway.handle(event, now)
        for command in commands:
            if isinstance(command, LeaseEngine):
                self.lease = command
            elif isinstance(command, CountTokens | CallUpstream | BeginRelay):
                self.work = command
            elif isinstance(command, RecordRequest):
                self.outcomes += command.outcomes
        return [
            evolve(command, outcomes=()) if isinstance(command, RecordRequest) else command
            for command in commands
        ]

    # --- clients

    def receive(self, now: float, facts: RequestFacts, request_id: str = "r") -> list[GatewayCommand]:
        return self.tell(now, RequestReceived(request_id=rid(request_id), facts=facts))

    def gone(self, now: float, request_id: str = "r") -> list[GatewayCommand]:
        return self.tell(now, ClientGone(request_id=rid(request_id)))

    def wake(self, now: float) -> list[GatewayCommand]:
        return self.tell(now, Woke())

    # --- the Fleet

    @property
    def lease_id(self) -> Any:
        assert self.lease is not None
        return self.lease.lease_id

    def granted(
        self, now: float, context: int | None = None, *, is_probe: bool = False
    ) -> list[GatewayCommand]:
        """The first of the variants that were asked for, where none is named."""
        assert self.lease is not None
        context = context or self.lease.variants[0].context_tokens
        event = LeaseGranted(lease_id=self.lease_id, context_tokens=context, base_url=URL, is_probe=is_probe)
        return self.tell(now, event)

    def refused(self, now: float, problem: Problem) -> list[GatewayCommand]:
        return self.tell(now, LeaseRefused(lease_id=self.lease_id, problem=problem))

    def lost(self, now: float, problem: Problem, lease_id: LeaseId | None = None) -> list[GatewayCommand]:
        return self.tell(now, LeaseLost(lease_id=lease_id or self.lease_id, problem=problem))

    def progress(self, now: float, **facts: Any) -> list[GatewayCommand]:
        return self.tell(now, LeaseProgress(lease_id=self.lease_id, **facts))

    # --- upstreams

    @property
    def command_id(self) -> Any:
        assert self.work is not None
        return self.work.command_id

    def counted(self, now: float, tokens: int) -> list[GatewayCommand]:
        return self.tell(now, TokensCounted(command_id=self.command_id, prompt_tokens=tokens))

    def count_failed(self, now: float) -> list[GatewayCommand]:
        return self.tell(now, TokenCountFailed(command_id=self.command_id, reason="no answer"))

    def answered(
        self, now: float, status: int = 200, error: UpstreamError | None = None
    ) -> list[GatewayCommand]:
        return self.tell(now, UpstreamAnswered(command_id=self.command_id, status=status, error=error))

    def failed(
        self, now: float, failure: CallFailure = CallFailure.BROKEN, reason: str = "reset"
    ) -> list[GatewayCommand]:
        return self.tell(now, UpstreamFailed(command_id=self.command_id, failure=failure, reason=reason))

    def relayed(self, now: float, failure: RelayFailure | None = None, **facts: Any) -> list[GatewayCommand]:
        facts = {"reason": "" if failure is None else "reset", **facts}
        return self.tell(now, RelayEnded(command_id=self.command_id, failure=failure, **facts))

    # --- a request in some state

    def calling(self, facts: RequestFacts) -> "GatewayTester":
        """At second 1 the request has its engine."""
        self.receive(0, facts)
        self.granted(1)
        return self

    def relaying(self, facts: RequestFacts) -> "GatewayTester":
        """At second 2 the first byte of its answer is here."""
        self.calling(facts)
        self.answered(2)
        return self


def headers(
    attempts: int, wait_ms: int, *, variant: int | None = 4096, model: str = "qwen", request_id: str = "r"
) -> tuple[tuple[str, str], ...]:
    told = () if variant is None else (("x-gw-variant", str(variant)),)
    return (
        ("x-request-id", request_id),
        ("x-gw-model", model),
        *told,
        ("x-gw-attempts", str(attempts)),
        ("x-gw-wait-ms", str(wait_ms)),
    )


def record(outcome: Outcome, **facts: Any) -> RecordRequest:
    values: dict[str, Any] = {"request_id": rid("r"), "path": PATH, "model": "qwen", **facts}
    return RecordRequest(outcome=outcome, **values)


def attempt(problem: Problem, model: str = "qwen", upstream_status: int | None = None) -> FailedAttempt:
    return FailedAttempt(
        model=model, kind=problem.kind, message=problem.message, upstream_status=upstream_status
    )
