"""Chains of models that fail in all ways: calls, retries, fallbacks and answers that are gone on with.

`World` checks after each event how often which upstream was called, and that whoever waits is woken.
"""

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatewright.api.facts import ApiFormat, Continuation, Resumable
from gatewright.commands import BeginRelay, CallUpstream, Outcome
from gatewright.config import CallTimeouts
from gatewright.events import (
    EngineProbed,
    Health,
    RelayEnded,
    RelayFailure,
    ShutdownRequested,
    UpstreamAnswered,
    Woke,
)
from tests.core.machines import build
from tests.core.machines.world import World
from tests.properties.endings import completions, failures, finish

CONFIG = build.config(
    build.remote_model(
        "gpt", fallbacks=("mistral", "qwen", "large"), prefill=Continuation.PREFIX, max_attempts=9
    ),
    build.remote_model("mistral", retries=9, fallbacks=("gpt",), max_attempts=3),
    build.remote_model("tiny", 500, retries=0, fallbacks=("mistral", "gpt", "large", "qwen")),
    build.remote_model("large", 400_000, retries=1, call_timeouts=CallTimeouts(total_s=20.0)),
    build.model("qwen", 512, 8192, fallbacks=("large", "gpt"), retries=2, startup_s=20.0, idle_s=30.0),
)
MOST_AT_A_TIME = 3
REQUESTS = st.builds(
    build.chat,
    st.sampled_from([model.name for model in CONFIG.models]),
    given=st.sampled_from((100, 450, 600)),
    stream=st.sampled_from((True, True, False)),
    continuable=st.booleans(),
    client_timeout_s=st.sampled_from((None, None, 4.0, 30.0)),
    format=st.sampled_from((ApiFormat.CHAT, ApiFormat.CHAT, ApiFormat.COMPLETION)),
)


class FailingUpstreams(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self.requests = 0

    @initialize(immediate=st.booleans(), seed=st.integers(0, 3))
    def begin(self, immediate, seed):
        self.world = World(CONFIG, immediate=immediate, chance=Random(seed))

    # --- clients

    @precondition(lambda self: self.world.gateway.active < MOST_AT_A_TIME)
    @rule(facts=REQUESTS)
    def receive(self, facts):
        self.requests += 1
        self.world.receive(f"r{self.requests}", facts)

    @precondition(lambda self: self.requests % 4 == 3)
    @rule(data=st.data())
    def lose_client(self, data):
        self.world.lose_client(data.draw(st.sampled_from(sorted(self.world.clients))))

    # --- upstreams

    @precondition(lambda self: self.world.work)
    @rule(data=st.data())
    def complete(self, data):
        work = self.world.work[data.draw(st.sampled_from(sorted(self.world.work)))]
        self.world.complete(data.draw(completions(self.world, work)))

    @rule(data=st.data(), facts=REQUESTS, rounds=st.integers(2, 12))
    def fail_again_and_again(self, data, facts, rounds):
        """Somebody asks. Answers may begin, but nothing comes to its end."""
        if self.world.gateway.active < MOST_AT_A_TIME:
            self.receive(facts)
        self.world.carry_all()
        for _ in range(rounds):
            self.engine_starts(Health.READY)
            for work in list(self.world.work.values()):
                begins = isinstance(work, CallUpstream) and data.draw(st.booleans())
                begun = UpstreamAnswered(command_id=work.command_id, status=200)
                self.world.complete(begun if begins else data.draw(failures(self.world, work)))
            self.world.pass_time(self.world.now + data.draw(st.sampled_from((0.0, 0.1, 0.5, 1.0))))

    @precondition(lambda self: self._of(CallUpstream))
    @rule()
    def begin_all(self):
        for work in self._of(CallUpstream):
            self.world.complete(UpstreamAnswered(command_id=work.command_id, status=200))

    @precondition(lambda self: self._of(BeginRelay))
    @rule(
        failure=st.sampled_from((RelayFailure.BROKEN, RelayFailure.STALLED, RelayFailure.INCOMPLETE)),
        resumable=st.sampled_from((Resumable.CONTINUE, Resumable.REPEAT)),
    )
    def break_all(self, failure, resumable):
        for work in self._of(BeginRelay):
            can_be = resumable if self.world.clients[work.request_id].facts.stream else Resumable.NO
            ended = RelayEnded(command_id=work.command_id, failure=failure, reason="x", resumable=can_be)
            self.world.complete(ended)

    def _of(self, kind):
        return [work for work in self.world.work.values() if isinstance(work, kind)]

    # --- the engine of our own

    @precondition(lambda self: self.world.spawns or self.world.probes)
    @rule(health=st.sampled_from((Health.READY, Health.READY, Health.LOADING)))
    def engine_starts(self, health):
        for command in list(self.world.spawns.values()):
            self.world.spawned(command)
        self.world.pass_time(self.world.now + 0.3)
        for command_id in list(self.world.probes):
            self.world.probed(EngineProbed(command_id=command_id, health=health))

    @precondition(lambda self: self.world.processes)
    @rule()
    def engine_dies(self):
        for engine_id in list(self.world.processes):
            self.world.exited(engine_id, "signal 9")

    # --- everything else

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 5.0, 20.0)))
    def pass_time(self, seconds):
        self.world.pass_time(self.world.now + seconds)

    @rule(seconds=st.sampled_from((0.3, 40.0)))
    def jump(self, seconds):
        """The clock jumps, and nobody is woken."""
        self.world.now += seconds

    @rule()
    def wake_for_nothing(self):
        self.world.gateway_event(Woke())

    @precondition(lambda self: self.requests > 20)
    @rule(force=st.booleans())
    def shut_down(self, force):
        self.world.gateway_event(ShutdownRequested(force=force))

    @precondition(lambda self: self.requests % 5 == 4)
    @rule()
    def reconnect(self):
        self.world.reconnect()

    @precondition(lambda self: self.world.to_fleet or self.world.to_gateway)
    @rule()
    def carry(self):
        self.world.carry_all()

    @invariant()
    def balanced(self):
        world = getattr(self, "world", None)
        if world is not None and not world.to_fleet and not world.to_gateway:
            world.check_balance()

    def teardown(self):
        if not hasattr(self, "world"):
            return
        finish(self.world)
        for client in self.world.clients.values():
            assert client.record is not None
            is_whole = client.record.outcome in {Outcome.ANSWERED, Outcome.UPSTREAM_ERROR}
            assert is_whole == (
                client.record.problem is None and client.record.outcome is not Outcome.CANCELED
            )


TestFailingUpstreams = FailingUpstreams.TestCase
TestFailingUpstreams.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.too_slow],
)
