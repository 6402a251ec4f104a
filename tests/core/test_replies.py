import pytest

from gatewright import replies
from gatewright.commands import Outcome
from gatewright.leases import LeaseProgress
from gatewright.requests import AwaitingLease, Held, Request
from gatewright.selection.variants import Fits
from tests.core.machines.build import chat, config, lid, model, rid, spec


def request() -> Request:
    return Request(rid("r"), chat(stream=True), model(), 10.0, 10.0, 20.0)


def test_headers_name_the_variant_that_answered():
    assert replies.headers(request(), Held(lid(1), 4096), 10.0996) == (
        ("x-request-id", "r"),
        ("x-gw-model", "qwen"),
        ("x-gw-variant", "4096"),
        ("x-gw-attempts", "0"),
        ("x-gw-wait-ms", "100"),
    )


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, "gatewright: waiting for qwen, 7 s"),
        (
            LeaseProgress(lease_id=lid(1), position=3, engine="qwen@4096", phase="loading"),
            "gatewright: qwen@4096 loading, position 3 in the queue, waited 7 s",
        ),
        (
            LeaseProgress(lease_id=lid(1), position=1, engine="qwen@4096", phase="starting", expected_s=41.7),
            "gatewright: qwen@4096 starting, position 1 in the queue, waited 7 s of about 42 s",
        ),
    ],
)
def test_comments_say_what_is_waited_for(progress, text):
    waiting = request()
    waiting.state = AwaitingLease(lid(1), Fits((spec(),), 100), progress)
    assert replies.waiting_comment(waiting, 17.9) == text


def test_at_most_ten_models_are_named():
    message = replies.model_missing(config(*(model(f"m{number}") for number in range(12)))).message
    assert message.endswith("m8, m9")


def test_a_stream_that_began_was_seen_with_its_status():
    begun = request()
    assert replies.record(begun, Outcome.CANCELED, 12.0).status == 0
    begun.stream_begun = True
    assert replies.record(begun, Outcome.CANCELED, 12.0).status == 200
