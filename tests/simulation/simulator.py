"""The whole gateway in virtual time: clients, engines and upstreams that are drawn from a seed, and their faults."""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from attrs import define, evolve, field, frozen

from gatewright.api.facts import Continuation, Resumable, UpstreamError, Usage
from gatewright.commands import (
    BeginRelay,
    CallUpstream,
    CancelUpstream,
    CountTokens,
    Drained,
    ProbeEngine,
    RecordRequest,
    SignalEngine,
    SpawnEngine,
    StopSignal,
)
from gatewright.config import Config
from gatewright.events import (
    CallFailure,
    ConfigReplaced,
    EngineProbed,
    Health,
    RelayEnded,
    RelayFailure,
    ShutdownRequested,
    SpecsReplaced,
    StopAsked,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
)
from gatewright.ids import CommandId, EngineId, RequestId
from gatewright.tracing.rendering import render
from tests.core.machines.build import chat, overflow
from tests.core.machines.world import World


@frozen(kw_only=True)
class Faults:
    """Probabilities per occasion, and mean seconds between occasions."""

    spawn_fails: float = 0.05
    load_crashes: float = 0.05
    load_is_slow: float = 0.1
    ignores_sigterm: float = 0.2
    probe_is_lost: float = 0.05
    count_fails: float = 0.2
    call_breaks: float = 0.05
    call_is_refused: float = 0.1
    call_is_silent: float = 0.05
    continuation_differs: float = 0.2
    continuation_is_refused: float = 0.2
    relay_breaks: float = 0.05
    relay_is_incomplete: float = 0.02
    client_vanishes: float = 0.2
    client_is_impatient: float = 0.1
    engine_crash_every_s: float = 60.0
    engine_hang_every_s: float = 120.0
    connection_lost_every_s: float = 200.0
    operator_stops_every_s: float = 90.0
    reload_every_s: float = 120.0
    outage_every_s: float = 100.0


REFUSALS = (
    (500, UpstreamError(message="sorry")),
    (503, UpstreamError(message="overloaded", retry_after_s=2.0)),
    (429, UpstreamError(message="slow down", retry_after_s=20.0)),
    (401, UpstreamError(message="who are you?")),
    (400, UpstreamError(message="no", code="content_filter")),
)
OUTAGE_S = 30.0
NO_FAULTS = Faults(
    **{name: (float("inf") if name.endswith("_s") else 0.0) for name in Faults.__annotations__}
)


@frozen(kw_only=True)
class Traffic:
    """What clients ask for.

    Attributes:
        model: Name of the model.
        every_s: Mean seconds between two requests.
        tokens: Least and most prompt tokens.
        answer_s: Least and most seconds that an answer takes.
        is_regular: Requests come exactly every `every_s`.
    """

    model: str
    every_s: float
    tokens: tuple[int, int] = (10, 3000)
    answer_s: tuple[float, float] = (0.2, 5.0)
    is_regular: bool = False


@define
class Engine:
    """What the world knows of a process."""

    ready_at: float
    hangs: bool = False
    ignores_sigterm: bool = False
    works: set[CommandId] = field(factory=set)


class Simulation:
    """One run.

    Args:
        seed: Of all that is drawn.
        configs: The first is in force; a reload takes another.
        traffic: Clients.
        record: Keep the trace.
    """

    def __init__(
        self, seed: int, configs: tuple[Config, ...], traffic: tuple[Traffic, ...], *, record: bool = False
    ) -> None:
        self.random = Random(seed)
        self.configs = configs
        self.faults = NO_FAULTS
        self.trace: list[str] | None = [] if record else None
        self.records: list[tuple[float, RecordRequest]] = []
        self.drained = False
        self.engines: dict[EngineId, Engine] = {}
        self._tokens: dict[RequestId, int] = {}
        self._answer_s: dict[RequestId, float] = {}
        self._base_url: dict[RequestId, str] = {}  # of its last call
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._requests = count(1)
        self._arriving = True
        self._react: dict[type, Callable[[Any], None]] = {
            SpawnEngine: self._spawn,
            ProbeEngine: self._probe,
            SignalEngine: self._signal,
            CountTokens: self._count,
            CallUpstream: self._call,
            BeginRelay: self._relay,
            CancelUpstream: self._cancel,
            RecordRequest: lambda record: self.records.append((self.world.now, record)),
            Drained: lambda _: setattr(self, "drained", True),
        }
        self._outages: dict[str, float] = {}  # until when a provider's model answers nobody
        self.world = World(configs[0], observe=self._observe, chance=Random(seed))
        for each in traffic:
            self._arrive_later(each)

    # --- running

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        if delay_s != float("inf"):
            heapq.heappush(self._queue, (self.world.now + delay_s, next(self._order), act))

    def run(self, until: float) -> None:
        """Let the clock run."""
        world = self.world
        while True:
            wake_at = world.wake_at
            next_at = self._queue[0][0] if self._queue else float("inf")
            if min(next_at, float("inf") if wake_at is None else wake_at) > until:
                break
            if wake_at is not None and wake_at <= next_at:
                world.now = max(world.now, wake_at)
                world.wake()
            else:
                world.now = max(world.now, next_at)
                heapq.heappop(self._queue)[2]()
        world.now = until
        world.check_balance()

    def begin_faults(self, faults: Faults) -> None:
        self.faults = faults
        for every_s, act in (
            (faults.engine_crash_every_s, self._crash_one),
            (faults.engine_hang_every_s, self._hang_one),
            (faults.connection_lost_every_s, self.world.reconnect),
            (faults.operator_stops_every_s, self._stop_one),
            (faults.reload_every_s, self._reload),
            (faults.outage_every_s, self._begin_outage),
        ):
            self._again_and_again(every_s, act)

    def end_faults(self) -> None:
        self.faults = NO_FAULTS
        self._outages.clear()

    def end_arrivals(self) -> None:
        self._arriving = False

    def shut_down(self) -> None:
        self.world.gateway_event(ShutdownRequested())

    def _again_and_again(self, every_s: float, act: Callable[[], None]) -> None:
        faults = self.faults

        def happen() -> None:
            if self.faults is faults:
                act()
                self.later(self.random.expovariate(1 / every_s), happen)

        self.later(self.random.expovariate(1 / every_s), happen)

    def _observe(self, machine: str, kind: str, message: Any) -> None:
        if self.trace is not None:
            now = self.world.now if hasattr(self, "world") else 0.0
            self.trace.append(f"{now:.6f} {machine} {kind} {render(message)}")
        react = self._react.get(type(message)) if kind == "command" else None
        if react is not None:
            react(message)

    def _happens(self, probability: float) -> bool:
        return self.random.random() < probability

    # --- clients

    def _arrive_later(self, traffic: Traffic) -> None:
        def arrive() -> None:
            if self._arriving:
                self._arrive(traffic)
                self._arrive_later(traffic)

        every_s = traffic.every_s
        self.later(every_s if traffic.is_regular else self.random.expovariate(1 / every_s), arrive)

    def _arrive(self, traffic: Traffic) -> None:
        request_id = RequestId(f"r{next(self._requests)}")
        tokens = self.random.randint(*traffic.tokens)
        self._tokens[request_id] = tokens
        self._answer_s[request_id] = self.random.uniform(*traffic.answer_s)
        size = int(tokens * self.random.uniform(3.0, 5.0))
        vanishes, patience_s = self._happens(self.faults.client_vanishes), self.random.expovariate(1 / 10)
        facts = chat(
            traffic.model,
            size,
            stream=self._happens(0.5),
            continuable=self._happens(0.8),
            client_timeout_s=5.0 if self._happens(self.faults.client_is_impatient) else 600.0,
        )
        self.world.receive(request_id, facts)
        if vanishes:
            self.later(patience_s, lambda: self._vanish(request_id))

    def _vanish(self, request_id: RequestId) -> None:
        if self.world.clients[request_id].record is None:
            self.world.lose_client(request_id)

    # --- engines

    def _spawn(self, command: SpawnEngine) -> None:
        fails = self._happens(self.faults.spawn_fails)
        self.later(self.random.uniform(0.01, 0.2), lambda: self._spawned(command, fails=fails))

    def _spawned(self, command: SpawnEngine, *, fails: bool) -> None:
        if fails:
            self.world.spawn_failed(command, "cannot allocate memory")
            return
        load_s = self.random.uniform(0.5, 5.0) + (60.0 if self._happens(self.faults.load_is_slow) else 0.0)
        engine_id = command.engine_id
        self.engines[engine_id] = Engine(
            self.world.now + load_s, ignores_sigterm=self._happens(self.faults.ignores_sigterm)
        )
        if self._happens(self.faults.load_crashes):
            self.later(load_s / 2, lambda: self._die(engine_id, "exit code 1"))
        self.world.spawned(command)

    def _probe(self, command: ProbeEngine) -> None:
        is_lost = self._happens(self.faults.probe_is_lost)
        engine = self.engines.get(command.engine_id)
        hangs = engine is not None and engine.hangs
        delay_s = command.timeout_s if is_lost or hangs else self.random.uniform(0.001, 0.02)

        def come_back() -> None:
            engine = self.engines.get(command.engine_id)
            if engine is None or engine.hangs or is_lost:
                health = Health.UNREACHABLE
            elif self.world.now < engine.ready_at:
                health = Health.LOADING
            else:
                health = Health.READY
            self.world.probed(EngineProbed(command_id=command.command_id, health=health))

        self.later(delay_s, come_back)

    def _signal(self, command: SignalEngine) -> None:
        engine = self.engines.get(command.engine_id)
        if engine is None:
            return
        if command.signal is StopSignal.KILL:
            self.later(0.01, lambda: self._die(command.engine_id, "signal 9"))
        elif not engine.ignores_sigterm and not engine.hangs:
            self.later(self.random.uniform(0.05, 0.5), lambda: self._die(command.engine_id, "exit code 0"))

    def _die(self, engine_id: EngineId, reason: str) -> None:
        engine = self.engines.pop(engine_id, None)
        if engine is None:
            return
        for command_id in sorted(engine.works):
            self.later(0.001, lambda command_id=command_id: self._break(command_id))  # type: ignore[misc]  # a default
        self.world.exited(engine_id, reason)

    def _crash_one(self) -> None:
        if self.engines:
            self._die(self.random.choice(sorted(self.engines)), "signal 11")

    def _hang_one(self) -> None:
        if self.engines:
            self.engines[self.random.choice(sorted(self.engines))].hangs = True

    # --- operators

    def _stop_one(self) -> None:
        name = self.random.choice([None, *(model.name for model in self.world.config.models)])
        self.world.fleet_event(StopAsked(model=name, force=self._happens(0.5)))

    def _reload(self) -> None:
        old, new = self.world.config, self.random.choice(self.configs)
        self.world.config = new
        self.world.gateway_event(ConfigReplaced(config=new))
        specs = [tuple(spec for model in each.models for spec in model.variants) for each in (old, new)]
        self.world.fleet_event(SpecsReplaced(old=specs[0], new=specs[1]))

    def _begin_outage(self) -> None:
        remote = [model.variants[0].upstream_model for model in self.world.config.models if model.is_remote]
        self._outages[self.random.choice(remote)] = self.world.now + OUTAGE_S

    # --- counts, calls, relays

    def _engine_at(self, base_url: str) -> Engine | None:
        name, _, number = base_url.rpartition("-")
        return self.engines.get(EngineId(int(number))) if name == "http://engine" else None

    def _finish_later(self, command_id: CommandId, delay_s: float, event: Any, engine: Engine | None) -> None:
        if engine is not None:
            engine.works.add(command_id)

        def finish() -> None:
            if engine is not None:
                if engine.hangs:
                    return  # until it is killed, or the client is gone
                engine.works.discard(command_id)
            if command_id in self.world.work:
                self.world.complete(event)

        self.later(delay_s, finish)

    def _count(self, command: CountTokens) -> None:
        engine = self._engine_at(command.base_url) if command.base_url is not None else None
        event: Any = TokensCounted(
            command_id=command.command_id, prompt_tokens=self._tokens[command.request_id]
        )
        if self._happens(self.faults.count_fails) or (command.base_url is not None and engine is None):
            event = TokenCountFailed(command_id=command.command_id, reason="no answer")
        self._finish_later(command.command_id, self.random.uniform(0.001, 0.05), event, engine)

    def _call(self, command: CallUpstream) -> None:
        cid, is_remote = command.command_id, command.api_key_env is not None
        engine = None if is_remote else self._engine_at(command.base_url)
        self._base_url[command.request_id] = command.base_url
        first_byte_s = self.random.uniform(0.05, 1.0)
        event: Any = UpstreamAnswered(command_id=cid, status=200)
        continuation = command.continuation
        if engine is None and not is_remote:
            event = UpstreamFailed(command_id=cid, failure=CallFailure.UNREACHABLE, reason="refused")
        elif self._happens(self.faults.call_breaks):
            event = UpstreamFailed(command_id=cid, failure=CallFailure.BROKEN, reason="reset")
        elif self._outages.get(command.upstream_model or "", 0.0) > self.world.now:
            event = UpstreamAnswered(command_id=cid, status=503, error=UpstreamError(message="out of order"))
        elif command.head_timeout_s is not None and self._happens(self.faults.call_is_silent):
            event = UpstreamFailed(command_id=cid, failure=CallFailure.TIMEOUT, reason="silent")
            first_byte_s = command.head_timeout_s
        elif self._happens(self.faults.call_is_refused):
            status, error = self.random.choice(REFUSALS)
            event = UpstreamAnswered(command_id=cid, status=status, error=error)
        elif continuation is Continuation.REPEAT and self._happens(self.faults.continuation_differs):
            event = UpstreamFailed(command_id=cid, failure=CallFailure.DIFFERENT, reason="it differs")
        elif continuation is not None and self._happens(self.faults.continuation_is_refused):
            event = UpstreamAnswered(command_id=cid, status=400, error=UpstreamError(message="no prefill"))
        elif not is_remote:
            process = self.world.processes[EngineId(int(command.base_url.rpartition("-")[2]))]
            tokens = self._tokens[command.request_id]
            if tokens >= process.spec.context_tokens:
                error = overflow(tokens, process.spec.context_tokens)
                event = UpstreamAnswered(command_id=cid, status=400, error=error)
        self._finish_later(cid, first_byte_s, event, engine)

    def _relay(self, command: BeginRelay) -> None:
        cid = command.command_id
        usage = Usage(prompt_tokens=self._tokens[command.request_id], completion_tokens=50)
        event = RelayEnded(command_id=cid, usage=usage, finish_reason="stop")
        if self._happens(self.faults.relay_breaks):
            event = self._broken(command)
        elif self._happens(self.faults.relay_is_incomplete):
            event = evolve(self._broken(command), failure=RelayFailure.INCOMPLETE, reason="no end")
        engine = self._engine_at(self._base_url[command.request_id])
        self._finish_later(cid, self._answer_s[command.request_id], event, engine)

    def _broken(self, command: BeginRelay) -> RelayEnded:
        is_stream = self.world.clients[command.request_id].facts.stream
        resumable = self.random.choice(list(Resumable)) if is_stream else Resumable.NO
        return RelayEnded(
            command_id=command.command_id, failure=RelayFailure.BROKEN, reason="reset", resumable=resumable
        )

    def _break(self, command_id: CommandId) -> None:
        """Its engine is gone."""
        match self.world.work.get(command_id):
            case CountTokens():
                self.world.complete(TokenCountFailed(command_id=command_id, reason="reset"))
            case CallUpstream():
                self.world.complete(
                    UpstreamFailed(command_id=command_id, failure=CallFailure.BROKEN, reason="reset")
                )
            case BeginRelay() as command:
                self.world.complete(self._broken(command))

    def _cancel(self, command: CancelUpstream) -> None:
        def stop() -> None:
            for command_id, work in list(self.world.work.items()):
                if work.request_id != command.request_id:
                    continue
                match work:
                    case CountTokens():
                        self.world.complete(TokenCountFailed(command_id=command_id, reason="canceled"))
                    case CallUpstream():
                        self.world.complete(
                            UpstreamFailed(command_id=command_id, failure=CallFailure.CANCELED, reason="")
                        )
                    case BeginRelay():
                        self.world.complete(RelayEnded(command_id=command_id, failure=RelayFailure.CANCELED))

        self.later(0.001, stop)
