from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, Usage
from gatewright.wire.taps import BodyTap, PassTap, StreamTap, Tap, make_tap

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
def test_errors_within_a_stream_are_seen(api_format: ApiFormat, event: bytes):
    out, tap = run(api_format, [b"data: {}\n\n" + event])
    assert out == b"data: {}\n\n" + event
    assert tap.saw_error


def test_usage_in_every_chunk_and_null_in_most():
    chunk = b'data: {"choices":[{"delta":{},"finish_reason":null}],"usage":null}\n\n'
    last = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    _, tap = run(ApiFormat.CHAT, [chunk * 3, last])
    assert tap.usage == Usage(prompt_tokens=3, completion_tokens=1)
    assert tap.complete
    assert tap.events == 4


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
    st.lists(st.sampled_from([b"\n", b"\r", b"data: [DONE]", b'data: {"choices":[{"finish_reason":"x"}]}', b":", b"x"]), max_size=15),
    st.lists(st.integers(0, 200)),
    st.sampled_from(list(ApiFormat)),
)  # fmt: skip
def test_splits_agree_on_anything(parts: list[bytes], cuts: list[int], api_format: ApiFormat):
    stream = b"".join(parts)
    bounds = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    (out, tap), (whole_out, whole) = run(api_format, pieces), run(api_format, [stream])
    assert out == whole_out
    assert (tap.usage, tap.finish_reason, tap.complete, tap.saw_error, tap.events) == (
        whole.usage, whole.finish_reason, whole.complete, whole.saw_error, whole.events
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


# --- which tap


@pytest.mark.parametrize(
    ("content_type", "encoding", "kind"),
    [
        ("text/event-stream", None, StreamTap),
        ("Text/Event-Stream; charset=utf-8", "identity", StreamTap),
        ("application/json; charset=utf-8", None, BodyTap),
        ("application/problem+json", None, BodyTap),
        ("text/plain; version=0.0.4", None, PassTap),
        (None, None, PassTap),
        ("text/event-stream", "gzip", PassTap),
        ("application/json", "br", PassTap),
    ],
)
def test_the_headers_choose_the_tap(content_type: str | None, encoding: str | None, kind: type):
    tap: Tap = make_tap(ApiFormat.CHAT, content_type, encoding)
    assert type(tap) is kind


def test_what_cannot_be_read_passes():
    tap = PassTap()
    assert tap.feed(b"x") == b"x"
    assert tap.finish() == b""
    assert tap.complete
    assert tap.events == 0
    assert not tap.in_event
