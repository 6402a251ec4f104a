"""Which remote upstreams are called: the circuits of all of them, and the leases that count for them.

A call concerns two circuits: that of its upstream, which is one model of one provider, and that of its credential.
Both have to admit it, and what comes of it is told to both: a credential that is not accepted says nothing about the
upstream, an upstream that does not answer nothing about the credential.
"""

from typing import Final, assert_never

from attrs import define, field, frozen

from gatewright.commands import FleetCommand, Log, Severity
from gatewright.engines.circuit import (
    Asked,
    CircuitEvent,
    CircuitState,
    Closed,
    HalfOpen,
    Open,
    Told,
    Verdict,
    admits,
    is_probe,
    step,
)
from gatewright.engines.engine import LeaseKey
from gatewright.engines.spec import EngineSpec
from gatewright.errors import CircuitOpen, Problem
from gatewright.leases import CallResult, LeaseEngine

UPSTREAM_FAILURES_IN_A_ROW: Final = 3
"""Failures of an upstream that open its circuit, however long they took."""
CREDENTIAL_FAILURES_IN_A_ROW: Final = 1
"""The same of a credential: it does not get better by being tried again."""
HALF_OPEN_RETRY_S: Final = 1.0
"""What clients are told while a probe is under way: soon more is known."""
FORGET_AFTER_S: Final = 600.0
"""Time without calls after which a circuit may be forgotten."""
LEAST_SWEPT: Final = 64
"""Circuits up to which it is not worthwhile to look for some that can be forgotten."""


@frozen(cache_hash=True)
class UpstreamKey:
    """One model of one provider.

    Attributes:
        connect: Base URL of the provider.
        model: Its name there.
    """

    connect: str
    model: str

    def __str__(self) -> str:
        return f"{self.model} at {self.connect}"


@frozen(cache_hash=True)
class CredentialKey:
    """One credential at one provider.

    Attributes:
        connect: Base URL of the provider.
        api_key_env: Environment variable that holds the credential; None where none is sent.
    """

    connect: str
    api_key_env: str | None

    def __str__(self) -> str:
        return f"the credential ({self.api_key_env or 'none'}) at {self.connect}"


CircuitKey = UpstreamKey | CredentialKey


def keys_of(spec: EngineSpec) -> tuple[CircuitKey, ...]:
    """The circuits that a call concerns; none for an engine of our own."""
    if not spec.is_remote:
        return ()
    return (
        UpstreamKey(spec.connect, upstream_model_of(spec)),
        CredentialKey(spec.connect, spec.api_key_env),
    )


def upstream_model_of(spec: EngineSpec) -> str:
    """The name of a model at its provider."""
    return spec.upstream_model or spec.model


@define(eq=False)
class _Call:
    """A lease that was admitted and is not over.

    Attributes:
        spec: What it is for.
        last_resort: It was to be had in any case.
        counts_for: Circuits that hear of it.
        reported: What `reported` was told of it.
    """

    spec: EngineSpec
    last_resort: bool
    counts_for: set[CircuitKey] = field(factory=set)
    reported: CallResult | None = None


class Circuits:
    """The circuits of all upstreams and credentials, and the leases that count for them."""

    def __init__(self) -> None:
        self._states: dict[CircuitKey, CircuitState] = {}  # closed without outcomes where absent
        self._calls: dict[LeaseKey, _Call] = {}
        self._sweep_at = LEAST_SWEPT

    def admit(self, lease: LeaseKey, request: LeaseEngine, now: float) -> Problem | bool:
        """Decide about a lease that is asked for; if it is admitted, `ended` must follow.

        Args:
            lease: Its key.
            request: What is asked; its variants are all of one upstream.
            now: Seconds, monotonic.

        Returns:
            Why it is refused; otherwise whether it is a probe.
        """
        spec = request.variants[0]
        asked = Asked(lease, request.last_resort)
        states = {key: self._step(key, asked, now) for key in keys_of(spec)}
        for key, state in states.items():
            if not admits(state, asked):
                return _refusal(key, state, spec, now)
        if not states:
            return False
        for key, state in states.items():
            self._become(key, state, now)
        self._calls[lease] = _Call(
            spec,
            request.last_resort,
            {key for key, state in states.items() if isinstance(state, Closed) or is_probe(state, lease)},
        )
        return any(is_probe(state, lease) for state in states.values())

    def reported(
        self, lease: LeaseKey, result: CallResult, now: float, out: list[FleetCommand]
    ) -> list[tuple[LeaseKey, Problem]]:
        """Something is known of a call whose lease is held on; see `ended`."""
        call = self._calls.get(lease)
        if call is None:
            return []
        call.reported = result
        return self._tell(lease, call, result, now, out)

    def ended(
        self,
        lease: LeaseKey,
        now: float,
        out: list[FleetCommand],
        *,
        result: CallResult | None = None,
        retry_after_s: float | None = None,
    ) -> list[tuple[LeaseKey, Problem]]:
        """A lease is over, granted or not, whoever ended it. Does nothing for those that concern no circuit.

        Args:
            lease: Its key.
            now: Seconds, monotonic.
            out: Takes log lines.
            result: What was learnt, if anything was.
            retry_after_s: For how long the upstream asked to be left alone, if it did.

        Returns:
            Leases for which a circuit has opened, with the reason: those that still wait are to be refused.
        """
        call = self._calls.pop(lease, None)
        if call is None:
            return []
        if call.reported is not None and result is call.reported:
            return []  # nothing new
        return self._tell(lease, call, result, now, out, retry_after_s=retry_after_s)

    def forgive(self, spec: EngineSpec, out: list[FleetCommand]) -> None:
        """Close the circuits of an engine: the operator asked for a clean start."""
        for key in keys_of(spec):
            state = self._states.pop(key, None)
            if isinstance(state, Open | HalfOpen):
                out.append(Log(severity=Severity.INFO, text=f"circuit of {key} closed by the operator"))

    def trouble(self, spec: EngineSpec, now: float) -> str | None:
        """What is wrong with an upstream or its credential, for display; None if nothing is known to be."""
        for key in keys_of(spec):
            state = self._states.get(key)
            if isinstance(state, Open | HalfOpen):
                return _refusal(key, state, spec, now).message
        return None

    def _step(self, key: CircuitKey, event: CircuitEvent, now: float) -> CircuitState:
        match key:
            case UpstreamKey():
                failures_in_a_row = UPSTREAM_FAILURES_IN_A_ROW
            case CredentialKey():
                failures_in_a_row = CREDENTIAL_FAILURES_IN_A_ROW
            case _ as unreachable:
                assert_never(unreachable)
        return step(self._states.get(key, Closed()), event, now, failures_in_a_row)

    def _tell(
        self,
        lease: LeaseKey,
        call: _Call,
        result: CallResult | None,
        now: float,
        out: list[FleetCommand],
        *,
        retry_after_s: float | None = None,
    ) -> list[tuple[LeaseKey, Problem]]:
        shut_out = []
        for key in keys_of(call.spec):
            if key not in call.counts_for:
                continue
            verdict = _verdict(key, result)
            old, new = (
                self._states.get(key, Closed()),
                self._step(key, Told(lease, verdict, retry_after_s), now),
            )
            self._become(key, new, now)
            if isinstance(new, Open) and verdict is Verdict.FAILED and not isinstance(old, Open):
                out.append(_opened(key, old, new))
                shut_out += self._shut_out(key, new, now)
            elif isinstance(new, Closed) and isinstance(old, HalfOpen):
                text = f"circuit of {key} closed after {_seconds(now - old.since)}"
                out.append(Log(severity=Severity.INFO, text=text))
        return shut_out

    def _shut_out(self, key: CircuitKey, state: Open, now: float) -> list[tuple[LeaseKey, Problem]]:
        """What comes of calls that were admitted before it opened says nothing about it any more."""
        shut_out = []
        for lease, call in self._calls.items():
            if key in call.counts_for:
                call.counts_for.remove(key)
                if not call.last_resort:
                    shut_out.append((lease, _refusal(key, state, call.spec, now)))
        return shut_out

    def _become(self, key: CircuitKey, state: CircuitState, now: float) -> None:
        if state == Closed():
            self._states.pop(key, None)
            return
        self._states[key] = state
        if len(self._states) >= self._sweep_at:
            self._states = {
                key: state for key, state in self._states.items() if not _is_forgotten(state, now)
            }
            self._sweep_at = max(LEAST_SWEPT, 2 * len(self._states))


def _verdict(key: CircuitKey, result: CallResult | None) -> Verdict:
    match key, result:
        case _, CallResult.WELL:
            return Verdict.WELL
        case (UpstreamKey(), CallResult.FAILED) | (CredentialKey(), CallResult.CREDENTIAL):
            return Verdict.FAILED
        case _:
            return Verdict.NOTHING


def _is_forgotten(state: CircuitState, now: float) -> bool:
    match state:
        case Closed(outcomes=outcomes):
            return now >= outcomes[-1].at + FORGET_AFTER_S
        case Open(until=until):
            return now >= until + FORGET_AFTER_S
        case HalfOpen():
            return False  # its probe's lease is held
        case _ as unreachable:
            assert_never(unreachable)


def _opened(key: CircuitKey, old: CircuitState, new: Open) -> Log:
    why = _why(key, new) if isinstance(old, Closed) else "it failed again"
    return Log(severity=Severity.WARNING, text=f"circuit of {key} open for {_seconds(new.wait_s)}: {why}")


def _why(key: CircuitKey, state: Open | HalfOpen) -> str:
    return "it was not accepted" if isinstance(key, CredentialKey) else state.why


def _refusal(key: CircuitKey, state: CircuitState, spec: EngineSpec, now: float) -> Problem:
    name = upstream_model_of(spec)
    what = name if isinstance(key, UpstreamKey) else f"the credential for {name}"
    assert not isinstance(state, Closed), "a closed circuit refuses nobody"
    text = f"the circuit of {what} has been open for {_seconds(now - state.since)} ({_why(key, state)})"
    if isinstance(state, HalfOpen):
        text = f"{text}; a call that is under way will tell whether it closes"
        return CircuitOpen(text, retry_after_s=HALF_OPEN_RETRY_S).problem
    rest_s = max(0.0, state.until - now)
    text = f"{text}; it is tried again in {_seconds(rest_s)}" if rest_s else f"{text}; the next call tries it"
    return CircuitOpen(text, retry_after_s=rest_s).problem


def _seconds(seconds: float) -> str:
    return f"{round(seconds, 1):g} s"
