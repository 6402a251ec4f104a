"""Both machines in a world that does anything in any order: completions late, twice or never, clocks that jump.

`World` checks after each event what must always be true; here are the things that may happen, and the end, at
which everybody must have got their outcome.
"""

from random import Random

from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.spending import BudgetConfig, BudgetScope, KeyFacts
from gatewright.api.facts import ApiFormat, Continuation, Wishes
from gatewright.commands import Outcome
from gatewright.config import CallTimeouts, Config, ModelConfig, Tokenization
from gatewright.events import (
    BudgetsSeen,
    ConfigReplaced,
    EngineExited,
    EngineProbed,
    EngineSpawned,
    ExperimentsSet,
    Health,
    OutcomesLearnt,
    ShutdownRequested,
    SpecsReplaced,
    StopAsked,
    Woke,
)
from gatewright.route_config import (
    ArmConfig,
    EstimatorConfig,
    EstimatorKind,
    ExperimentConfig,
    ExperimentState,
    FallbackPolicy,
    FallbackStrategy,
    RouteConfig,
)
from gatewright.selection.decision import Exploration
from gatewright.selection.profiles import Pricing
from gatewright.selection.signals import PromptSignals
from tests.core.machines import build
from tests.core.machines.world import World
from tests.properties.endings import completions, finish

MODELS = ("qwen", "llama", "embed", "gpt", "mistral", "tiny")
ROUTES = (
    RouteConfig(name="auto", exploration=Exploration.THOMPSON),
    RouteConfig(
        name="asked",
        candidates=("gpt", "mistral", "qwen"),
        estimator=EstimatorConfig(kind=EstimatorKind.MODEL, model="tiny"),
        fallback=FallbackPolicy(
            strategies=(FallbackStrategy.LOCAL_WHEN_OFFLINE, *FallbackStrategy), max_length=2, max_attempts=5
        ),
        experiment=ExperimentConfig(
            name="trial",
            arms=(
                ArmConfig(name="a", share=0.5),
                ArmConfig(name="b", share=0.5, candidates=("llama", "gpt")),
            ),
        ),
    ),
)
BUDGETS = (
    BudgetConfig(name="monthly", limit_usd=5.0),
    BudgetConfig(name="each", limit_usd=1.0, scope=BudgetScope.MODEL),
)
PRICES = {"gpt": 10.0, "mistral": 2.0, "tiny": 0.1}
KEY = KeyFacts(
    key_id="k", name="ci", requests_per_minute=3, budget_usd=1.0, models=frozenset({"gpt", "qwen"})
)


def make_config(binary: str = "llama-server", *, with_routes: bool = True) -> Config:
    timeouts = {"startup_s": 20.0, "idle_s": 30.0, "stop_s": 3.0}
    config = build.config(
        build.model("qwen", 512, 2048, 8192, parallel=2, binary=binary, **timeouts),
        build.model(
            "llama",
            4096,
            tokenization=Tokenization(binary="llama-tokenize"),
            fallbacks=("gpt",),
            retries=5,
            **timeouts,
        ),
        build.model(
            "embed",
            512,
            secondary=True,
            parallel=None,
            call_timeouts=CallTimeouts(total_s=40.0),
            **timeouts,
        ),
        build.remote_model(
            "gpt", parallel=2, fallbacks=("mistral", "llama", "qwen", "embed"), prefill=Continuation.PREFIX
        ),
        build.remote_model("mistral", retries=9, fallbacks=("gpt",), max_attempts=3),
        build.remote_model("tiny", 500, retries=1, fallbacks=("mistral", "qwen")),
        max_waiting=6,
        max_wait_s=10.0,
        queue_timeout_s=60.0,
    )
    if not with_routes:
        return config
    return evolve(config, models=tuple(map(priced, config.models)), routes=ROUTES, budgets=BUDGETS)


def priced(model: ModelConfig) -> ModelConfig:
    price = PRICES.get(model.name, 0.0)
    pricing = Pricing(input_per_million=price, output_per_million=price, engine_hour=0.1)
    return evolve(model, profile=evolve(model.profile, pricing=pricing))


CONFIGS = (make_config(), make_config(binary="llama-server-2"), make_config(with_routes=False))


def specs(config):
    return tuple(spec for model in config.models for spec in model.variants)


class Machines(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self.requests = 0
        self.used = []  # completions that were delivered, to be delivered again

    @initialize(immediate=st.booleans())
    def begin(self, immediate):
        self.world = World(CONFIGS[0], immediate=immediate, chance=Random(1))

    # --- clients

    @rule(
        model=st.sampled_from(("qwen", "qwen", "gpt", "auto", "auto", "asked", *MODELS)),
        key=st.sampled_from((None, None, KEY)),
        wishes=st.sampled_from((None, None, Wishes(max_attempts=2), Wishes(fallbacks=("qwen",), user="u"))),
        given=st.sampled_from((0, 100, 450, 600, 3000)),
        prompt_bytes=st.sampled_from((0, 0, 300, 2000)),
        stream=st.booleans(),
        answer=st.sampled_from((None, None, 1, 2000)),
        client_timeout_s=st.sampled_from((None, None, 3.0, 30.0)),
        is_text=st.booleans(),
    )
    def receive(self, *, model, given, prompt_bytes, stream, answer, client_timeout_s, is_text, key, wishes):
        self.requests += 1
        facts = build.chat(
            model,
            prompt_bytes,
            given=given,
            stream=stream,
            answer=answer,
            continuable=is_text or stream,
            client_timeout_s=client_timeout_s,
            format=ApiFormat.COMPLETION if is_text else ApiFormat.CHAT,
        )
        facts = evolve(facts, key=key, wishes=wishes, signals=PromptSignals(text_characters=prompt_bytes))
        self.world.receive(f"r{self.requests}", facts)

    @rule(
        facts=st.sampled_from(
            (
                build.chat("nobody"),
                build.chat(None),
                build.chat("qwen", 2_000_000),
                build.chat("llama", 20_000),
                build.chat("qwen", given=9000),
                build.chat("embed", given=9000, sized=False),
            )
        )
    )
    def receive_something_odd(self, facts):
        self.requests += 1
        self.world.receive(f"r{self.requests}", facts)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def lose_client(self, data):
        self.world.lose_client(data.draw(st.sampled_from(sorted(self.world.clients))))

    # --- counts, calls and relays

    @precondition(lambda self: self.world.work)
    @rule(data=st.data())
    def complete(self, data):
        command_id = data.draw(st.sampled_from(sorted(self.world.work)))
        event = data.draw(completions(self.world, self.world.work[command_id]))
        self.used.append(event)
        self.world.complete(event)

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def complete_again(self, data):
        stale = self.world.gateway.stale
        commands = self.world.gateway_event(data.draw(st.sampled_from(self.used)))
        assert commands == []
        assert self.world.gateway.stale == stale + 1

    @rule(
        model=st.sampled_from(MODELS),
        success=st.booleans(),
        left_usd=st.sampled_from((0.0, 1.0)),
        promoted=st.sampled_from((None, "a", "b")),
    )
    def news_of_the_store(self, *, model, success, left_usd, promoted):
        outcome = ModelOutcome(request_id="other", model=model, success=success, at=-5.0)
        feedback = Feedback(request_id="r1", score=float(success), at=0.0)
        self.world.gateway_event(OutcomesLearnt(outcomes=(outcome,), feedback=(feedback,)))
        self.world.gateway_event(BudgetsSeen(left_usd={f"each/model={model}": left_usd}))
        state = ExperimentState(experiment="trial", promoted=promoted, is_ended=promoted is None)
        self.world.gateway_event(ExperimentsSet(states=(state,)))

    # --- engines

    @precondition(lambda self: self.world.spawns)
    @rule(data=st.data(), works=st.booleans())
    def spawn(self, data, works):
        command = self.world.spawns[data.draw(st.sampled_from(sorted(self.world.spawns)))]
        if works:
            self.world.spawned(command)
        else:
            self.world.spawn_failed(command, "no such file")

    @precondition(lambda self: self.world.spawns or self.world.probes)
    @rule()
    def engines_get_ready(self):
        for command in list(self.world.spawns.values()):
            self.world.spawned(command)
        self.world.pass_time(self.world.now + 0.3)
        for command_id in list(self.world.probes):
            self.world.probed(EngineProbed(command_id=command_id, health=Health.READY))

    @precondition(lambda self: self.world.probes)
    @rule(
        data=st.data(),
        health=st.sampled_from((Health.READY, *Health)),
        slots=st.sampled_from((None, 0, 1, 4)),
        context=st.sampled_from((None, 256, 8192)),
    )
    def probe(self, data, health, slots, context):
        command_id = data.draw(st.sampled_from(sorted(self.world.probes)))
        event = EngineProbed(command_id=command_id, health=health, slots=slots, context_tokens=context)
        self.world.probed(event)

    @precondition(lambda self: self.world.probes or self.world.held)
    @rule()
    def engines_hang(self):
        for _ in range(3):
            self.world.pass_time(self.world.now + 6)
            for command_id in list(self.world.probes):
                self.world.probed(EngineProbed(command_id=command_id, health=Health.UNREACHABLE))

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data())
    def exit(self, data):
        self.world.exited(data.draw(st.sampled_from(sorted(self.world.processes))), "exit code 1")

    @rule(number=st.integers(0, 200))
    def late_news_of_engines(self, number):
        """Of processes and commands that are over, or never were."""
        world, stale = self.world, self.world.fleet.stale
        events = []
        if number not in world.probes:
            events.append(EngineProbed(command_id=build.cid(number), health=Health.READY))
        if number not in world.spawns:
            events.append(EngineSpawned(command_id=build.cid(number), pid=1, base_url="http://late"))
        if number not in world.processes and all(number != c.engine_id for c in world.spawns.values()):
            events.append(EngineExited(engine_id=build.eid(number), reason="late"))
        for event in events:
            world.fleet_event(event)
        assert world.fleet.stale == stale + len(events)

    # --- operators

    @precondition(lambda self: self.requests % 3 == 2)
    @rule(model=st.sampled_from((*MODELS, None)), force=st.booleans())
    def stop(self, model, force):
        self.world.fleet_event(StopAsked(model=model, force=force))

    @rule(config=st.sampled_from(CONFIGS))
    def reload(self, config):
        old, self.world.config = self.world.config, config
        self.world.gateway_event(ConfigReplaced(config=config))
        self.world.fleet_event(SpecsReplaced(old=specs(old), new=specs(config)))

    @precondition(lambda self: self.requests % 4 == 3)
    @rule()
    def reconnect(self):
        self.world.reconnect()

    @precondition(lambda self: self.requests > 10 and self.requests % 5 == 0)
    @rule(force=st.booleans(), fleet=st.booleans())
    def shut_down(self, force, fleet):
        if fleet:
            self.world.fleet_event(ShutdownRequested(force=force))
        self.world.gateway_event(ShutdownRequested(force=force))

    # --- time

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 20.0)))
    def pass_time(self, seconds):
        self.world.pass_time(self.world.now + seconds)

    @rule(seconds=st.sampled_from((0.0, 0.3, 40.0, 1000.0)))
    def jump(self, seconds):
        """The clock jumps, and nobody is woken."""
        self.world.now += seconds

    @rule()
    def wake_for_nothing(self):
        self.world.gateway_event(Woke())
        self.world.fleet_event(Woke())

    # --- messages that travel

    @precondition(lambda self: self.world.to_fleet)
    @rule()
    def carry_to_fleet(self):
        self.world.carry_to_fleet()

    @precondition(lambda self: self.world.to_gateway)
    @rule()
    def carry_to_gateway(self):
        self.world.carry_to_gateway()

    @invariant()
    def balanced(self):
        world = getattr(self, "world", None)
        if world is not None and not world.to_fleet and not world.to_gateway:
            world.check_balance()
            assert all(len(place.waiters) <= 6 for place in world.fleet._places.values())

    # --- the end

    def teardown(self):
        if not hasattr(self, "world"):
            return
        finish(self.world)
        outcomes = {client.record.outcome for client in self.world.clients.values()}
        assert outcomes <= set(Outcome)


TestMachines = Machines.TestCase
TestMachines.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.too_slow],
)
