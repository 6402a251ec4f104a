"""When an answer has begun, and what is none."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, Continuation, Resumable, UpstreamError
from gatewright.events import CallFailure
from gatewright.wire.client import ClientExchange
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NEED_DATA
from gatewright.wire.upstream_answer import MAX_HELD_DOCUMENT_BYTES, MAX_HELD_EVENT_BYTES, UpstreamAnswer
from gatewright.wire.verdicts import ANSWER_ENDED, UNANSWERED, Begun, CallBroken
from tests.support.upstream_answers import (
    DONE,
    JSON,
    Outcome,
    cut,
    delta,
    drive,
    event,
    facts,
    response,
    splits,
)

RECORDED = Path(__file__).parent / "recorded"
KNOWN = [each for each in ApiFormat if each is not ApiFormat.OTHER]
ROLE = delta(role="assistant", content="")
HELLO = delta(content="hello")
STOP = delta("stop")
FRAMINGS = ["length", "chunked", "close"]


def hold(data: bytes, api_format: ApiFormat = ApiFormat.CHAT, *, eof: bool = False) -> object:
    return drive([data], facts(api_format), eof=eof).held


def failure(verdict: object) -> CallFailure:
    assert isinstance(verdict, CallBroken)
    assert verdict.reason
    assert "\n" not in verdict.reason
    return verdict.failure


# --- whole answers


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("api_format", KNOWN)
def test_recorded_streams_pass_untouched_however_they_are_split(api_format: ApiFormat, framing: str):
    stream = (RECORDED / f"{api_format.value}.sse").read_bytes()
    data = response(stream, framing=framing)
    whole = drive([data], facts(api_format))
    assert (whole.held, whole.passed, whole.out) == (Begun(200), ANSWER_ENDED, stream)
    assert whole.usage is not None
    assert whole.is_event_stream
    assert whole.is_finished
    for pieces in splits(data, step=11):
        assert drive(pieces, facts(api_format)) == whole


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("api_format", [each for each in KNOWN if each is not ApiFormat.COMPLETION])
def test_recorded_documents_pass_untouched_however_they_are_split(api_format: ApiFormat, framing: str):
    document = (RECORDED / f"{api_format.value}.json").read_bytes()
    data = response(document, JSON, framing=framing)
    whole = drive([data], facts(api_format))
    assert (whole.held, whole.passed, whole.out) == (Begun(200), ANSWER_ENDED, document)
    assert whole.usage is not None
    assert whole.resumable is Resumable.NO
    assert not whole.is_event_stream
    for pieces in splits(data, step=11):
        assert drive(pieces, facts(api_format)) == whole


# --- errors


def test_an_error_has_begun_when_all_of_it_is_here():
    body = b'{"error":{"message":"slow down","code":"x"}}'
    data = response(body, JSON, 429, headers="Retry-After: 2\r\n")
    error = UpstreamError(message="slow down", code="x", retry_after_s=2.0)
    assert hold(data[:-1]) == NEED_DATA
    for pieces in splits(data):
        outcome = drive(pieces, facts())
        assert (outcome.held, outcome.passed, outcome.out) == (Begun(429, error), ANSWER_ENDED, body)


def test_a_large_error_has_begun_before_its_end():
    body = b"x" * 100_000
    data = response(body, "text/plain", 500)
    early = drive([data[:70_000]], facts(), eof=False)
    assert isinstance(early.held, Begun)
    assert early.held.error is not None
    assert early.passed == NEED_DATA
    assert drive([data[:70_000], data[70_000:]], facts()).out == body


def test_a_broken_error_is_no_answer():
    assert failure(hold(response(b"x" * 10, JSON, 500)[:-1], eof=True)) is CallFailure.BROKEN


@pytest.mark.parametrize("data", [b"", b"H", b"HTTP/1.1 200"])
def test_without_a_byte_the_connection_was_closed_before(data: bytes):
    expected = UNANSWERED if not data else CallFailure.BROKEN
    found = hold(data, eof=True)
    assert (found if found == UNANSWERED else failure(found)) == expected


# --- the first token of a stream

NOT_YET = {
    ApiFormat.CHAT: [
        ROLE,
        b": ping\n\n",
        event({"choices": [], "usage": {"prompt_tokens": 1}}),
        delta(content=None),
    ],
    ApiFormat.COMPLETION: [event({"choices": [{"text": "", "finish_reason": None}]})],
    ApiFormat.NATIVE: [event({"content": "", "stop": False})],
    ApiFormat.MESSAGES: [
        b"event: message_start\n" + event({"type": "message_start", "message": {}}),
        event({"type": "ping"}),
        event({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}),
    ],
    ApiFormat.RESPONSES: [
        event({"type": "response.created", "response": {}}),
        event({"type": "response.output_item.added", "item": {}}),
    ],
    ApiFormat.OTHER: [b": ping\n\n", b"event: x\n\n"],
}
TOKENS = {
    ApiFormat.CHAT: [HELLO, delta(reasoning_content="h"), delta(tool_calls=[{}]), delta(refusal="n"), STOP],
    ApiFormat.COMPLETION: [
        event({"choices": [{"text": "a"}]}),
        event({"choices": [{"text": "", "finish_reason": "stop"}]}),
    ],
    ApiFormat.NATIVE: [event({"content": "a", "stop": False}), event({"content": "", "stop": True})],
    ApiFormat.MESSAGES: [
        event({"type": "content_block_delta", "delta": {}}),
        event({"type": "content_block_start", "content_block": {"type": "tool_use"}}),
        event({"type": "message_delta", "delta": {}}),
        event({"type": "message_stop"}),
    ],
    ApiFormat.RESPONSES: [
        event({"type": "response.output_text.delta", "delta": "x"}),
        event({"type": "response.output_item.done"}),
        event({"type": "response.completed", "response": {}}),
        event({"type": "response.incomplete", "response": {}}),
    ],
    ApiFormat.OTHER: [b"data: x\n\n", b"data: {}\n\n"],
}


@pytest.mark.parametrize("api_format", ApiFormat)
def test_a_stream_has_begun_with_its_first_token(api_format: ApiFormat):
    before = b"".join(NOT_YET[api_format])
    head = response(b"", framing="close")
    for token in TOKENS[api_format]:
        assert hold(head + before + token[:-1], api_format) == NEED_DATA, token
        outcome = drive([head, before, token], facts(api_format), eof=False)
        assert (outcome.held, outcome.passed, outcome.out) == (Begun(200), NEED_DATA, before + token)


def test_a_stream_that_is_long_has_begun():
    comment = b": " + b"x" * 1000 + b"\n\n"
    data = response(comment * 70, framing="close")
    assert hold(data[: MAX_HELD_EVENT_BYTES - 2000]) == NEED_DATA
    assert hold(data) == Begun(200)


def test_an_event_too_large_to_be_held_has_begun():
    data = response(b"data: " + b"x" * 1_100_000, framing="close")
    outcome = drive([data], facts(), eof=False)
    assert outcome.held == Begun(200)


@pytest.mark.parametrize(
    ("document", "status", "message"),
    [
        ({"error": {"message": "busy", "code": 503}}, 503, "busy"),
        ({"error": {"message": "busy", "status": "429"}}, 429, "busy"),
        ({"error": {"message": "busy", "code": "odd"}}, None, "busy"),
        ({"error": {"message": "busy", "code": 200}}, None, "busy"),
        ({"error": "busy"}, None, "busy"),
        ({"object": "error", "message": "busy", "code": 400}, 400, "busy"),
        ({"choices": "odd", "error": {"message": "busy"}}, None, "busy"),
    ],
)
def test_an_error_in_the_place_of_the_first_token(document: object, status: int | None, message: str):
    for stream in (event(document), ROLE + event(document) + HELLO):
        for pieces in splits(response(stream, framing="chunked"), step=3):
            outcome = drive(pieces, facts())
            assert isinstance(outcome.held, Begun)
            assert outcome.held.status == 200
            assert outcome.held.error is not None
            assert (outcome.held.error.status, outcome.held.error.message) == (status, message)
            assert outcome.out == b""


@pytest.mark.parametrize(
    ("api_format", "data"),
    [
        (ApiFormat.MESSAGES, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n'),
        (ApiFormat.MESSAGES, event({"type": "error", "message": "m"})),
        (ApiFormat.RESPONSES, event({"type": "error", "message": "m"})),
        (ApiFormat.RESPONSES, event({"type": "response.failed", "response": {"error": {"code": "x", "message": "m"}}})),
        (ApiFormat.NATIVE, event({"error": {"message": "m"}})),
        (ApiFormat.NATIVE, b'error: {"message":"m"}\n\n'),
        (ApiFormat.OTHER, event({"error": {"message": "m"}})),
    ],
)  # fmt: skip
def test_errors_of_other_formats_in_the_place_of_the_first_token(api_format: ApiFormat, data: bytes):
    for pieces in splits(response(data)):
        outcome = drive(pieces, facts(api_format))
        assert isinstance(outcome.held, Begun)
        assert outcome.held.error is not None
        assert outcome.held.error.message == "m"


@pytest.mark.parametrize(
    "stream", [b"", ROLE, DONE, ROLE + DONE, b": ping\n\n", b"data: x\n\ndata: x\n\n" + HELLO]
)
def test_a_stream_without_a_token_is_no_answer(stream: bytes):
    for framing in FRAMINGS:
        for pieces in splits(response(stream, framing=framing)):
            assert failure(drive(pieces, facts()).held) is CallFailure.MALFORMED


def test_a_stream_that_breaks_before_its_first_token_is_broken():
    assert failure(hold(response(ROLE + HELLO)[: -len(HELLO)], eof=True)) is CallFailure.BROKEN


def test_an_unknown_stream_may_be_empty():
    outcome = drive([response(b"")], facts(ApiFormat.OTHER))
    assert (outcome.held, outcome.passed) == (Begun(200), ANSWER_ENDED)


def test_one_malformed_event_before_the_first_token_is_dropped():
    outcome = drive([response(b"data: x\n\n" + HELLO + STOP + DONE)], facts())
    assert (outcome.held, outcome.passed, outcome.out) == (Begun(200), ANSWER_ENDED, HELLO + STOP + DONE)


# --- documents


def test_a_document_has_begun_when_it_is_complete():
    data = response(b'{"choices":[]}', JSON)
    assert hold(data[:-1]) == NEED_DATA
    assert hold(data) == Begun(200)


def test_a_large_document_has_begun_before_its_end():
    body = b'{"x":"' + b"x" * (MAX_HELD_DOCUMENT_BYTES + 1000) + b'"}'
    data = response(body, JSON)
    assert hold(data[:-2000]) == NEED_DATA
    assert hold(data[:-1]) == Begun(200)
    assert drive([data[:-1], data[-1:]], facts()).passed == ANSWER_ENDED


@pytest.mark.parametrize("body", [b"", b'{"a":', b"<html>", b"null", b'"x"', b"5", b"{} x"])
@pytest.mark.parametrize("api_format", KNOWN)
def test_what_is_no_document_is_no_answer(body: bytes, api_format: ApiFormat):
    assert (
        failure(hold(response(body, "application/json; charset=utf-8"), api_format)) is CallFailure.MALFORMED
    )


@pytest.mark.parametrize(
    ("body", "is_answer"), [(b"", True), (b"null", True), (b"5", True), (b"{", False), (b"x", False)]
)
def test_documents_of_other_formats_may_be_anything(body: bytes, is_answer: bool):
    assert (hold(response(body, "application/problem+json"), ApiFormat.OTHER) == Begun(200)) is is_answer


def test_json_that_only_python_reads_is_json():
    assert hold(response(b'{"choices":[{"logprobs":[-Infinity]}]}', JSON)) == Begun(200)


def test_a_broken_document_is_broken():
    assert failure(hold(response(b'{"choices":[]}', JSON)[:-1], eof=True)) is CallFailure.BROKEN


@pytest.mark.parametrize(
    ("api_format", "body"),
    [
        (ApiFormat.CHAT, b'{"error":{"message":"m","code":429}}'),
        (ApiFormat.CHAT, b'[{"error":{"message":"m","code":429}}]'),
        (ApiFormat.CHAT, b'{"object":"error","message":"m","code":429}'),
        (ApiFormat.MESSAGES, b'{"type":"error","error":{"message":"m","code":429}}'),
        (ApiFormat.MESSAGES, b'{"type":"error","message":"m","code":429}'),
        (ApiFormat.RESPONSES, b'{"status":"failed","error":{"message":"m","code":429}}'),
        (ApiFormat.OTHER, b'{"error":{"message":"m","code":429}}'),
    ],
)
def test_a_document_that_is_an_error(api_format: ApiFormat, body: bytes):
    for pieces in splits(response(body, JSON)):
        outcome = drive(pieces, facts(api_format))
        assert isinstance(outcome.held, Begun)
        assert outcome.held.error is not None
        assert (outcome.held.error.message, outcome.held.error.status) == ("m", 429)
        assert outcome.out == body


def test_an_object_that_tells_of_an_old_error_is_none():
    body = b'{"object":"fine_tuning.job","error":{"message":"m"}}'
    assert hold(response(body, JSON), ApiFormat.OTHER) == Begun(200)
    assert hold(response(b'{"error":null}', JSON), ApiFormat.OTHER) == Begun(200)


# --- other content


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "text/plain"])
def test_text_is_no_answer_of_a_known_format(content_type: str):
    verdict = hold(response(b"<html>", content_type)[:-6])
    assert isinstance(verdict, CallBroken)
    assert failure(verdict) is CallFailure.MALFORMED
    assert content_type in verdict.reason
    assert hold(response(b"<html>", content_type), ApiFormat.OTHER) == Begun(200)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"choices":[]}', "document"),
        (b" \n[]", "document"),
        (HELLO + STOP + DONE, "stream"),
        (b": ping\n\n" + HELLO + STOP + DONE, "stream"),
        (b"event: x\n" + HELLO + STOP + DONE, "stream"),
        (b"\xef\xbb\xbf" + HELLO + STOP + DONE, "stream"),
        (b"dat", "nothing"),
        (b"<html>", "nothing"),
        (b"", "nothing"),
    ],
)
def test_without_a_content_type_the_first_bytes_tell(body: bytes, kind: str):
    for pieces in splits(response(body, None)):
        outcome = drive(pieces, facts())
        if kind == "nothing":
            assert failure(outcome.held) is CallFailure.MALFORMED
        else:
            assert (outcome.held, outcome.passed, outcome.out) == (Begun(200), ANSWER_ENDED, body)
            assert outcome.is_event_stream is (kind == "stream")
        other = drive(pieces, facts(ApiFormat.OTHER))
        assert (other.held, other.passed, other.out) == (Begun(200), ANSWER_ENDED, body)


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [("audio/mpeg", ""), ("application/json", "Content-Encoding: gzip\r\n"), ("text/event-stream", "Content-Encoding: br\r\n")],
)  # fmt: skip
def test_what_cannot_be_read_has_begun_with_its_first_byte(content_type: str, headers: str):
    data = response(b"\x1f\x8b", content_type, headers=headers)
    assert hold(data[:-2]) == NEED_DATA
    assert hold(data[:-1]) == Begun(200)
    for pieces in splits(data):
        outcome = drive(pieces, facts())
        assert (outcome.passed, outcome.out, outcome.is_event_stream) == (ANSWER_ENDED, b"\x1f\x8b", False)


@pytest.mark.parametrize("status", [204, 301, 304])
def test_answers_without_content_have_begun_at_their_end(status: int):
    outcome = drive([f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()], facts())
    assert (outcome.held, outcome.passed, outcome.out) == (Begun(status), ANSWER_ENDED, b"")


def test_a_redirection_with_content_passes():
    outcome = drive([response(b"<a>", "text/html", 302)], facts())
    assert (outcome.held, outcome.passed, outcome.out) == (Begun(302), ANSWER_ENDED, b"<a>")


def test_an_answer_to_a_head_request():
    exchange = ClientExchange()
    exchange.request_bytes("HEAD", "upstream", "/x", ())
    answer = UpstreamAnswer(exchange, facts(ApiFormat.OTHER), SentAnswer(facts(ApiFormat.OTHER)))
    answer.receive(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n")
    assert answer.hold() == Begun(200)
    assert answer.ended
    assert answer.content_length == 5
    assert answer.pass_on() == ANSWER_ENDED


def test_the_size_of_a_stream_is_not_known():
    exchange = ClientExchange()
    exchange.request_bytes("POST", "upstream", "/x", (), b"{}")
    answer = UpstreamAnswer(exchange, facts(), SentAnswer(facts()))
    assert answer.content_length is None
    answer.receive(response(HELLO))
    answer.hold()
    assert answer.head is not None
    assert answer.head.content_length == len(HELLO)
    assert answer.content_length is None


# --- further attempts


@pytest.mark.parametrize(
    ("data", "is_answer"),
    [
        (response(b'{"choices":[]}', JSON), False),
        (response(b'{"choices":[]}', None), False),
        (response(b"x", "audio/mpeg"), False),
        (b"HTTP/1.1 204 X\r\n\r\n", False),
        (response(b"{}", JSON, 500), True),
        (response(HELLO), True),
        (response(HELLO, None), True),
    ],
)
def test_the_rest_of_a_stream_is_a_stream(data: bytes, is_answer: bool):
    sent = SentAnswer(facts())
    sent.keep(delta(content="so far "))
    for continuation in (Continuation.LLAMACPP, Continuation.ASSISTANT):
        verdict = drive([data], facts(), sent, continuation).held
        assert isinstance(verdict, Begun) if is_answer else failure(verdict) is CallFailure.MALFORMED


def test_a_stream_that_has_begun_with_comments_takes_nothing_but_events():
    exchange = ClientExchange()
    exchange.request_bytes("POST", "upstream", "/x", (), b"{}")
    answer = UpstreamAnswer(exchange, facts(), SentAnswer(facts()), must_stream=True)
    answer.receive(response(b'{"choices":[]}', JSON))
    assert failure(answer.hold()) is CallFailure.MALFORMED


# --- any mixture

PARTS = st.sampled_from(
    [ROLE, HELLO, STOP, DONE, b": c\n\n", b"data: x\n\n", b"data: \n\n", event({"error": {"message": "m"}}), b"\n", b"\r",
     b"data: {}\n\n", b"data: {},{}\n\n", b'data: {"a":"}\n\n', b'data: {"}\n\n', b"data: {", b"event: e\n", b"x"]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    parts=st.lists(PARTS, max_size=12),
    points=st.lists(st.integers(0, 900), max_size=8),
    content_type=st.sampled_from(["text/event-stream", "application/json", None]),
    framing=st.sampled_from(FRAMINGS),
    api_format=st.sampled_from(list(ApiFormat)),
    choices=st.integers(1, 2),
)
def test_splits_agree_on_anything(
    *,
    parts: list[bytes],
    points: list[int],
    content_type: str | None,
    framing: str,
    api_format: ApiFormat,
    choices: int,
):
    data = response(b"".join(parts), content_type, framing=framing)
    request = facts(api_format, choices)
    whole: Outcome = drive([data], request)
    assert drive(cut(data, points), request) == whole
    assert whole.passed != NEED_DATA
    assert whole.held != NEED_DATA


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5), st.booleans())
def test_nothing_raises_whatever_comes(data: bytes, points: list[int], with_head: bool):
    stream = response(data, framing="close") if with_head else data
    whole = drive([stream], facts())
    assert drive(cut(stream, points), facts()) == whole
