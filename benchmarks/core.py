"""What the pure core costs: one request's events through both machines, and choosing among many models.

Usage: python benchmarks/core.py
"""

import timeit
from statistics import median

from gatewright.api.facts import ApiFormat, RequestFacts, Usage
from gatewright.commands import BeginRelay, CallUpstream, SpawnEngine, TellHolder
from gatewright.config import Config, ModelConfig
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright.events import (
    EngineProbed,
    EngineSpawned,
    Health,
    HolderAttached,
    LeaseAsked,
    RelayEnded,
    RequestReceived,
    UpstreamAnswered,
)
from gatewright.fleet import Fleet
from gatewright.gateway import Gateway
from gatewright.ids import HolderId, RequestId
from gatewright.leases import LeaseEngine, ReleaseLease
from gatewright.selection.tokens import TokenEstimator
from gatewright.selection.variants import choose_variant

HOLDER = HolderId(1)
USAGE = Usage(prompt_tokens=50, completion_tokens=20)


def make_config(models: int) -> Config:
    return Config(
        models=tuple(
            ModelConfig(
                name=f"model-{number}",
                variants=tuple(
                    EngineSpec(
                        model=f"model-{number}",
                        context_tokens=context_tokens,
                        connect="http://127.0.0.1:${PORT}",
                        process=ProcessSpec(binary="llama-server"),
                        parallel=4,
                    )
                    for context_tokens in (4096, 32768, 131072)
                ),
            )
            for number in range(models)
        )
    )


def facts_for(model: str) -> RequestFacts:
    return RequestFacts(
        path="/v1/chat/completions", format=ApiFormat.CHAT, model=model, prompt_bytes=200, messages=1
    )


class World:
    """Both machines with the first model's engine ready."""

    def __init__(self, models: int) -> None:
        self.gateway = Gateway(make_config(models))
        self.fleet = Fleet()
        self.facts = facts_for("model-0")
        self.requests = 0
        self.fleet.handle(HolderAttached(holder=HOLDER), 0.0)
        (lease,) = self.gateway.handle(self._received(), 0.0)
        assert isinstance(lease, LeaseEngine)
        spawn, *_ = self.fleet.handle(LeaseAsked(holder=HOLDER, request=lease), 0.0)
        assert isinstance(spawn, SpawnEngine)
        probe, *_ = self.fleet.handle(
            EngineSpawned(command_id=spawn.command_id, pid=1, base_url="http://127.0.0.1:1"), 0.0
        )
        told = self.fleet.handle(EngineProbed(command_id=probe.command_id, health=Health.READY), 0.0)  # type: ignore[union-attr]
        self.finish(told)

    def _received(self) -> RequestReceived:
        self.requests += 1
        return RequestReceived(request_id=RequestId(str(self.requests)), facts=self.facts)

    def finish(self, told: list[object]) -> None:
        """Everything from the lease's grant to its return."""
        granted = next(command.news for command in told if isinstance(command, TellHolder))
        (call,) = self.gateway.handle(granted, 1.0)
        assert isinstance(call, CallUpstream)
        (relay,) = self.gateway.handle(UpstreamAnswered(command_id=call.command_id, status=200), 1.0)
        assert isinstance(relay, BeginRelay)
        release, _ = self.gateway.handle(RelayEnded(command_id=relay.command_id, usage=USAGE), 1.0)
        assert isinstance(release, ReleaseLease)
        self.fleet.handle(LeaseAsked(holder=HOLDER, request=release), 1.0)

    def one_request(self) -> None:
        """All events of one request, as a driver feeds them, with the timers that it would read."""
        (lease,) = self.gateway.handle(self._received(), 1.0)
        assert isinstance(lease, LeaseEngine)
        self.finish(self.fleet.handle(LeaseAsked(holder=HOLDER, request=lease), 1.0))  # type: ignore[arg-type]
        _ = self.gateway.wake_at, self.fleet.wake_at


def microseconds(run: object, number: int) -> float:
    return median(timeit.repeat(run, number=number, repeat=9)) / number * 1e6  # type: ignore[arg-type]


def main() -> None:
    print("median of 9 runs, one thread\n")
    print("| models | whole request, both machines | find model, estimate, choose variant |")
    print("|---:|---:|---:|")
    for models in (10, 1_000, 10_000):
        world = World(models)
        config, estimator = make_config(models), TokenEstimator()
        last = f"model-{models - 1}"
        facts = facts_for(last)

        def select(
            config: Config = config,
            estimator: TokenEstimator = estimator,
            facts: RequestFacts = facts,
            last: str = last,
        ) -> None:
            model = config.find_model(last)
            choose_variant(model, facts, estimator.estimate(last, facts))

        print(
            f"| {models:,} | {microseconds(world.one_request, 2000):.1f} us | {microseconds(select, 5000):.1f} us |"
        )


if __name__ == "__main__":
    main()
