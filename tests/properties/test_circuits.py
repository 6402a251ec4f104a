"""Circuits under holders that ask, report, release, hang and die in any order, while the clock jumps.

Before each lease is asked for, the states of its circuits say what must come of it; after each event the machine's
accounts must agree with ours. In the end every upstream recovers, and whoever asks must notice it in time.
"""

from attrs import define, evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatewright.commands import ExitHost, Log, Severity, TellHolder
from gatewright.engines.circuit import FIRST_WAIT_S, LONGEST_WAIT_S, Closed, HalfOpen, Open
from gatewright.engines.circuits import keys_of
from gatewright.engines.spec import EngineSpec
from gatewright.errors import CircuitOpen
from gatewright.events import HolderAttached, HolderGone, LeaseAsked, ShutdownRequested, StopAsked, Woke
from gatewright.fleet import CIRCUIT_OPEN, Fleet
from gatewright.ids import HolderId, LeaseId
from gatewright.leases import (
    CallResult,
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseProgress,
    LeasePurpose,
    LeaseRefused,
    ReleaseLease,
    ReportCall,
)
from tests.core.machines.build import remote_spec

GPT, MINI = remote_spec("gpt"), remote_spec("mini", parallel=2)  # they share a credential
SPECS = (
    GPT,
    MINI,
    evolve(GPT, model="alias", place="remote:alias", parallel=1),  # the upstream of the first
    evolve(GPT, place="remote:other-key", api_key_env="OTHER_KEY"),
    remote_spec("local", parallel=1),
)
RECOVERY_S = 30


@define
class Lease:
    """What its holder knows of it."""

    spec: EngineSpec
    last_resort: bool
    granted: LeaseGranted | None = None


class CircuitMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.now = 0.0
        self.ids = 0
        self.closing = False
        self.holders: list[HolderId] = []
        self.leases: dict[tuple[HolderId, LeaseId], Lease] = {}
        self.refused: dict[tuple[HolderId, LeaseId], LeaseRefused] = {}

    @initialize()
    def begin(self):
        for _ in range(2):
            self.attach()

    # --- holders

    @precondition(lambda self: len(self.holders) < 3)
    @rule()
    def attach(self):
        self.ids += 1
        self.holders.append(HolderId(self.ids))
        self.tell(HolderAttached(holder=self.holders[-1]))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def die(self, data):
        holder = data.draw(st.sampled_from(self.holders))
        self.holders.remove(holder)
        self.leases = {key: lease for key, lease in self.leases.items() if key[0] != holder}
        self.tell(HolderGone(holder=holder))

    @precondition(lambda self: self.holders)
    @rule(
        data=st.data(),
        spec=st.sampled_from(SPECS),
        last_resort=st.sampled_from((False, False, False, True)),
        queue_timeout_s=st.sampled_from((2.0, 900.0)),
    )
    def ask(self, data, spec, last_resort, queue_timeout_s):
        holder = data.draw(st.sampled_from(self.holders))
        self.ask_for(spec, holder, last_resort=last_resort, queue_timeout_s=queue_timeout_s)

    def ask_for(self, spec, holder=None, *, last_resort=False, queue_timeout_s=900.0):
        holder = self.holders[0] if holder is None else holder
        self.ids += 1
        key = (holder, LeaseId(self.ids))
        before = [self.fleet._circuits._states.get(circuit, Closed()) for circuit in keys_of(spec)]
        self.leases[key] = Lease(spec, last_resort)
        lease = LeaseEngine(
            lease_id=key[1],
            variants=(spec,),
            last_resort=last_resort,
            max_waiting=3,
            queue_timeout_s=queue_timeout_s,
        )
        self.tell(LeaseAsked(holder=holder, request=lease))
        if not self.closing:
            self.check_admission(key, before, last_resort=last_resort)
        return key

    def check_admission(self, key, before, *, last_resort):
        refused = self.refused.get(key)
        is_shut_out = refused is not None and refused.problem.kind == CircuitOpen.__name__
        assert is_shut_out == (not last_resort and any(self.refuses(state) for state in before))
        if is_shut_out:
            assert 0 < refused.problem.retry_after_s <= LONGEST_WAIT_S

    def refuses(self, state) -> bool:
        match state:
            case Open(until=until):
                return self.now < until
            case HalfOpen(patient_until=patient_until):
                return self.now < patient_until
            case _:
                return False

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), spec=st.sampled_from(SPECS))
    def count(self, data, spec):
        self.ids += 1
        holder = data.draw(st.sampled_from(self.holders))
        self.leases[holder, LeaseId(self.ids)] = Lease(spec, last_resort=False)
        lease = LeaseEngine(lease_id=LeaseId(self.ids), variants=(spec,), purpose=LeasePurpose.COUNT)
        self.tell(LeaseAsked(holder=holder, request=lease))

    # --- calls

    @property
    def calls(self):
        return sorted(key for key, lease in self.leases.items() if lease.granted is not None)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), result=st.sampled_from(CallResult))
    def report(self, data, result):
        holder, lease_id = data.draw(st.sampled_from(self.calls))
        self.tell(LeaseAsked(holder=holder, request=ReportCall(lease_id=lease_id, result=result)))

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        result=st.sampled_from((None, CallResult.FAILED, *CallResult)),
        retry_after_s=st.sampled_from((None, None, 0.0, 12.0, 3600.0)),
    )
    def release(self, data, result, retry_after_s):
        key = data.draw(st.sampled_from(sorted(self.leases)))
        self.release_one(key, result, retry_after_s)

    def release_one(self, key, result, retry_after_s=None):
        lease = self.leases.pop(key)
        request = ReleaseLease(
            lease_id=key[1],
            result=result if lease.granted is not None else None,
            retry_after_s=retry_after_s,
        )
        self.tell(LeaseAsked(holder=key[0], request=request))

    @precondition(lambda self: self.holders)
    @rule(
        spec=st.sampled_from(SPECS),
        number=st.sampled_from((1, 3, 3, 10)),
        every_s=st.sampled_from((0.0, 0.0, 1.0, 5.0)),
        result=st.sampled_from((CallResult.FAILED, CallResult.FAILED, *CallResult)),
    )
    def call_again_and_again(self, spec, number, every_s, result):
        for _ in range(number):
            key = self.ask_for(spec)
            if key in self.leases:
                self.release_one(key, result)
            self.pass_time(every_s)

    @rule(number=st.integers(0, 300), result=st.sampled_from(CallResult))
    def say_something_of_nobody(self, number, result):
        stale = self.fleet.stale
        for holder in self.holders:
            if (holder, number) not in self.leases:
                request = ReportCall(lease_id=LeaseId(number), result=result)
                assert self.tell(LeaseAsked(holder=holder, request=request)) == []
                stale += 1
        assert self.fleet.stale == stale

    # --- operators and time

    @precondition(lambda self: self.ids % 7 == 0)
    @rule(model=st.sampled_from((None, "gpt", "alias")), force=st.booleans())
    def stop(self, model, force):
        self.tell(StopAsked(model=model, force=force))
        for status in self.fleet.status(self.now):
            assert model not in {None, status.model} or status.state != CIRCUIT_OPEN

    @precondition(lambda self: self.ids > 20 and self.ids % 11 == 10)
    @rule(grace_s=st.sampled_from((0.0, 3.0)), force=st.booleans())
    def shut_down(self, grace_s, force):
        self.closing = True
        self.tell(ShutdownRequested(grace_s=grace_s, force=force))
        assert all(lease.granted is not None for lease in self.leases.values()), "nobody waits any more"
        assert not self.leases or (grace_s and not force)

    @rule(seconds=st.sampled_from((0.0, 0.5, 1.0, 5.0, 20.0, 61.0, 700.0)))
    def jump(self, seconds):
        self.now += seconds

    @rule(seconds=st.sampled_from((1.0, 5.0, 20.0)))
    def let_time_pass(self, seconds):
        self.pass_time(seconds)

    def pass_time(self, seconds):
        until = self.now + seconds
        while (deadline := self.fleet.wake_at) is not None and deadline.at <= until:
            self.now = max(self.now, deadline.at)
            self.tell(Woke())
            again = self.fleet.wake_at
            assert again is None or again.at > self.now, f"{again} would wake for ever"
        self.now = until

    # --- what it answers

    def tell(self, event):
        commands = self.fleet.handle(event, self.now)
        for command in commands:
            match command:
                case TellHolder(holder=holder, news=news):
                    self.hear((holder, news.lease_id), news)
                case Log(severity=severity):
                    assert severity in {Severity.WARNING, Severity.INFO}
                case _:
                    assert isinstance(command, ExitHost)
                    assert not self.leases
        return commands

    def hear(self, key, news: LeaseNews):
        match news:
            case LeaseGranted():
                assert self.leases[key].granted is None, "granted twice"
                self.leases[key].granted = news
            case LeaseRefused():
                lease = self.leases.pop(key)
                assert lease.granted is None
                assert not (lease.last_resort and news.problem.kind == CircuitOpen.__name__)
                self.refused[key] = news
            case LeaseLost():
                assert self.leases.pop(key).granted is not None
            case LeaseProgress():
                assert self.leases[key].granted is None

    @invariant()
    def leases_balance(self):
        assert self.fleet._asked.keys() == self.leases.keys()
        assert self.fleet._circuits._calls.keys() <= self.leases.keys()

    @invariant()
    def one_probe_at_a_time(self):
        circuits = self.fleet._circuits
        for key, state in circuits._states.items():
            counting = {lease for lease, call in circuits._calls.items() if key in call.counts_for}
            match state:
                case HalfOpen(probe=probe):
                    assert probe in counting
                    granted = [self.leases[lease].granted for lease in counting]
                    assert all(each is None or each.is_probe for each in granted)
                case Open(until=until, wait_s=wait_s):
                    assert FIRST_WAIT_S <= wait_s <= LONGEST_WAIT_S
                    assert until <= self.now + LONGEST_WAIT_S
                case Closed(outcomes=outcomes):
                    assert outcomes

    # --- the end

    def teardown(self):
        """All upstreams recover; what hangs goes on hanging, where that leaves room to call them."""
        if self.closing or not self.holders:
            return
        for spec in SPECS:
            for key in [key for key, lease in self.leases.items() if lease.spec.place == spec.place]:
                if spec.parallel is not None:
                    self.release_one(key, None)
            recovers_at, is_back = self.now, False
            while not is_back:
                assert self.now - recovers_at < RECOVERY_S, "nobody has noticed the recovery"
                self.pass_time(1.0)
                key = self.ask_for(spec)
                if key in self.leases:
                    self.release_one(key, CallResult.WELL)
                    again = self.ask_for(spec)
                    is_back = again in self.leases and not self.leases[again].granted.is_probe
        self.pass_time(1.0)
        assert all(status.state != CIRCUIT_OPEN for status in self.fleet.status(self.now))


TestCircuits = CircuitMachine.TestCase
TestCircuits.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.too_slow],
)
