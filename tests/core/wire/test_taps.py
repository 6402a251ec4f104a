import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, Usage
from gatewright.wire.taps import BodyTap, PassTap, StreamTap

RECORDED = Path(__file__).parent / "recorded"
EXPECTED = {
    ApiFormat.CHAT: (Usage(prompt_tokens=26, completion_tokens=3), "length", 7),
    ApiFormat.COMPLETION: (Usage(prompt_tokens=5, completion_tokens=2), "length", 4),
    ApiFormat.MESSAGES: (Usage(prompt_tokens=26, completion_tokens=2, cached_tokens=25), "max_tokens", 7),
    ApiFormat.RESPONSES: (Usage(prompt_tokens=24, completion_tokens=2, cached_tokens=6), "completed", 10),
    ApiFormat.NATIVE: (Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=4), "length", 3),
}
LAST = {ApiFormat.CHAT: 2, ApiFormat.COMPLETION: 1}
"""Events behind the one that makes an answer complete."""


def recorded(api_format: ApiFormat, kind: str = "sse") -> bytes:
    return (RECORDED / f"{api_format.value}.{kind}").read_bytes()


def run(api_format: ApiFormat, pieces: list[bytes]) -> tuple[bytes, StreamTap]:
    tap = StreamTap(api_format)
    return b"".join(map(tap.feed, pieces)) + tap.finish(), tap


@pytest.mark.parametrize("api_format", EXPECTED)
def test_recorded_streams_whole_split_and_byte_by_byte(api_format: ApiFormat):
    stream = recorded(api_format)
    splits = [[stream]] + [[stream[:at], stream[at:]] for at in range(1, len(stream), 7)]
    splits.append([stream[at : at + 1] for at in range(len(stream))])
    for pieces in splits:
        out, tap = run(api_format, pieces)
        assert out == stream
        assert (tap.usage, tap.finish_reason, tap.events) == EXPECTED[api_format]
        assert tap.complete
        assert not tap.saw_error
        assert not tap.in_event


@pytest.mark.parametrize("api_format", EXPECTED)
def test_recorded_streams_with_other_line_ends(api_format: ApiFormat):
    for line_end in (b"\r\n", b"\r"):
        stream = recorded(api_format).replace(b"\n", line_end)
        out, tap = run(api_format, [stream])
        assert out == stream
        assert (tap.usage, tap.finish_reason, tap.events) == EXPECTED[api_format]
        assert tap.complete


@pytest.mark.parametrize("api_format", EXPECTED)
def test_a_stream_cut_off_passes_whole_events_only_and_is_not_complete(api_format: ApiFormat):
    stream = recorded(api_format)
    events = stream.split(b"\n\n")[:-1]
    for at in range(0, len(stream), 3):
        tap = StreamTap(api_format)
        out = tap.feed(stream[:at])
        assert out == b"".join(event + b"\n\n" for event in stream[:at].split(b"\n\n")[:-1])
        whole = out.count(b"\n\n")
        assert tap.events == whole
        assert tap.complete is (whole >= len(events) - LAST.get(api_format, 0))


@pytest.mark.parametrize("api_format", EXPECTED)
def test_spaces_in_the_json_do_not_matter(api_format: ApiFormat):
    stream = recorded(api_format).replace(b'":', b'": ').replace(b',"', b', "')
    _, tap = run(api_format, [stream])
    assert (tap.usage, tap.finish_reason, tap.events) == EXPECTED[api_format]
    assert tap.complete


@pytest.mark.parametrize("api_format", EXPECTED)
def test_recorded_bodies(api_format: ApiFormat):
    if api_format is ApiFormat.COMPLETION:
        return
    body = recorded(api_format, "json")
    tap = BodyTap(api_format)
    assert tap.feed(body[:50]) == body[:50]
    assert tap.feed(body[50:]) == body[50:]
    assert tap.finish() == b""
    assert tap.complete
    assert tap.finish_reason == EXPECTED[api_format][1]
    assert tap.usage is not None
    assert tap.usage.completion_tokens == EXPECTED[api_format][0].completion_tokens


# --- streams


def test_a_last_event_without_its_blank_line_is_completed():
    for rest in (b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"):
        out, tap = run(ApiFormat.CHAT, [b'data: {"choices":[]}\n\n', rest])
        assert out == b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
        assert tap.complete
        assert tap.events == 2
    assert run(ApiFormat.CHAT, [b'data: {"a":1}'])[0] == b'data: {"a":1}\n\n'
    assert run(ApiFormat.CHAT, [b"data: 5"])[0] == b""
    assert run(ApiFormat.OTHER, [b"data: 5"])[0] == b"data: 5\n\n"


@pytest.mark.parametrize("rest", [b"data: [DON", b'data: {"a":', b"event: x\n", b": ping", b"\n", b"da", b""])
def test_half_an_event_at_the_end_is_dropped(rest: bytes):
    out, tap = run(ApiFormat.CHAT, [b"data: {}\n\n", rest])
    assert out == b"data: {}\n\n"
    assert not tap.complete


def test_words_that_look_like_marks_are_only_words():
    text = rb'"finish_reason\": \"stop\", [DONE] \"usage\": {} error message_stop response.completed \"stop\":true'
    for api_format in (ApiFormat.CHAT, ApiFormat.NATIVE, ApiFormat.MESSAGES, ApiFormat.RESPONSES):
        _, tap = run(
            api_format, [b'data: {"choices":[{"delta":{"content":%b"}}],"content":%b"}\n\n' % (text, text)]
        )
        assert not tap.complete
        assert not tap.saw_error
        assert tap.usage is None


@pytest.mark.parametrize(
    ("api_format", "event"),
    [
        (ApiFormat.CHAT, b'data: {"error":{"code":500,"message":"x","type":"server_error"}}\n\n'),
        (ApiFormat.CHAT, b'error: {"code":500}\n\n'),
        (ApiFormat.NATIVE, b'data: {"error":{"message":"x"}}\n\n'),
        (ApiFormat.MESSAGES, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'),
        (ApiFormat.RESPONSES, b'event: error\ndata: {"type":"error","message":"x"}\n\n'),
        (ApiFormat.OTHER, b'data: {"error":{"message":"x"}}\n\n'),
    ],
)
def test_errors_within_a_stream_are_seen_and_withheld(api_format: ApiFormat, event: bytes):
    for rest in (b"", b"data: {}\n\n"):
        stream = b"data: {}\n\n" + event + rest
        for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
            out, tap = run(api_format, pieces)
            assert out == b"data: {}\n\n"
            assert tap.saw_error
            assert tap.closed
            assert tap.refusal is not None
            assert json.loads(tap.refusal)
            assert tap.events == 1


def test_usage_in_every_chunk_and_null_in_most():
    chunk = b'data: {"choices":[{"delta":{},"finish_reason":null}],"usage":null}\n\n'
    last = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    out, tap = run(ApiFormat.CHAT, [chunk * 3, last])
    assert out == chunk * 3 + last + b"data: [DONE]\n\n"
    assert tap.usage == Usage(prompt_tokens=3, completion_tokens=1)
    assert tap.complete
    assert tap.events == 5


# --- events that are no JSON


@pytest.mark.parametrize("bad", [b"x", b"{", b"[]", b"5", b'"x"', b"null", b"{},{}", b'{"a":"\xff"'])
@pytest.mark.parametrize("api_format", EXPECTED)
def test_one_event_that_is_no_object_is_dropped_and_the_second_ends_the_stream(
    api_format: ApiFormat, bad: bytes
):
    good, wrong = b'data: {"choices":[]}\n\n', b"data: %b\n\n" % bad
    stream = good + wrong + good * 2 + wrong + good
    for pieces in (
        [stream],
        [stream[at : at + 1] for at in range(len(stream))],
        [good, wrong, good * 2 + wrong, good],
    ):
        out, tap = run(api_format, pieces)
        assert out == good * 3
        assert (tap.malformed, tap.closed, tap.events) == (2, True, 3)
        assert not tap.complete
    _, tap = run(api_format, [good + wrong + good])
    assert (tap.malformed, tap.closed) == (1, False)


def test_events_that_are_wrong_alone_are_wrong_together():
    for events in (
        [b'{"a":"}', b'{"}'],
        [b'{"a":[{}', b"{}]}"],
        [b"{},{}", b'{"a":"}', b'{"}'],
        [b'{"a":{}', b"}"],
    ):
        _, tap = run(ApiFormat.CHAT, [b"".join(b"data: %b\n\n" % each for each in events)])
        assert tap.malformed == 2


@pytest.mark.parametrize(
    "odd", [b'{"a":NaN}', b'{"a":-Infinity}', rb'{"a":"\ud83d"}', b' {"a":1} ', b'{"choices":"x"}']
)
def test_odd_objects_that_clients_read_pass(odd: bytes):
    stream = b"data: %b\n\n" % odd
    for pieces in ([stream], [stream * 3]):
        out, tap = run(ApiFormat.CHAT, pieces)
        assert out == b"".join(pieces)
        assert tap.malformed == 0


def test_what_odd_objects_say_is_read():
    event = (
        b'data: {"choices":[{"logprobs":[-Infinity],"finish_reason":"stop"}],"usage":{"prompt_tokens":2}}\n\n'
    )
    _, tap = run(ApiFormat.CHAT, [event])
    assert (tap.complete, tap.finish_reason, tap.usage) == (True, "stop", Usage(prompt_tokens=2))


def test_events_without_a_value_are_no_events():
    for empty in (b"data: \n\n", b"data:\n\n", b"event: ping\ndata: \n\n"):
        out, tap = run(ApiFormat.CHAT, [b'data: {"choices":[]}\n\n' + empty])
        assert (out, tap.malformed) == (b'data: {"choices":[]}\n\n', 0)


def test_data_of_several_lines_is_read_as_one():
    stream = b'event: x\ndata: {"choices":\ndata: []}\nid: 1\n\n'
    out, tap = run(ApiFormat.CHAT, [stream * 2])
    assert (out, tap.malformed, tap.events) == (stream * 2, 0, 2)


def test_other_formats_may_send_anything():
    stream = b"data: x\n\ndata: \n\ndata: y\n\ndata: [DONE]\n\ndata: z\n\n"
    out, tap = run(ApiFormat.OTHER, [stream])
    assert (out, tap.malformed, tap.events) == (stream, 0, 5)


# --- the end


@pytest.mark.parametrize("api_format", [ApiFormat.CHAT, ApiFormat.COMPLETION])
def test_nothing_follows_done_and_done_comes_once(api_format: ApiFormat):
    event = b'data: {"choices":[{"finish_reason":"stop"}]}\n\n'
    done = b"data: [DONE]\n\n"
    for rest in (b"", b"data: [DO", done, done + event + done, b"data: x\n\n" + done):
        for pieces in ([event + rest], [event, rest]):
            out, tap = run(api_format, pieces)
            assert out == event + done
            assert tap.complete


def test_done_alone_completes_a_stream_but_none_is_added_to_what_is_not_finished():
    chunk = b'data: {"choices":[{"finish_reason":null}]}\n\n'
    assert run(ApiFormat.CHAT, [chunk])[0] == chunk
    out, tap = run(ApiFormat.CHAT, [chunk + b"data: [DONE]\n\n"])
    assert (out, tap.complete) == (chunk + b"data: [DONE]\n\n", True)


def test_a_reason_that_is_no_reason_finishes_nothing():
    chunk = b'data: {"choices":[{"finish_reason":""}]}\n\n'
    out, tap = run(ApiFormat.CHAT, [chunk])
    assert (out, tap.complete, tap.finish_reason) == (chunk, False, None)


def test_a_stream_of_several_choices_is_complete_with_the_last_of_them():
    first, second = (
        b'data: {"choices":[{"index":%d,"finish_reason":"stop"}]}\n\n' % index for index in (0, 1)
    )
    tap = StreamTap(ApiFormat.CHAT, choices=2)
    assert tap.feed(first + first) == first + first
    assert not tap.complete
    assert tap.feed(second) == second
    assert tap.complete
    assert tap.finish() == b"data: [DONE]\n\n"
    assert tap.finish() == b""
    native = StreamTap(ApiFormat.NATIVE, choices=2)
    native.feed(b'data: {"index":1,"stop":true}\n\n')
    assert not native.complete
    native.feed(b'data: {"index":0,"stop":true}\n\n')
    assert native.complete
    assert native.finish() == b""


def test_comments_pass_at_once():
    tap = StreamTap(ApiFormat.CHAT)
    assert tap.feed(b":\n\n") == b":\n\n"
    assert tap.events == 1


def test_the_end_of_other_streams_is_always_good():
    assert run(ApiFormat.OTHER, [b"data: {}\n\n"])[1].complete


def test_an_event_too_large_to_be_held_passes_in_pieces():
    tap = StreamTap(ApiFormat.CHAT)
    event = b'data: {"x":"' + b"x" * 2_000_000 + b'"}\n\n'
    passed = tap.feed(event[:1_500_000])
    assert tap.in_event
    assert len(passed) > 1_400_000
    passed += tap.feed(event[1_500_000:] + b"data: [DONE]\n\n")
    assert not tap.in_event
    assert tap.complete
    assert passed == event + b"data: [DONE]\n\n"


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"\n", b"\n\n", b"\r", b"data: [DONE]", b'data: {"choices":[{"finish_reason":"x"}]}', b'data: {"error":{"a":1}}',
             b"data: {", b"}", b"data: ", b"event: e\n", b":", b"x"]
        ),
        max_size=15,
    ),
    st.lists(st.integers(0, 200)),
    st.sampled_from(list(ApiFormat)),
)  # fmt: skip
def test_splits_agree_on_anything(parts: list[bytes], cuts: list[int], api_format: ApiFormat):
    stream = b"".join(parts)
    bounds = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    (out, tap), (whole_out, whole) = run(api_format, pieces), run(api_format, [stream])
    assert out == whole_out
    assert (tap.usage, tap.finish_reason, tap.complete, tap.saw_error, tap.events, tap.malformed, tap.refusal) == (
        whole.usage, whole.finish_reason, whole.complete, whole.saw_error, whole.events, whole.malformed, whole.refusal
    )  # fmt: skip


# --- bodies


@pytest.mark.parametrize("body", [b'{"choices":[{"finish_reason":"stop"}', b"", b"{} x"])
def test_a_body_that_is_no_document_is_not_complete(body: bytes):
    tap = BodyTap(ApiFormat.CHAT)
    tap.feed(body)
    tap.finish()
    assert not tap.complete


def test_a_body_of_an_unknown_shape_is_complete():
    tap = BodyTap(ApiFormat.CHAT)
    tap.feed(b'{"choices":"many"}')
    tap.finish()
    assert tap.complete
    assert tap.usage is None


def test_usage_of_embeddings():
    tap = BodyTap(ApiFormat.OTHER)
    tap.feed(b'{"data":[{"embedding":[1,2.5]}],"usage":{"prompt_tokens":4,"total_tokens":4}}')
    tap.finish()
    assert tap.usage == Usage(prompt_tokens=4)


def test_a_body_beyond_the_limit_passes_unread():
    tap = BodyTap(ApiFormat.CHAT, max_capture_bytes=10)
    assert tap.feed(b'{"usage":') == b'{"usage":'
    assert tap.feed(b'{"prompt_tokens":1}}') == b'{"prompt_tokens":1}}'
    tap.finish()
    assert tap.usage is None
    assert tap.complete


def test_what_cannot_be_read_passes():
    tap = PassTap()
    assert tap.feed(b"x") == b"x"
    assert tap.finish() == b""
    assert tap.complete
    assert tap.events == 0
    assert not tap.in_event
