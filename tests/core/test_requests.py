import pytest

from gatewright.requests import (
    TRANSITIONS,
    AwaitingCountLease,
    AwaitingLease,
    Calling,
    Canceling,
    Counting,
    Held,
    Received,
    Relaying,
    Request,
)
from gatewright.selection.variants import Fits
from tests.core.machines.build import chat, cid, lid, model, rid, spec

FITS = Fits((spec(),), 100)
HELD = Held(lid(1), 4096)
SAMPLES = {
    Received: Received(),
    AwaitingCountLease: AwaitingCountLease(lid(1), FITS),
    Counting: Counting(cid(1), HELD, FITS),
    AwaitingLease: AwaitingLease(lid(1), FITS),
    Calling: Calling(cid(1), HELD, FITS),
    Relaying: Relaying(cid(1), HELD, 200),
    Canceling: Canceling(cid(1), HELD, None),
}


def request(state=None) -> Request:
    return Request(rid("r"), chat(), model(), 10.0, 10.0, 20.0, state or Received())


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
