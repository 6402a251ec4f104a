"""A Gateway with routes, and short ways to answer what it commanded last."""

from typing import Any

from attrs import evolve

from gatewright.api.facts import Usage
from gatewright.commands import (
    BeginRelay,
    CallUpstream,
    GatewayCommand,
    RecordRequest,
    SendProblem,
)
from gatewright.config import Config, ModelConfig
from gatewright.events import (
    CallFailure,
    GatewayEvent,
    RelayEnded,
    RequestReceived,
    UpstreamAnswered,
    UpstreamFailed,
)
from gatewright.gateway import Gateway
from gatewright.leases import (
    LeaseEngine,
    LeaseGranted,
)
from gatewright.route_config import (
    RouteConfig,
)
from gatewright.selection.profiles import Pricing
from gatewright.selection.signals import PromptSignals
from tests.core.machines.build import chat, model, remote_model, rid

EASY = PromptSignals(text_characters=40)


def described(base: ModelConfig, **facts: Any) -> ModelConfig:
    return evolve(base, profile=evolve(base.profile, **facts))


def priced(name: str, price: float, *, context: int = 32_000, **facts: Any) -> ModelConfig:
    pricing = Pricing(input_per_million=price, output_per_million=price)
    return described(remote_model(name, context, retries=0), pricing=pricing, **facts)


DEAR = priced("dear", 10.0, quality=0.95, capabilities=frozenset({"code", "reasoning"}))
CHEAP = priced("cheap", 0.1, quality=0.6, tags=frozenset({"small"}))
LOCAL = described(model("local", 4096, 16384), quality=0.55)


class RouteTester:
    """A Gateway, and answers to what it commanded last."""

    def __init__(self, *models: ModelConfig, chance: Any = None, **config: Any) -> None:
        routes = config.pop("routes", (RouteConfig(name="auto"),))
        self.config = Config(models=models, routes=routes, **config)
        self.gateway = Gateway(self.config, chance)
        self.last: dict[type, Any] = {}
        self.commands: list[GatewayCommand] = []

    def tell(self, now: float, event: GatewayEvent) -> list[GatewayCommand]:
        commands = self.gateway.handle(event, now)
        self.commands += commands
        self.last.update({type(command): command for command in commands})
        return commands

    def ask(self, now: float, request_id: str = "r", **facts: Any) -> list[GatewayCommand]:
        asked = evolve(chat(model="auto"), **{"signals": EASY, **facts})
        return self.tell(now, RequestReceived(request_id=rid(request_id), facts=asked))

    def granted(self, now: float) -> list[GatewayCommand]:
        lease: LeaseEngine = self.last[LeaseEngine]
        spec = lease.variants[0]
        return self.tell(
            now,
            LeaseGranted(lease_id=lease.lease_id, context_tokens=spec.context_tokens, base_url="http://x"),
        )

    def answered(self, now: float, status: int = 200) -> list[GatewayCommand]:
        return self.tell(now, UpstreamAnswered(command_id=self.last[CallUpstream].command_id, status=status))

    def failed(self, now: float, failure: CallFailure = CallFailure.TIMEOUT) -> list[GatewayCommand]:
        command_id = self.last[CallUpstream].command_id
        return self.tell(now, UpstreamFailed(command_id=command_id, failure=failure, reason="no"))

    def relayed(self, now: float, **facts: Any) -> list[GatewayCommand]:
        facts = {"usage": Usage(prompt_tokens=1000, completion_tokens=500), **facts}
        return self.tell(now, RelayEnded(command_id=self.last[BeginRelay].command_id, **facts))

    def carry_through(self, now: float) -> RecordRequest:
        """From the lease to the record."""
        self.granted(now)
        self.answered(now + 1)
        self.relayed(now + 2)
        return self.record

    @property
    def leased(self) -> str:
        """Model for which an engine was asked last."""
        name: str = self.last[LeaseEngine].variants[0].model
        return name

    @property
    def record(self) -> RecordRequest:
        record: RecordRequest = self.last[RecordRequest]
        return record

    @property
    def problem(self) -> Any:
        return self.last[SendProblem].problem
