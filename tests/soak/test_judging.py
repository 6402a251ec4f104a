"""Which answers nobody may get."""

import json

import pytest
from attrs import evolve

from tests.soak.http import Outcome
from tests.soak.judging import Expected, Violation, judge

HEADERS = {"content-type": "application/json", "x-request-id": "req_1"}
ANSWER = Outcome(200, HEADERS, b'{"choices": [{"message": {"content": "w0 w1"}}]}', is_whole=True)
ERROR = Outcome(502, HEADERS, b'{"error": {"message": "no"}}', is_whole=True)
GOOD = Expected(text="w0 w1")
FAILS = evolve(GOOD, may_fail=True)
ODD = evolve(FAILS, is_odd=True)


def stream(*events: object, is_whole: bool = True, end: bytes = b"\n\n") -> Outcome:
    lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    body = b"\n\n".join(b"data: " + line for line in lines) + end
    return Outcome(200, {"content-type": "text/event-stream"}, body, is_whole=is_whole)


def word(text: str) -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}}]}


WORDS = (word("w0"), word(" w1"))
DONE = b"[DONE]"
BROKE = {"error": {"message": "broke"}}


@pytest.mark.parametrize(
    ("outcome", "expected", "kind"),
    [
        (ANSWER, GOOD, "answered"),
        (ANSWER, Expected(), "answered"),
        (evolve(ANSWER, body=b'{"choices": [{"text": "w0 w1"}]}'), GOOD, "answered"),
        (ERROR, FAILS, "error 502"),
        (ERROR, Expected(statuses=(502,)), "error 502"),
        (evolve(ANSWER, is_whole=False), FAILS, "cut"),
        (evolve(ANSWER, body=b"<html>"), ODD, "odd"),
        (stream(*WORDS, DONE), GOOD, "streamed"),
        (stream(*WORDS, {"choices": []}, DONE), GOOD, "streamed"),
        (stream(WORDS[0], BROKE), FAILS, "error event"),
        (stream(WORDS[0], b"{broken", DONE), ODD, "streamed"),
    ],
)
def test_answers_that_are_allowed(outcome: Outcome, expected: Expected, kind: str) -> None:
    assert judge(outcome, expected, streamed=outcome.is_stream) == kind


@pytest.mark.parametrize(
    ("outcome", "expected", "why"),
    [
        (Outcome(None, {}, b"", is_whole=False), FAILS, "no answer"),
        (ERROR, GOOD, "502 no"),
        (ERROR, evolve(FAILS, statuses=(400,)), "expected"),
        (ANSWER, Expected(statuses=(400,)), "answered, expected"),
        (evolve(ERROR, is_whole=False), FAILS, "breaks off"),
        (evolve(ERROR, body=b"Bad Gateway"), FAILS, "502 with"),
        (evolve(ERROR, body=b'{"error": {"message": ""}}'), FAILS, "without a message"),
        (evolve(ERROR, headers={}), FAILS, "or an id"),
        (evolve(ANSWER, status=302), FAILS, "status 302"),
        (evolve(ANSWER, is_whole=False), GOOD, "breaks off"),
        (evolve(ANSWER, body=b"<html>"), FAILS, "200 with"),
        (evolve(ANSWER, body=b'{"choices": [{"message": {"content": "w0"}}]}'), FAILS, "wrong text"),
        (evolve(ANSWER, body=b'{"choices": [{"message": {"content": ""}}]}'), Expected(), "without text"),
        (stream(WORDS[0], DONE), FAILS, "wrong text"),
        (stream(*WORDS), FAILS, "neither"),
        (stream(*WORDS, DONE, is_whole=False), FAILS, "last chunk"),
        (stream(*WORDS, DONE, end=b"\n"), FAILS, "middle"),
        (stream(WORDS[0], BROKE, DONE), FAILS, "follows an error"),
        (stream(WORDS[0], BROKE), GOOD, "error in the stream"),
        (stream(WORDS[0], b"{broken", DONE), FAILS, "no JSON"),
        (stream(), FAILS, "no JSON|has none|neither"),
    ],
)
def test_answers_that_nobody_may_get(outcome: Outcome, expected: Expected, why: str) -> None:
    with pytest.raises(Violation, match=why):
        judge(outcome, expected, streamed=outcome.is_stream)


def test_a_stream_that_was_asked_for_is_not_cut() -> None:
    with pytest.raises(Violation, match="breaks off"):
        judge(evolve(ANSWER, is_whole=False), FAILS, streamed=True)
