"""One circuit by itself, then all of them; as holders of leases see them they are in `test_fleet_circuits.py`."""

from itertools import product

import pytest
from attrs import evolve

from gatewright.commands import Log, Severity
from gatewright.engines.circuit import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    OUTCOMES_KEPT,
    PROBE_PATIENCE_S,
    Asked,
    Closed,
    HalfOpen,
    Open,
    Outcome,
    Told,
    Verdict,
    admits,
    is_probe,
    step,
)
from gatewright.engines.circuits import (
    FORGET_AFTER_S,
    LEAST_SWEPT,
    Circuits,
    CredentialKey,
    UpstreamKey,
    keys_of,
)
from gatewright.errors import CircuitOpen, Problem
from gatewright.leases import CallResult, LeaseEngine
from tests.core.machines.build import HOLDER, lid, remote_spec, spec

WELL, FAILED, NOTHING = Verdict.WELL, Verdict.FAILED, Verdict.NOTHING
IN_A_ROW = 3
ME, OTHER = (HOLDER, lid(1)), (HOLDER, lid(2))
NOW = 100.0

OPEN = Open(since=90, until=105, wait_s=10, why="it failed")
DUE = evolve(OPEN, until=NOW)
HALF_OPEN = HalfOpen(since=90, probe=ME, patient_until=110, wait_s=10, why="it failed")
OVERDUE = evolve(HALF_OPEN, patient_until=NOW)
PROBING = evolve(HALF_OPEN, patient_until=NOW + PROBE_PATIENCE_S)


def outcomes(text: str, *, at: float = NOW, every_s: float = 1.0) -> tuple[Outcome, ...]:
    """`+` for one that went well and `-` for one that failed; the last one at this time."""
    first = at - every_s * (len(text) - 1)
    return tuple(Outcome(first + every_s * number, sign == "-") for number, sign in enumerate(text))


# --- every state with every event

ASKED = [Asked(ME), Asked(OTHER), Asked(OTHER, last_resort=True)]
TOLD = [Told(lease, verdict) for lease in (ME, OTHER) for verdict in Verdict]
CLOSED = [Closed(), Closed(outcomes("+-")), Closed(outcomes("--"))]


def opened(wait_s: float, why: str = "it failed", since: float = 90) -> Open:
    return Open(since=since, until=NOW + wait_s, wait_s=wait_s, why=why)


TABLE = {
    # asked
    **{(state, event): state for state in CLOSED for event in ASKED},
    (OPEN, Asked(ME)): OPEN,
    (OPEN, Asked(OTHER)): OPEN,
    (OPEN, Asked(OTHER, last_resort=True)): evolve(PROBING, probe=OTHER),
    (DUE, Asked(ME)): PROBING,
    (DUE, Asked(OTHER)): evolve(PROBING, probe=OTHER),
    (DUE, Asked(OTHER, last_resort=True)): evolve(PROBING, probe=OTHER),
    **{(HALF_OPEN, event): HALF_OPEN for event in ASKED},
    (OVERDUE, Asked(ME)): PROBING,
    (OVERDUE, Asked(OTHER)): evolve(PROBING, probe=OTHER),
    (OVERDUE, Asked(OTHER, last_resort=True)): evolve(PROBING, probe=OTHER),
    # told while it is closed
    **{(state, Told(lease, NOTHING)): state for state in CLOSED for lease in (ME, OTHER)},
    **{
        (Closed(outcomes(known, at=99)), Told(lease, WELL)): Closed(
            (*outcomes(known, at=99), Outcome(NOW, failed=False))
        )
        for known in ("", "+-", "--")
        for lease in (ME, OTHER)
    },
    **{
        (Closed(outcomes(known, at=99)), Told(lease, FAILED)): Closed(
            (*outcomes(known, at=99), Outcome(NOW, failed=True))
        )
        for known in ("", "+-")
        for lease in (ME, OTHER)
    },
    **{
        (Closed(outcomes("--", at=99)), Told(lease, FAILED)): opened(5, "3 calls in a row failed", since=NOW)
        for lease in (ME, OTHER)
    },
    # told while it is open: of calls that began before
    **{(state, event): state for state in (OPEN, DUE) for event in TOLD},
    # told while a probe is under way
    **{(state, Told(lease, WELL)): Closed() for state in (HALF_OPEN, OVERDUE) for lease in (ME, OTHER)},
    **{(state, Told(ME, FAILED)): opened(20) for state in (HALF_OPEN, OVERDUE)},
    **{(state, Told(ME, NOTHING)): DUE for state in (HALF_OPEN, OVERDUE)},
    **{
        (state, Told(OTHER, verdict)): state
        for state in (HALF_OPEN, OVERDUE)
        for verdict in (FAILED, NOTHING)
    },
}


def test_the_table_has_every_pair():
    told_closed = [Closed(outcomes(known, at=99)) for known in ("", "+-", "--")]
    pairs = {
        *product([*CLOSED, OPEN, DUE, HALF_OPEN, OVERDUE], ASKED),
        *product([OPEN, DUE, HALF_OPEN, OVERDUE], TOLD),
        *product(CLOSED, [event for event in TOLD if event.verdict is NOTHING]),
        *product(told_closed, [event for event in TOLD if event.verdict is not NOTHING]),
    }
    assert TABLE.keys() == pairs


@pytest.mark.parametrize(("pair", "after"), TABLE.items(), ids=str)
def test_step(pair, after):
    state, event = pair
    assert step(state, event, NOW, IN_A_ROW) == after


def test_who_is_admitted():
    assert admits(Closed(), Asked(ME))
    assert not admits(OPEN, Asked(ME))
    assert admits(OPEN, Asked(ME, last_resort=True))
    assert admits(HALF_OPEN, Asked(ME))
    assert not admits(HALF_OPEN, Asked(OTHER))
    assert admits(HALF_OPEN, Asked(OTHER, last_resort=True))
    assert [is_probe(state, ME) for state in (Closed(), OPEN, HALF_OPEN)] == [False, False, True]
    assert not is_probe(HALF_OPEN, OTHER)


# --- when it opens


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ("--", "3 calls in a row failed"),
        ("-", None),
        ("-+-", None),
        ("+--", "3 calls in a row failed"),
        ("--+--+-", "6 of the last 8 calls failed"),
        ("+-+-+-+", None),  # half of 8 is no majority
        ("+-+-+--+", "5 of the last 9 calls failed"),
        ("--+--+", None),  # 5 of 7: too few are known
        ("+" * 19, None),
    ],
)
def test_it_opens_for_good_reasons_only(known, why):
    state = step(Closed(outcomes(known, at=99)), Told(ME, FAILED), NOW, IN_A_ROW)
    if why is None:
        assert state == Closed((*outcomes(known, at=99), Outcome(NOW, failed=True)))
    else:
        assert state == opened(5, why, since=NOW)


def test_a_call_that_goes_well_opens_nothing():
    """More than half of eight have failed."""
    state = step(Closed(outcomes("--+--+-", at=99)), Told(ME, WELL), NOW, IN_A_ROW)
    assert isinstance(state, Closed)


def test_failures_that_took_long_are_in_a_row_all_the_same():
    slow = Closed(outcomes("--", at=NOW - 300, every_s=300))
    assert isinstance(step(slow, Told(ME, FAILED), NOW, IN_A_ROW), Open)


def test_majorities_are_of_the_last_minute():
    """Seven of nine have failed, but four of them are a minute old."""
    old = outcomes("--+--", at=NOW - 60)
    young = outcomes("-+-", at=99)
    assert isinstance(step(Closed((*old, *young)), Told(ME, FAILED), NOW, IN_A_ROW), Closed)
    younger = tuple(evolve(outcome, at=outcome.at + 5) for outcome in old)
    assert isinstance(step(Closed((*younger, *young)), Told(ME, FAILED), NOW, IN_A_ROW), Open)


def test_only_the_last_outcomes_are_kept():
    state = Closed()
    for number in range(100):
        state = step(state, Told(ME, WELL), float(number), IN_A_ROW)
    assert isinstance(state, Closed)
    assert [outcome.at for outcome in state.outcomes] == list(range(100 - OUTCOMES_KEPT, 100))


def test_one_failure_is_enough_where_one_is():
    assert step(Closed(), Told(ME, FAILED), NOW, 1) == opened(5, "a call failed", since=NOW)


# --- for how long


def test_the_wait_doubles_up_to_a_limit():
    state, waits = step(Closed(outcomes("--")), Told(ME, FAILED), NOW, IN_A_ROW), []
    for _ in range(4):
        assert isinstance(state, Open)
        waits.append(state.wait_s)
        state = step(state, Asked(ME), state.until, IN_A_ROW)
        assert isinstance(state, HalfOpen)
        state = step(state, Told(ME, FAILED), state.patient_until - 1, IN_A_ROW)
    assert waits == [5, 10, 20, 20]


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0, FIRST_WAIT_S), (12, 12), (3600, LONGEST_WAIT_S)])
@pytest.mark.parametrize("state", [Closed(outcomes("--")), HALF_OPEN], ids=["closed", "half open"])
def test_the_upstream_may_ask_for_another_wait(state, asked_s, wait_s):
    after = step(state, Told(ME, FAILED, retry_after_s=asked_s), NOW, IN_A_ROW)
    assert isinstance(after, Open)
    assert (after.until, after.wait_s) == (NOW + wait_s, wait_s)


def test_a_probe_that_says_nothing_costs_no_time():
    state = step(HALF_OPEN, Told(ME, NOTHING), NOW, IN_A_ROW)
    assert step(state, Asked(OTHER), NOW, IN_A_ROW) == evolve(PROBING, probe=OTHER)


# --- all circuits

GPT = remote_spec("gpt")
MINI = remote_spec("mini")  # of the same provider, with the same credential
ELSEWHERE = evolve(GPT, connect="https://elsewhere.example.com")
UPSTREAM = UpstreamKey("https://api.example.com", "gpt-large")
CREDENTIAL = CredentialKey("https://api.example.com", "EXAMPLE_KEY")


def opened_log(what, wait_s, why):
    return Log(severity=Severity.WARNING, text=f"circuit of {what} open for {wait_s} s: {why}")


def closed_log(what, after_s):
    return Log(severity=Severity.INFO, text=f"circuit of {what} closed after {after_s} s")


class CircuitsTester:
    """Asks, tells and ends, with the log as the answer."""

    def __init__(self) -> None:
        self.circuits = Circuits()

    def ask(self, now, number, engine=GPT, *, last_resort=False):
        lease = LeaseEngine(lease_id=lid(number), variants=(engine,), last_resort=last_resort)
        return self.circuits.admit((HOLDER, lid(number)), lease, now)

    def end(self, now, number, result=None, retry_after_s=None):
        out = []
        self.shut_out = self.circuits.ended(
            (HOLDER, lid(number)), now, out, result=result, retry_after_s=retry_after_s
        )
        return out

    def report(self, now, number, result):
        out = []
        self.shut_out = self.circuits.reported((HOLDER, lid(number)), result, now, out)
        return out

    def forgive(self, engine):
        out = []
        self.circuits.forgive(engine, out)
        return out

    def call(self, now, number, result, engine=GPT):
        assert self.ask(now, number, engine) is False
        return self.end(now, number, result)

    def is_refused(self, now, engine):
        """Without leaving anything behind."""
        admitted = self.ask(now, 999, engine)
        self.end(now, 999)
        return isinstance(admitted, Problem)


def broken(now=0):
    """The circuit of the upstream opens at this time."""
    tester = CircuitsTester()
    for number in (901, 902, 903):
        tester.call(now, number, CallResult.FAILED)
    return tester


def refused(text, retry_after_s):
    return CircuitOpen(text, retry_after_s=retry_after_s).problem


def test_keys():
    assert keys_of(GPT) == (UPSTREAM, CREDENTIAL)
    assert keys_of(spec()) == ()
    unnamed = evolve(GPT, upstream_model=None, api_key_env=None)
    assert keys_of(unnamed) == (UpstreamKey(GPT.connect, "gpt"), CredentialKey(GPT.connect, None))
    assert str(CredentialKey("http://u", None)) == "the credential (none) at http://u"


def test_failures_open_it_and_a_probe_closes_it():
    tester = CircuitsTester()
    assert tester.call(0, 1, CallResult.FAILED) == []
    assert tester.call(0, 2, CallResult.FAILED) == []
    assert tester.call(0, 3, CallResult.FAILED) == [
        opened_log("gpt-large at https://api.example.com", 5, "3 calls in a row failed")
    ]
    assert tester.ask(2, 4) == refused(
        "the circuit of gpt-large has been open for 2 s (3 calls in a row failed); it is tried again in 3 s",
        3,
    )
    assert tester.ask(5, 5) is True
    assert tester.ask(6, 6) == refused(
        "the circuit of gpt-large has been open for 6 s (3 calls in a row failed); "
        "a call that is under way will tell whether it closes",
        1,
    )
    assert tester.report(6.5, 5, CallResult.WELL) == [closed_log(UPSTREAM, 6.5)]
    assert tester.ask(7, 7) is False
    assert tester.end(8, 5, CallResult.WELL) == []
    assert tester.end(8, 7, CallResult.WELL) == []


def test_a_probe_that_fails_opens_it_again():
    tester = broken()
    tester.ask(5, 1)
    assert tester.end(6, 1, CallResult.FAILED) == [
        opened_log("gpt-large at https://api.example.com", 10, "it failed again")
    ]
    assert tester.is_refused(15.9, GPT)
    tester.ask(16, 2)
    assert tester.end(16, 2, CallResult.FAILED, retry_after_s=7) == [
        opened_log(UPSTREAM, 7, "it failed again")
    ]
    assert tester.ask(23, 3) is True


def test_a_probe_whose_client_goes_leaves_it_to_the_next():
    tester = broken()
    tester.ask(5, 1)
    assert tester.end(6, 1) == []
    assert tester.ask(6, 2) is True


def test_a_probe_that_hangs_leaves_it_to_the_next_and_may_still_close_it():
    tester = broken()
    tester.ask(5, 1)
    assert isinstance(tester.ask(24.9, 2), Problem)
    assert tester.ask(25, 3) is True
    assert tester.end(26, 1, CallResult.WELL) == [closed_log(UPSTREAM, 26)]
    assert tester.end(26, 3, CallResult.FAILED) == []
    assert tester.ask(26, 4) is False


def test_a_probe_that_hung_does_not_open_it_again():
    tester = broken()
    tester.ask(5, 1)
    tester.ask(25, 2)
    assert tester.end(26, 1, CallResult.FAILED) == []
    assert tester.end(27, 2, CallResult.WELL) == [closed_log(UPSTREAM, 27)]


def test_a_last_resort_is_never_refused():
    tester = broken()
    assert tester.ask(1, 1, last_resort=True) is True
    assert tester.ask(1, 2, last_resort=True) is False
    assert tester.end(2, 2, CallResult.WELL) == []  # no probe: nobody asked
    assert tester.is_refused(2, GPT)
    assert tester.end(3, 1, CallResult.WELL) == [closed_log(UPSTREAM, 3)]


def test_what_began_before_it_opened_counts_no_more():
    tester = CircuitsTester()
    for number in (1, 2):
        tester.ask(0, number)
    for number in (901, 902, 903):
        tester.call(0, number, CallResult.FAILED)
    assert [(lease, problem.code) for lease, problem in tester.shut_out] == [
        ((HOLDER, 1), "circuit_open"),
        ((HOLDER, 2), "circuit_open"),
    ]
    assert tester.end(1, 1, CallResult.WELL) == []
    assert tester.is_refused(1, GPT)
    tester.ask(5, 3)
    assert tester.end(6, 3, CallResult.WELL) == [closed_log(UPSTREAM, 6)]
    assert tester.end(7, 2, CallResult.FAILED) == []
    assert tester.call(7, 4, CallResult.FAILED) == []
    assert tester.call(7, 5, CallResult.FAILED) == []
    assert tester.call(7, 6, CallResult.FAILED) == [opened_log(UPSTREAM, 5, "3 calls in a row failed")]


def test_a_last_resort_is_not_shut_out():
    tester = CircuitsTester()
    tester.ask(0, 1, last_resort=True)
    for number in (901, 902, 903):
        tester.call(0, number, CallResult.FAILED)
    assert tester.shut_out == []


def test_a_credential_that_is_not_accepted_opens_its_own_circuit():
    tester = CircuitsTester()
    assert tester.call(0, 1, CallResult.CREDENTIAL) == [
        opened_log("the credential (EXAMPLE_KEY) at https://api.example.com", 5, "it was not accepted")
    ]
    for engine in (GPT, MINI):
        assert tester.is_refused(1, engine)
    assert tester.ask(1, 2) == refused(
        "the circuit of the credential for gpt-large has been open for 1 s (it was not accepted); it is tried again in 4 s",
        4,
    )
    other_key = evolve(GPT, api_key_env="OTHER_KEY")
    assert not tester.is_refused(1, other_key)
    assert not tester.is_refused(1, ELSEWHERE)
    assert tester.ask(5, 3, MINI) is True
    assert tester.end(6, 3, CallResult.WELL) == [closed_log(CREDENTIAL, 6)]
    assert tester.ask(6, 4) is False


def test_a_credential_that_is_not_accepted_says_nothing_about_the_upstream():
    tester = CircuitsTester()
    tester.call(0, 1, CallResult.FAILED)
    tester.call(0, 2, CallResult.FAILED)
    tester.call(0, 3, CallResult.CREDENTIAL)
    assert not tester.is_refused(0, evolve(GPT, api_key_env="OTHER_KEY"))
    assert tester.call(0, 4, CallResult.FAILED, evolve(GPT, api_key_env="OTHER_KEY")) == [
        opened_log(UPSTREAM, 5, "3 calls in a row failed")
    ]


def test_an_upstream_that_fails_says_nothing_about_the_credential():
    tester = CircuitsTester()
    tester.call(0, 1, CallResult.CREDENTIAL)
    assert tester.ask(5, 2) is True
    assert tester.end(6, 2, CallResult.FAILED) == []
    assert tester.ask(6, 3) is True


def test_a_credential_that_fails_leaves_the_upstream_to_the_next_probe():
    tester = broken()
    assert tester.ask(5, 1) is True
    assert tester.report(6, 1, CallResult.CREDENTIAL) == [opened_log(CREDENTIAL, 5, "it was not accepted")]
    assert tester.is_refused(6, GPT)
    assert tester.ask(6, 2, evolve(GPT, api_key_env="OTHER_KEY")) is True
    assert tester.end(7, 1, CallResult.CREDENTIAL) == []


def test_one_call_may_be_the_probe_of_both():
    tester = broken()
    tester.call(0, 1, CallResult.CREDENTIAL, MINI)
    assert tester.ask(5, 2) is True
    assert tester.end(6, 2, CallResult.WELL) == [closed_log(UPSTREAM, 6), closed_log(CREDENTIAL, 6)]


def test_both_circuits_must_admit_and_a_refusal_changes_neither():
    tester = broken()
    tester.call(3, 1, CallResult.CREDENTIAL, MINI)
    assert isinstance(tester.ask(5, 2), Problem)  # the upstream is due, the credential is not
    assert tester.ask(5, 3, evolve(GPT, api_key_env="OTHER_KEY")) is True


def test_other_upstreams_go_on():
    tester = broken()
    assert not tester.is_refused(1, MINI)
    assert not tester.is_refused(1, ELSEWHERE)
    assert tester.is_refused(1, evolve(GPT, model="alias", upstream_model="gpt-large"))


def test_a_report_and_a_release_that_say_the_same_are_one_outcome():
    tester = CircuitsTester()
    for number in (1, 2):
        tester.ask(0, number)
        tester.report(0, number, CallResult.FAILED)
        tester.end(0, number, CallResult.FAILED)
    assert not tester.is_refused(0, GPT)
    tester.ask(0, 3)
    tester.report(0, 3, CallResult.WELL)
    tester.end(1, 3, CallResult.FAILED)  # it broke off: that is news
    tester.call(1, 4, CallResult.FAILED)
    assert tester.call(1, 5, CallResult.FAILED) == [opened_log(UPSTREAM, 5, "3 calls in a row failed")]


def test_who_was_not_admitted_is_not_heard():
    tester = broken()
    tester.ask(1, 1)
    assert tester.report(1, 1, CallResult.WELL) == []
    assert tester.end(1, 1, CallResult.WELL) == []
    assert tester.is_refused(1, GPT)


def test_engines_of_our_own_have_no_circuit():
    tester = CircuitsTester()
    for number in range(5):
        assert tester.call(0, number, CallResult.FAILED, spec()) == []
    assert tester.ask(0, 9, spec()) is False
    assert tester.circuits.trouble(spec(), 0) is None
    assert tester.forgive(spec()) == []


def test_the_operator_closes_it():
    tester = broken()
    tester.call(0, 1, CallResult.CREDENTIAL, MINI)
    assert tester.forgive(MINI) == [
        Log(severity=Severity.INFO, text=f"circuit of {CREDENTIAL} closed by the operator")
    ]
    assert tester.forgive(GPT) == [
        Log(severity=Severity.INFO, text=f"circuit of {UPSTREAM} closed by the operator")
    ]
    assert tester.ask(1, 2) is False
    assert tester.forgive(GPT) == []


def test_a_probe_that_was_forgiven_does_no_harm():
    tester = broken()
    tester.ask(5, 1)
    tester.forgive(GPT)
    assert tester.end(6, 1, CallResult.FAILED) == []
    assert tester.ask(6, 2) is False


def test_trouble_is_told_until_it_is_over():
    tester = broken()
    assert tester.circuits.trouble(MINI, 1) is None
    text = "the circuit of gpt-large has been open for {} s (3 calls in a row failed); {}"
    assert tester.circuits.trouble(GPT, 1) == text.format(1, "it is tried again in 4 s")
    assert tester.circuits.trouble(GPT, 6) == text.format(6, "the next call tries it")
    tester.ask(6, 1)
    assert tester.circuits.trouble(GPT, 7) == text.format(
        7, "a call that is under way will tell whether it closes"
    )
    tester.end(8, 1, CallResult.WELL)
    assert tester.circuits.trouble(GPT, 8) is None


def test_what_is_not_used_is_forgotten():
    tester = broken()
    tester.ask(5, 1)  # its probe hangs
    for number in range(1000):
        tester.call(10 * number, 100 + number, CallResult.WELL, remote_spec(f"model-{number}"))
    assert len(tester.circuits._states) <= 2 * (FORGET_AFTER_S / 10) + LEAST_SWEPT
    assert UPSTREAM in tester.circuits._states
    tester.end(10_000, 1)
    for number in range(1000, 2000):
        tester.call(10 * number, 100 + number, CallResult.WELL, remote_spec(f"model-{number}"))
    assert UPSTREAM not in tester.circuits._states
    assert tester.circuits._calls == {}


def test_nothing_is_kept_of_calls_that_say_nothing():
    tester = CircuitsTester()
    for number in range(10):
        tester.call(0, number, None, remote_spec(f"model-{number}"))
    assert tester.circuits._states == {}
    assert tester.circuits._calls == {}
