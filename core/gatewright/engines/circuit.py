"""One circuit breaker: whether a remote upstream is called, or left alone for a while.

::

    Closed --- failures ---> Open --- due, or a last resort ---> HalfOpen --- well ---> Closed
                              ^                                     |
                              +------ failed, or nothing said ------+

`step` is the whole graph. Nothing in it is timed: a circuit that is due becomes half open when somebody asks.
"""

from enum import Enum, auto
from typing import Final, assert_never

from attrs import evolve, frozen

from gatewright.engines.engine import LeaseKey

OUTCOMES_KEPT: Final = 20
"""Outcomes of one circuit that are looked at, the last ones."""
LEAST_OUTCOMES: Final = 8
"""Outcomes from which on it matters that more than half of them are failures."""
OUTCOMES_COUNT_FOR_S: Final = 60.0
"""Age at which an outcome counts no longer towards such a majority."""
FIRST_WAIT_S: Final = 5.0
"""How long a circuit stays open first; also the least that an upstream can ask for."""
LONGEST_WAIT_S: Final = 20.0
"""How long at most, whatever the upstream asks for: a recovery is noticed within half a minute."""
PROBE_PATIENCE_S: Final = 20.0
"""Silence of a probe after which another call may be one: a call that hangs must not hide a recovery."""


@frozen
class Outcome:
    """What came of one call.

    Attributes:
        at: When it was known.
        failed: Whether it counts against the circuit.
    """

    at: float
    failed: bool


@frozen
class Closed:
    """Calls are made.

    Attributes:
        outcomes: Of the last calls since it was closed, in order.
    """

    outcomes: tuple[Outcome, ...] = ()


@frozen(kw_only=True)
class Open:
    """No calls are made.

    Attributes:
        since: When it left `Closed`.
        until: From then on the next call is a probe.
        wait_s: How long it is open this time; twice that after a probe that fails.
        why: What opened it, a few words.
    """

    since: float
    until: float
    wait_s: float
    why: str


@frozen(kw_only=True)
class HalfOpen:
    """One call is made, and decides.

    Attributes:
        since: When it left `Closed`.
        probe: The lease of that call.
        patient_until: From then on another call may take its part.
        wait_s: Of `Open` before.
        why: What opened it, a few words.
    """

    since: float
    probe: LeaseKey
    patient_until: float
    wait_s: float
    why: str


CircuitState = Closed | Open | HalfOpen


class Verdict(Enum):
    """What a call says about a circuit."""

    WELL = auto()
    FAILED = auto()
    NOTHING = auto()


@frozen
class Asked:
    """A lease is asked for.

    Attributes:
        lease: Which.
        last_resort: It is to be had in any case.
    """

    lease: LeaseKey
    last_resort: bool = False


@frozen
class Told:
    """Something is known of a call, or its lease is over.

    A circuit hears only of leases that it admitted since it was opened or closed last, and while it is open or half
    open only of probes.

    Attributes:
        lease: Which.
        verdict: What the call says.
        retry_after_s: For how long the upstream asked to be left alone, if it did.
    """

    lease: LeaseKey
    verdict: Verdict
    retry_after_s: float | None = None


CircuitEvent = Asked | Told


def step(state: CircuitState, event: CircuitEvent, now: float, failures_in_a_row: int) -> CircuitState:
    """Every transition of a circuit.

    Args:
        state: Present state.
        event: What happened.
        now: Seconds, monotonic.
        failures_in_a_row: So many open it.

    Returns:
        The next state.
    """
    match state:
        case Closed():
            match event:
                case Asked() | Told(verdict=Verdict.NOTHING):
                    return state
                case Told(verdict=verdict, retry_after_s=retry_after_s):
                    outcome = Outcome(now, verdict is Verdict.FAILED)
                    outcomes = (*state.outcomes[1 - OUTCOMES_KEPT :], outcome)
                    why = _too_bad(outcomes, now, failures_in_a_row)
                    if why is None:
                        return Closed(outcomes)
                    wait_s = FIRST_WAIT_S if retry_after_s is None else _wait_s(retry_after_s)
                    return Open(since=now, until=now + wait_s, wait_s=wait_s, why=why)
        case Open(since=since, wait_s=wait_s, why=why):
            match event:
                case Asked(lease=lease) if now >= state.until or event.last_resort:
                    patient_until = now + PROBE_PATIENCE_S
                    return HalfOpen(
                        since=since, probe=lease, patient_until=patient_until, wait_s=wait_s, why=why
                    )
                case Asked() | Told():
                    return state
        case HalfOpen(since=since, wait_s=wait_s, why=why):
            match event:
                case Asked(lease=lease) if now >= state.patient_until:
                    return evolve(state, probe=lease, patient_until=now + PROBE_PATIENCE_S)
                case Told(verdict=Verdict.WELL):  # be it of a probe whose part another has taken
                    return Closed()
                case Told(lease=lease, verdict=Verdict.FAILED) if lease == state.probe:
                    wait_s = _wait_s(2 * wait_s if event.retry_after_s is None else event.retry_after_s)
                    return Open(since=since, until=now + wait_s, wait_s=wait_s, why=why)
                case Told(lease=lease, verdict=Verdict.NOTHING) if lease == state.probe:
                    return Open(since=since, until=now, wait_s=wait_s, why=why)
                case Asked() | Told():
                    return state
        case _ as unreachable:
            assert_never(unreachable)


def admits(state: CircuitState, asked: Asked) -> bool:
    """Whether a lease may be granted in the state that its asking has led to."""
    return isinstance(state, Closed) or asked.last_resort or is_probe(state, asked.lease)


def is_probe(state: CircuitState, lease: LeaseKey) -> bool:
    """Whether the circuit waits for what comes of this lease."""
    return isinstance(state, HalfOpen) and state.probe == lease


def _too_bad(outcomes: tuple[Outcome, ...], now: float, failures_in_a_row: int) -> str | None:
    """Why a circuit opens after the last of these outcomes; None if it does not."""
    if not outcomes[-1].failed:
        return None
    last = outcomes[-failures_in_a_row:]
    if len(last) == failures_in_a_row and all(outcome.failed for outcome in last):
        return f"{failures_in_a_row} calls in a row failed" if failures_in_a_row > 1 else "a call failed"
    recent = [outcome for outcome in outcomes if outcome.at > now - OUTCOMES_COUNT_FOR_S]
    failed = sum(outcome.failed for outcome in recent)
    if len(recent) >= LEAST_OUTCOMES and 2 * failed > len(recent):
        return f"{failed} of the last {len(recent)} calls failed"
    return None


def _wait_s(wanted_s: float) -> float:
    return min(LONGEST_WAIT_S, max(FIRST_WAIT_S, wanted_s))
