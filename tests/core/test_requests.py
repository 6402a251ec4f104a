import pytest
from attrs import evolve

from gatewright.api.facts import ApiFormat, Continuation, Resumable
from gatewright.config import CallTimeouts
from gatewright.requests import (
    TRANSITIONS,
    AwaitingCountLease,
    AwaitingLease,
    AwaitingLoads,
    BackingOff,
    Calling,
    Canceling,
    Counting,
    Estimating,
    Held,
    Received,
    Relaying,
    Request,
    Reserving,
)
from gatewright.selection.fallback import Attempts
from gatewright.selection.variants import Fits
from tests.core.machines.build import chat, cid, lid, model, rid, spec

FITS = Fits((spec(),), 100)
HELD = Held(lid(1), 4096)
SAMPLES = {
    Received: Received(),
    Estimating: Estimating(cid(1)),
    AwaitingLoads: AwaitingLoads(lid(1)),
    Reserving: Reserving(cid(1), FITS, 0.01),
    AwaitingCountLease: AwaitingCountLease(lid(1), FITS),
    Counting: Counting(cid(1), HELD, FITS),
    AwaitingLease: AwaitingLease(lid(1), FITS),
    BackingOff: BackingOff(12.0),
    Calling: Calling(cid(1), HELD),
    Relaying: Relaying(cid(1), HELD),
    Canceling: Canceling(cid(1), HELD, None),
}


def request(state=None, facts=None, **limits: float) -> Request:
    attempts = Attempts((model(call_timeouts=CallTimeouts(**limits)), model("llama", prefill=None)))
    return Request(rid("r"), facts or chat(), attempts, 10.0, 10.0, 20.0, state or Received())


def test_every_state_is_in_the_graph():
    assert set(SAMPLES) == set(TRANSITIONS)


@pytest.mark.parametrize("old", SAMPLES)
@pytest.mark.parametrize("new", SAMPLES)
def test_a_request_goes_only_where_the_graph_says(old, new):
    subject = request(SAMPLES[old])
    if new in TRANSITIONS[old]:
        subject.become(SAMPLES[new])
        assert subject.state == SAMPLES[new]
    else:
        with pytest.raises(AssertionError, match=f"no transition from {old.__name__} to {new.__name__}"):
            subject.become(SAMPLES[new])


def test_waits_are_added_up_over_all_attempts():
    subject = request()
    assert subject.wait_s(12.0) == 2.0
    subject.waited_s, subject.waits_since = subject.wait_s(12.0), None
    assert subject.wait_s(15.0) == 2.0
    subject.waits_since = 20.0
    assert subject.wait_s(21.5) == 3.5


# --- when it ends


def test_a_request_has_as_much_time_as_it_needs():
    assert request().give_up_at is None
    assert request().alarm_at is None


def test_a_request_ends_when_the_model_that_was_asked_for_says():
    subject = request(total_s=60.0)
    assert subject.give_up_at == 70.0
    subject.attempts.move_to(1)
    assert (subject.model.timeouts.total_s, subject.give_up_at) == (None, 70.0)


@pytest.mark.parametrize(("patience_s", "end"), [(600.0, 609.0), (10.0, 19.5), (1.0, 10.95)])
def test_a_request_ends_a_little_before_its_client_gives_up(patience_s, end):
    assert request(facts=chat(client_timeout_s=patience_s)).give_up_at == pytest.approx(end)


def test_the_earlier_of_both_counts():
    facts = chat(client_timeout_s=100.0)
    assert request(facts=facts, total_s=60.0).give_up_at == 70.0
    assert request(facts=facts, total_s=200.0).give_up_at == 109.0


@pytest.mark.parametrize("change", [{"stream_begun": True}, {"begun_status": 200}])
def test_a_client_that_hears_something_is_patient_again(change):
    subject = request(facts=chat(client_timeout_s=100.0), total_s=200.0)
    for name, value in change.items():
        setattr(subject, name, value)
    assert subject.give_up_at == 210.0


@pytest.mark.parametrize(("total_s", "at"), [(None, 12.0), (60.0, 12.0), (1.0, 11.0)])
def test_who_backs_off_is_looked_at_when_that_ends_or_its_time(total_s, at):
    assert request(BackingOff(12.0), total_s=total_s).alarm_at == at


# --- how the rest of an answer is asked for

FREE = chat(stream=True, continuable=True)
STRICT = chat(stream=True)
TEXT = evolve(FREE, format=ApiFormat.COMPLETION)


@pytest.mark.parametrize(
    ("resumable", "facts", "prefill", "refused", "asked"),
    [
        (Resumable.NO, FREE, Continuation.PREFIX, False, None),
        (Resumable.NO, TEXT, Continuation.PREFIX, False, None),
        (Resumable.REPEAT, FREE, Continuation.PREFIX, False, Continuation.REPEAT),
        (Resumable.REPEAT, TEXT, None, False, Continuation.REPEAT),
        (Resumable.CONTINUE, STRICT, Continuation.PREFIX, False, Continuation.REPEAT),
        (Resumable.CONTINUE, FREE, Continuation.PREFIX, False, Continuation.PREFIX),
        (Resumable.CONTINUE, FREE, Continuation.LLAMACPP, False, Continuation.LLAMACPP),
        (Resumable.CONTINUE, FREE, None, False, Continuation.REPEAT),
        (Resumable.CONTINUE, FREE, Continuation.PREFIX, True, Continuation.REPEAT),
        (Resumable.CONTINUE, TEXT, None, False, Continuation.PROMPT),
        (Resumable.CONTINUE, TEXT, Continuation.PREFIX, False, Continuation.PROMPT),
        (Resumable.CONTINUE, TEXT, None, True, Continuation.REPEAT),
        (Resumable.CONTINUE, evolve(TEXT, continuable=False), None, False, Continuation.REPEAT),
    ],
)
def test_how_the_rest_of_an_answer_is_asked_for(resumable, facts, prefill, refused, asked):
    subject = Request(rid("r"), facts, Attempts((model(prefill=prefill),)), 0.0, 0.0, 10.0)
    subject.resumable, subject.prefill_refused = resumable, refused
    assert subject.continuation is asked
