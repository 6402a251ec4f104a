import json

import pytest

from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.api.facts import ApiFormat
from gatewright.api.request import read_request
from gatewright.api.rewriting import ask_for_usage
from gatewright.wire.taps import StreamTap

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False, "other": 1}])
def test_a_stream_is_asked_to_tell_its_tokens(options):
    body = {"model": "m", "seed": 12345678901234567890, "stream_options": options}
    asked = json.loads(ask_for_usage(json.dumps(body).encode()))
    assert asked["stream_options"] == {**(options or {}), "include_usage": True}
    assert (asked["model"], asked["seed"]) == ("m", 12345678901234567890)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"stream_options": 3}'])
def test_what_cannot_be_read_stays_as_it_is(body):
    assert ask_for_usage(body) == body


@pytest.mark.parametrize(
    ("more", "wants"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": 7}, False),
        ({"stream_options": {"include_usage": True}}, False),
    ],
)
def test_whether_the_client_wants_it(more, wants):
    endpoint = match_endpoint("POST", "/v1/chat/completions")
    assert isinstance(endpoint, Endpoint)
    body = {"messages": [{"role": "user", "content": "hi"}], **more}
    assert read_request(endpoint, (), json.dumps(body).encode()).wants_usage is wants


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


FIRST = event({"choices": [], "prompt_filter_results": []})
TOKEN = event({"choices": [{"delta": {"content": "[]"}}], "usage": None})
LAST = event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None})
ALONE = event({"choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"
STREAM = FIRST + TOKEN + LAST + ALONE + DONE


@pytest.mark.parametrize("step", [1, 7, 50, len(STREAM)])
def test_the_event_that_only_we_have_asked_for_is_kept(step):
    tap = StreamTap(ApiFormat.CHAT, keeps_usage=True)
    passed = b"".join(tap.feed(STREAM[start : start + step]) for start in range(0, len(STREAM), step))
    passed += tap.finish()
    assert passed == FIRST + TOKEN + LAST + DONE
    assert tap.usage is not None
    assert (tap.usage.prompt_tokens, tap.usage.completion_tokens) == (7, 2)
    assert tap.complete


def test_a_client_that_asked_gets_it():
    tap = StreamTap(ApiFormat.CHAT)
    assert tap.feed(STREAM) + tap.finish() == STREAM


def test_tokens_that_come_with_the_last_choice_pass():
    with_choice = event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    tap = StreamTap(ApiFormat.CHAT, keeps_usage=True)
    assert tap.feed(TOKEN + with_choice + DONE) + tap.finish() == TOKEN + with_choice + DONE
