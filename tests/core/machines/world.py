"""Both machines with what is around them: a clock, requests, processes, and messages that are carried.

The `World` carries leases between the machines, keeps account of all that is outstanding, and checks after each
event what must always be true. What happens in it is up to its user: a golden script, hypothesis or a simulation.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from gatewright.api.facts import RequestFacts
from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CancelUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    Drained,
    EstimateComplexity,
    ExitHost,
    FailStream,
    FleetCommand,
    GatewayCommand,
    Log,
    Outcome,
    ProbeEngine,
    RecordRequest,
    ReserveSpend,
    SendComment,
    SendProblem,
    SignalEngine,
    SpawnEngine,
    StopSignal,
    TellHolder,
)
from gatewright.config import Config, ModelConfig
from gatewright.engines.spec import EngineSpec
from gatewright.errors import EngineHostLost
from gatewright.events import (
    ClientGone,
    EngineExited,
    EngineProbed,
    EngineSpawned,
    EngineSpawnFailed,
    FleetEvent,
    GatewayEvent,
    HolderAttached,
    HolderGone,
    LeaseAsked,
    RelayEnded,
    RequestReceived,
    SpendRefused,
    UpstreamAnswered,
    Woke,
)
from gatewright.fleet import Fleet
from gatewright.gateway import Completion, Gateway
from gatewright.ids import CommandId, EngineId, HolderId, LeaseId, RequestId
from gatewright.leases import (
    AskLoads,
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeasePurpose,
    LeaseRefused,
    LeaseRequest,
    LoadsTold,
    ReleaseLease,
    ReportCall,
)
from gatewright.requests import AwaitingCountLease, AwaitingLease, AwaitingLoads, BackingOff, Canceling
from gatewright.selection.beliefs import Chance
from gatewright.selection.fallback import ATTEMPTS_IN_PERIOD, MOST_RETRIES, PERIOD_S

Observe = Callable[[str, str, Any], None]
"""Told (machine, "event" | "command", message) of everything that goes in and comes out."""

Work = CountTokens | CallUpstream | BeginRelay | EstimateComplexity | ReserveSpend


@frozen
class Call:
    """A call of an upstream.

    Attributes:
        at: When it began.
        model: Whose upstream.
        is_move: A smaller engine of the same model has refused the request for its size.
    """

    at: float
    model: ModelConfig
    is_move: bool


@define
class Client:
    """What a client saw of its request, and what was done for it."""

    facts: RequestFacts
    head_sent: bool = False
    answer_ended: bool = False
    gone: bool = False
    holds_answer: bool = False
    record: RecordRequest | None = None
    calls: list[Call] = field(factory=list)
    overflowed: bool = False
    relay: RelayEnded | None = None
    accounts: set[str] = field(factory=set)  # on which something may be reserved


@define
class Process:
    """An engine process."""

    engine_id: EngineId
    spec: EngineSpec
    signals: list[StopSignal] = field(factory=list)

    @property
    def base_url(self) -> str:
        return f"http://engine-{self.engine_id}"


class World:
    """See the module.

    Args:
        config: Models and limits.
        immediate: Whether the machines' messages to each other arrive at once; otherwise when `carry_*` is called.
        linger_s: Of the Fleet.
        observe: Told of everything.
        chance: Of the Gateway.
    """

    def __init__(
        self,
        config: Config,
        *,
        immediate: bool = True,
        linger_s: float | None = None,
        observe: Observe = lambda *_: None,
        chance: Chance | None = None,
    ) -> None:
        self.config = config
        self.now = 0.0
        self.gateway = Gateway(config, chance)
        self.fleet = Fleet(linger_s=linger_s)
        self.holder = HolderId(1)
        self.observe = observe
        self.immediate = immediate
        self.to_fleet: deque[LeaseRequest] = deque()
        self.to_gateway: deque[LeaseNews] = deque()

        self.clients: dict[RequestId, Client] = {}
        self.work: dict[CommandId, Work] = {}  # outstanding, of the Gateway
        self.canceled: set[CommandId] = set()
        self.spawns: dict[CommandId, SpawnEngine] = {}
        self.probes: dict[CommandId, ProbeEngine] = {}
        self.processes: dict[EngineId, Process] = {}
        self.asked: dict[
            LeaseId, LeaseEngine | AskLoads
        ] = {}  # as the Gateway sees it: not answered, not released
        self.granted: dict[LeaseId, LeaseGranted] = {}
        self.reported: set[LeaseId] = set()
        self.held: dict[tuple[HolderId, LeaseId], LeaseGranted] = {}  # as the Fleet sees it
        self.drained = 0
        self.exits: list[ExitHost] = []
        self.fleet_event(HolderAttached(holder=self.holder))

    # --- events

    def gateway_event(self, event: GatewayEvent) -> list[GatewayCommand]:
        """Tell the Gateway, check, and carry its messages."""
        self.observe("gateway", "event", event)
        commands = self.gateway.handle(event, self.now)
        for command in commands:
            self.observe("gateway", "command", command)
            self._note_gateway(command)
        self.check_gateway()
        if self.immediate:
            self.carry_all()
        return commands

    def fleet_event(self, event: FleetEvent) -> list[FleetCommand]:
        """Tell the Fleet, check, and carry its messages."""
        self.observe("fleet", "event", event)
        if isinstance(event, LeaseAsked) and isinstance(event.request, ReleaseLease):
            self.held.pop((event.holder, event.request.lease_id), None)
        commands = self.fleet.handle(event, self.now)
        for command in commands:
            self.observe("fleet", "command", command)
            self._note_fleet(command)
        self.check_fleet(commands)
        if self.immediate:
            self.carry_all()
        return commands

    def carry_to_fleet(self) -> None:
        """Deliver the oldest message of the Gateway."""
        request = self.to_fleet.popleft()
        self.fleet_event(LeaseAsked(holder=self.holder, request=request))

    def carry_to_gateway(self) -> None:
        """Deliver the oldest news of the Fleet."""
        news = self.to_gateway.popleft()
        match news:
            case LeaseGranted(lease_id=lease_id) if lease_id in self.asked:
                del self.asked[lease_id]
                self.granted[lease_id] = news
            case LeaseRefused(lease_id=lease_id) | LoadsTold(lease_id=lease_id):
                self.asked.pop(lease_id, None)
            case LeaseLost(lease_id=lease_id):
                self.granted.pop(lease_id, None)
            case _:
                pass
        self.gateway_event(news)

    def carry_all(self) -> None:
        """Deliver until the machines have nothing more to say to each other."""
        while self.to_fleet or self.to_gateway:
            while self.to_fleet:
                self.carry_to_fleet()
            while self.to_gateway:
                self.carry_to_gateway()

    # --- what happens

    def receive(self, request_id: str, facts: RequestFacts) -> None:
        self.clients[RequestId(request_id)] = Client(facts)
        self.gateway_event(RequestReceived(request_id=RequestId(request_id), facts=facts))

    def lose_client(self, request_id: str) -> None:
        self.clients[RequestId(request_id)].gone = True
        self.gateway_event(ClientGone(request_id=RequestId(request_id)))

    def complete(self, event: Completion) -> None:
        """A count, call or relay has come to its end, or an estimate or reservation."""
        work = self.work.pop(event.command_id)
        self.canceled.discard(event.command_id)
        client = self.clients[work.request_id]
        if isinstance(work, ReserveSpend) and not isinstance(event, SpendRefused):
            client.accounts |= {charge.account for charge in work.charges}
        if isinstance(event, UpstreamAnswered):
            client.holds_answer = True
            client.overflowed = event.error is not None and event.error.overflow
        if isinstance(event, RelayEnded):
            client.head_sent = True
            client.answer_ended = event.failure is None
            client.holds_answer = False
            client.relay = event
        self.gateway_event(event)

    def spawned(self, command: SpawnEngine) -> None:
        del self.spawns[command.command_id]
        process = Process(command.engine_id, command.spec)
        self.processes[command.engine_id] = process
        self.fleet_event(EngineSpawned(command_id=command.command_id, pid=1000, base_url=process.base_url))

    def spawn_failed(self, command: SpawnEngine, reason: str) -> None:
        del self.spawns[command.command_id]
        self.fleet_event(EngineSpawnFailed(command_id=command.command_id, reason=reason))

    def probed(self, event: EngineProbed) -> None:
        del self.probes[event.command_id]
        self.fleet_event(event)

    def exited(self, engine_id: EngineId, reason: str) -> None:
        del self.processes[engine_id]
        self.fleet_event(EngineExited(engine_id=engine_id, reason=reason))

    def reconnect(self) -> None:
        """The connection between the machines breaks: the adapter tells both, and makes a new one."""
        problem = EngineHostLost("the engine host went away").problem
        self.to_fleet.clear()
        self.to_gateway.clear()
        lost = [LeaseRefused(lease_id=lease_id, problem=problem) for lease_id in self.asked]
        ended = [LeaseLost(lease_id=lease_id, problem=problem) for lease_id in self.granted]
        gone, self.holder = self.holder, HolderId(self.holder + 1)
        self.held = {key: granted for key, granted in self.held.items() if key[0] != gone}
        self.fleet_event(HolderGone(holder=gone))
        self.fleet_event(HolderAttached(holder=self.holder))
        self.to_gateway.extend([*lost, *ended])
        if self.immediate:
            self.carry_all()

    # --- time

    @property
    def wake_at(self) -> float | None:
        """The earlier of both machines' deadlines."""
        due = [deadline.at for deadline in (self.gateway.wake_at, self.fleet.wake_at) if deadline is not None]
        return min(due, default=None)

    def wake(self) -> None:
        """Wake whichever machine is due, as a driver does."""
        for machine, tell in ((self.gateway, self.gateway_event), (self.fleet, self.fleet_event)):
            deadline = machine.wake_at
            if deadline is not None and self.now >= deadline.at:
                tell(Woke())
                again = machine.wake_at
                assert again is None or again.at > self.now, f"{again} would wake for ever"

    def pass_time(self, until: float) -> None:
        """Let the clock run, and wake the machines when they want it."""
        while (at := self.wake_at) is not None and at <= until:
            self.now = max(self.now, at)
            self.wake()
        self.now = max(self.now, until)

    # --- bookkeeping

    def _note_gateway(self, command: GatewayCommand) -> None:
        match command:
            case LeaseEngine(lease_id=lease_id) | AskLoads(lease_id=lease_id):
                self.asked[lease_id] = command
                self.to_fleet.append(command)
            case ReleaseLease(lease_id=lease_id):
                open_leases = self.asked if lease_id in self.asked else self.granted
                del open_leases[lease_id]  # raises if it was released before, or lost
                self.to_fleet.append(command)
            case ReportCall(lease_id=lease_id):
                assert self.granted[lease_id].is_probe, "nobody wants to hear of it"
                assert lease_id not in self.reported
                self.reported.add(lease_id)
                self.to_fleet.append(command)
            case Drained():
                self.drained += 1
            case Log():
                pass
            case _:
                client = self.clients[command.request_id]
                assert client.record is None, f"{command} after the end of the request"
                self._note_for_client(client, command)

    def _note_for_client(self, client: Client, command: GatewayCommand) -> None:
        match command:
            case CountTokens() | CallUpstream() | BeginRelay() | EstimateComplexity() | ReserveSpend():
                assert not client.gone
                assert not self._working(command.request_id), "one thing at a time"
                assert command.command_id not in self.work
                if isinstance(command, BeginRelay):
                    assert client.holds_answer
                else:
                    assert not client.holds_answer
                if isinstance(command, CallUpstream):
                    self._note_call(client, command.request_id)
                self.work[command.command_id] = command
            case CancelUpstream(request_id=request_id):
                (command_id,) = self._working(request_id)
                assert command_id not in self.canceled
                self.canceled.add(command_id)
            case DiscardAnswer():
                assert client.holds_answer
                client.holds_answer = False
            case BeginStream():
                assert not client.gone
                assert client.facts.stream
                assert not client.head_sent
                client.head_sent = True
            case SendComment():
                assert client.head_sent
                assert not client.holds_answer
                assert not any(
                    isinstance(self.work[i], BeginRelay) for i in self._working(command.request_id)
                )
            case SendProblem():
                assert not client.gone, "an error for nobody"
                assert not client.head_sent, "an error as an answer, after an answer began"
                client.head_sent = client.answer_ended = True
            case FailStream() | CutConnection():
                assert not client.gone, "an error for nobody"
                assert client.head_sent
                assert not client.answer_ended
                client.answer_ended = True
            case RecordRequest():
                self._check_record(client, command)
                client.record = command
            case _:
                raise AssertionError(command)

    def _check_record(self, client: Client, record: RecordRequest) -> None:
        assert not self._working(record.request_id), "ended with a completion outstanding"
        assert not client.holds_answer
        assert client.answer_ended or record.outcome is Outcome.CANCELED, "the client got no end"
        assert record.attempts == len(client.calls)
        settled = {charge.account for charge in record.charges}
        assert client.accounts <= settled, "what was reserved is settled"
        assert record.charged_usd.keys() <= settled
        assert len(record.outcomes) <= len(client.calls)
        assert record.cost_usd >= sum(outcome.cost_usd for outcome in record.outcomes) - 1e-12
        if record.outcome in {Outcome.ANSWERED, Outcome.UPSTREAM_ERROR}:
            assert client.relay is not None
            assert client.relay.failure is None, "a broken answer that counts as a whole one"

    def _note_call(self, client: Client, request_id: RequestId) -> None:
        attempts = self.gateway._open.by_id[request_id].attempts
        model, calls = attempts.model, client.calls
        is_move = client.overflowed and not model.is_remote and calls[-1].model is model
        calls.append(Call(self.now, model, is_move))
        if is_move:
            return  # to an engine that was not asked before: no repetition
        of_model = [call for call in calls if call.model is model and not call.is_move]
        assert len(of_model) <= 1 + min(MOST_RETRIES, model.retries), "repeated too often"
        most = attempts.chain[0].max_attempts if attempts.limit is None else attempts.limit
        assert most is None or sum(not call.is_move for call in calls) <= most, "too many calls"
        if len(calls) > ATTEMPTS_IN_PERIOD:
            within_s = calls[-1].at - calls[-1 - ATTEMPTS_IN_PERIOD].at
            assert within_s > PERIOD_S - 1e-6, f"{ATTEMPTS_IN_PERIOD + 1} calls within {within_s} s"

    def _working(self, request_id: RequestId) -> list[CommandId]:
        return [command_id for command_id, work in self.work.items() if work.request_id == request_id]

    def _note_fleet(self, command: FleetCommand) -> None:
        match command:
            case TellHolder(holder=holder, news=news):
                key = (holder, news.lease_id)
                if isinstance(news, LeaseGranted):
                    assert key not in self.held, "granted twice"
                    self.held[key] = news
                elif isinstance(news, LeaseLost):
                    del self.held[key]
                elif isinstance(news, LeaseRefused):
                    assert key not in self.held, "refused after it was granted"
                if holder == self.holder:
                    self.to_gateway.append(news)
            case SpawnEngine(command_id=command_id):
                self.spawns[command_id] = command
            case ProbeEngine(command_id=command_id):
                self.probes[command_id] = command
            case SignalEngine(engine_id=engine_id, signal=signal):
                if engine_id in self.processes:
                    self.processes[engine_id].signals.append(signal)
            case ExitHost():
                self.exits.append(command)
            case Log():
                pass

    # --- what must always be true

    def check_gateway(self) -> None:
        alive = {request_id for request_id, client in self.clients.items() if client.record is None}
        assert self.gateway.active == len(alive)
        books = self.gateway._open
        assert books.by_id.keys() == alive
        for lease_id, asked in list(self.asked.items()):
            if isinstance(asked, AskLoads) and lease_id not in books.by_lease:
                del self.asked[lease_id]  # whoever asked has ended, and a question is not released
        working = {work.request_id for work in self.work.values()}
        waiting = {books.by_lease[lease_id].request_id for lease_id in self.asked}
        open_leases = len(self.asked) + len(self.granted)
        assert open_leases <= len(alive), "a lease that nobody holds"
        assert books.by_lease.keys() == self.asked.keys() | self.granted.keys()
        assert books.by_command.keys() == self.work.keys()
        wake_at = self.gateway.wake_at
        for request_id, request in books.by_id.items():
            match request.state:
                case BackingOff(until=until):
                    assert request_id not in working | waiting
                    assert wake_at is not None
                    assert wake_at.at <= until, "it is not woken"
                case AwaitingLease() | AwaitingCountLease() | AwaitingLoads():
                    assert request_id in waiting - working, "somebody waits for nothing"
                case _:
                    assert request_id in working - waiting, "somebody waits for nothing"
            if request.give_up_at is not None and not isinstance(request.state, Canceling):
                assert wake_at is not None
                assert wake_at.at <= request.give_up_at, "its time ends and nobody looks"

    def check_fleet(self, commands: list[FleetCommand]) -> None:
        places: dict[str, int] = {}
        running = [process.spec for process in self.processes.values()]
        for spec in [*running, *(spawn.spec for spawn in self.spawns.values())]:
            places[spec.place] = places.get(spec.place, 0) + 1
        assert all(count <= 1 for count in places.values()), f"two processes in one place: {places}"

        on_engine: dict[str, int] = {}
        for granted in self.held.values():
            on_engine[granted.base_url] = on_engine.get(granted.base_url, 0) + 1
        for command in commands:
            if isinstance(command, SignalEngine) and command.signal is StopSignal.TERMINATE:
                url = f"http://engine-{command.engine_id}"
                assert url not in on_engine, f"{command} while it is leased"
        for status in self.fleet.status(self.now):
            assert status.slots is None or status.leases <= status.slots, status
        waiting = len(self.waiting_in_fleet())
        assert waiting == 0 or self.fleet.wake_at is not None, "somebody waits and nothing is timed"

    def waiting_in_fleet(self) -> list[Any]:
        return [key for place in self.fleet._places.values() for key in place.waiters]

    def check_balance(self) -> None:
        """Both machines agree about leases; true whenever no message is on its way."""
        assert not self.to_fleet
        assert not self.to_gateway
        assert {key[0] for key in self.fleet._asked} <= {self.holder}
        known = {key[1] for key in self.fleet._asked}
        assert known == self.asked.keys() | self.granted.keys()
        assert {key[1] for key in self.held if key[0] == self.holder} == self.granted.keys()
        questions = [
            asked
            for asked in self.asked.values()
            if isinstance(asked, AskLoads) or asked.purpose is LeasePurpose.COUNT
        ]
        assert not questions, "a count lease or a question is answered at once"

    def check_finished(self) -> None:
        """Everything has come to its end."""
        self.check_balance()
        assert self.gateway.active == 0
        assert not self.work
        assert not self.asked
        assert not self.granted
        assert not self.held
        unfinished = [request_id for request_id, client in self.clients.items() if client.record is None]
        assert not unfinished, unfinished
