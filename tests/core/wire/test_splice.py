"""A further attempt, as the client sees it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, Continuation, RequestFacts
from gatewright.events import CallFailure
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NEED_DATA
from gatewright.wire.splice import Splice
from gatewright.wire.sse import event_data, split_events
from gatewright.wire.verdicts import ANSWER_ENDED, Begun, CallBroken
from tests.support.upstream_answers import DONE, Outcome, cut, delta, drive, event, facts, response, splits

THINKING, ANSWER = "Let me think.", "It is a long answer"
USAGE = event({"id": "two", "created": 2, "choices": [], "usage": {"prompt_tokens": 3}})


def other(finish_reason: str | None = None, **members: Any) -> bytes:
    """A chunk of the second upstream."""
    choice = {"index": 0, "delta": members, "finish_reason": finish_reason}
    return event({"id": "two", "object": "x", "created": 2, "model": "m", "choices": [choice]})


def sent_of(text: str = "", reasoning: str = "") -> SentAnswer:
    sent = SentAnswer(facts())
    sent.keep(delta(role="assistant", content=""))
    if reasoning:
        sent.keep(delta(reasoning_content=reasoning))
    if text:
        sent.keep(delta(content=text))
    return sent


def deltas(stream: bytes) -> list[dict[str, Any]]:
    found = []
    for each in split_events(stream):
        data = event_data(each)
        if data is not None and data != b"[DONE]":
            chunk = msgspec.json.decode(data)
            assert (chunk["id"], chunk["created"]) == ("one", 1)
            found += [choice["delta"] for choice in chunk["choices"]]
    return found


def joined(stream: bytes, name: str = "content") -> str:
    return "".join(each.get(name) or "" for each in deltas(stream))


def attempt(
    stream: bytes, continuation: Continuation, text: str = ANSWER, reasoning: str = "", *, step: int = 5
) -> Outcome:
    """The outcome, the same for all splits."""
    data = response(stream, framing="chunked")
    outcomes = [
        drive(pieces, facts(), sent_of(text, reasoning), continuation) for pieces in splits(data, step)
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


# --- an upstream that goes on


@pytest.mark.parametrize("continuation", [each for each in Continuation if each is not Continuation.REPEAT])
def test_the_rest_follows_under_the_first_id(continuation: Continuation):
    stream = (
        other(role="assistant", content="") + other(content=" and") + other(role="assistant", content=" more")
    )
    outcome = attempt(stream + other("stop") + USAGE + DONE, continuation)
    assert (outcome.held, outcome.passed) == (Begun(200), ANSWER_ENDED)
    assert outcome.out.endswith(DONE)
    assert deltas(outcome.out) == [{"content": " and"}, {"content": " more"}, {}]
    first = msgspec.json.decode(event_data(split_events(outcome.out)[0]) or b"")
    assert (first["object"], first["model"]) == ("chat.completion.chunk", "m")
    assert outcome.usage is not None
    assert b'"usage"' in outcome.out


def test_the_attempt_has_begun_with_its_first_token():
    before = other(role="assistant") + other(content="")
    outcome = drive(
        [response(before, framing="close")], facts(), sent_of(ANSWER), Continuation.PREFIX, eof=False
    )
    assert outcome.held == NEED_DATA
    outcome = drive(
        [response(before + other(content="x"), framing="close")],
        facts(),
        sent_of(ANSWER),
        Continuation.PREFIX,
    )
    assert outcome.held == Begun(200)


def test_an_upstream_that_has_nothing_to_add_finishes():
    outcome = attempt(other(role="assistant") + other("stop"), Continuation.LLAMACPP)
    assert (outcome.held, outcome.passed, outcome.finish_reason) == (Begun(200), ANSWER_ENDED, "stop")
    assert deltas(outcome.out) == [{}]


def test_calls_of_tools_pass():
    outcome = attempt(other(tool_calls=[{"index": 0}]) + other("tool_calls"), Continuation.LLAMACPP)
    assert deltas(outcome.out)[0] == {"tool_calls": [{"index": 0}]}


def test_a_text_completion_goes_on():
    request = facts(ApiFormat.COMPLETION)
    sent = SentAnswer(request)
    sent.keep(
        event(
            {"id": "one", "created": 1, "object": "text_completion", "choices": [{"index": 0, "text": "a"}]}
        )
    )
    chunks = [event({"id": "two", "choices": [{"index": 0, "text": text}]}) for text in ("", " b", "")]
    end = event({"id": "two", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    outcome = drive([response(b"".join(chunks) + end)], request, sent, Continuation.PROMPT)
    assert outcome.passed == ANSWER_ENDED
    assert sent.text == "a b"
    assert outcome.out.count(b'"id":"one"') == outcome.out.count(b"data: {") == 2


def test_comments_and_odd_events_pass():
    splice = Splice(sent_of(ANSWER), Continuation.PREFIX, ApiFormat.CHAT)
    for block in (
        b": ping\n\n",
        b"event: x\n\n",
        b"data: {half of an event that is too large",
        b'data: {"odd":1}\n\n',
    ):
        assert splice.feed(block).startswith(block[:8])
    assert splice.feed(event({"choices": ["odd", {"delta": "odd"}]})) == b""
    assert splice.difference == ""


def test_without_an_id_the_second_one_stays():
    sent = SentAnswer(facts())
    sent.keep(event({"choices": [{"delta": {"content": "a"}}]}))
    splice = Splice(sent, Continuation.PREFIX, ApiFormat.CHAT)
    assert b'"id":"two"' in splice.feed(other(content="b"))


# --- an upstream that answers anew


def pieces_of(text: str, name: str, size: int) -> bytes:
    return b"".join(other(**{name: text[at : at + size]}) for at in range(0, len(text), size))


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_the_client_has_is_cut_off(size: int, name: str):
    stream = other(role="assistant") + pieces_of(THINKING, name, size)
    stream += pieces_of(ANSWER + ", ½ of it.", "content", size) + other("stop")
    outcome = attempt(stream, Continuation.REPEAT, ANSWER, THINKING, step=29)
    assert (outcome.held, outcome.passed) == (Begun(200), ANSWER_ENDED)
    assert (joined(outcome.out), joined(outcome.out, name)) == (", ½ of it.", "")
    outcome = attempt(stream, Continuation.REPEAT, "", THINKING[:5], step=29)
    assert (joined(outcome.out), joined(outcome.out, name)) == (ANSWER + ", ½ of it.", THINKING[5:])
    outcome = attempt(stream, Continuation.REPEAT, "", THINKING, step=29)
    assert (joined(outcome.out), joined(outcome.out, name)) == (ANSWER + ", ½ of it.", "")


def test_reasoning_and_text_in_one_chunk():
    stream = other(reasoning=THINKING, reasoning_content=THINKING, content=ANSWER + "!") + other("stop")
    outcome = attempt(stream, Continuation.REPEAT, ANSWER, THINKING)
    assert (
        joined(outcome.out),
        joined(outcome.out, "reasoning"),
        joined(outcome.out, "reasoning_content"),
    ) == ("!", "", "")


def test_the_attempt_has_begun_only_beyond_what_was_sent():
    same = other(role="assistant") + other(content=ANSWER)
    usage = event({"id": "two", "choices": [{"delta": {"content": "It"}}], "usage": {"prompt_tokens": 1}})
    head = response(b"", framing="close")
    for before in (same, b": ping\n\n" * 10_000 + same, usage + other(content=ANSWER[2:])):
        assert (
            drive([head + before], facts(), sent_of(ANSWER), Continuation.REPEAT, eof=False).held == NEED_DATA
        )
        beyond = drive(
            [head + before + other(content="!")], facts(), sent_of(ANSWER), Continuation.REPEAT, eof=False
        )
        assert (beyond.held, deltas(beyond.out)) == (Begun(200), [{"content": "!"}])
        end = drive([head + before + other("stop")], facts(), sent_of(ANSWER), Continuation.REPEAT)
        assert (end.held, end.passed, deltas(end.out)) == (Begun(200), ANSWER_ENDED, [{}])


@pytest.mark.parametrize(
    ("stream", "text", "reasoning"),
    [
        (other(content="It was"), ANSWER, ""),
        (other(content="It is") + other(content=" a short answer"), ANSWER, ""),
        (other(content="It") + other("stop"), ANSWER, ""),
        (other("stop", content="It"), ANSWER, ""),
        (other(content="It") + DONE, ANSWER, ""),
        (other(content="It") + other(tool_calls=[{"index": 0}]), ANSWER, ""),
        (other(content="It", refusal="no"), ANSWER, ""),
        (other(content=[{"type": "text"}]), ANSWER, ""),
        (other(reasoning_content="Let me see."), "", THINKING),
        (other(reasoning_content="Let") + other(content="It"), "", THINKING),
        (other(reasoning_content=THINKING + " More.") + other(content=ANSWER), ANSWER, THINKING),
        (other(reasoning_content=THINKING) + other(reasoning_content=" More."), ANSWER, THINKING),
        (other(content=ANSWER), ANSWER, THINKING),
        (other(reasoning_content="Hm."), ANSWER, ""),
    ],
)
def test_another_answer_is_no_continuation(stream: bytes, text: str, reasoning: str):
    outcome = attempt(
        stream + other(content="x") + other("stop"), Continuation.REPEAT, text, reasoning, step=3
    )
    assert isinstance(outcome.held, CallBroken)
    assert outcome.held.failure is CallFailure.DIFFERENT
    assert outcome.out == b""


def test_an_error_before_the_end_of_the_comparison_is_an_error():
    stream = other(content="It is") + event({"error": {"message": "m"}})
    outcome = attempt(stream, Continuation.REPEAT)
    assert isinstance(outcome.held, Begun)
    assert outcome.held.error is not None


def test_an_event_that_is_too_large_to_be_compared_differs():
    splice = Splice(sent_of(ANSWER), Continuation.REPEAT, ApiFormat.CHAT)
    assert splice.feed(b'data: {"choices":[{"delta":{"content":"It') == b""
    assert splice.difference


@settings(deadline=None)
@given(
    thinking=st.text(max_size=20),
    text=st.text(max_size=20),
    cuts=st.lists(st.integers(1, 40), max_size=6),
    other_cuts=st.lists(st.integers(1, 40), max_size=6),
    break_at=st.integers(0, 40),
    points=st.lists(st.integers(0, 4000), max_size=6),
)
def test_any_answer_that_repeats_itself_reaches_the_client_once(
    *, thinking: str, text: str, cuts: list[int], other_cuts: list[int], break_at: int, points: list[int]
):
    def chunks(of_text: list[int], make: Any) -> list[bytes]:
        whole = [("reasoning_content", thinking), ("content", text)]
        return [make(**{name: bytes(part).decode("utf-32-le")}) for name, value in whole
                for part in cut(value.encode("utf-32-le"), [4 * at for at in of_text]) if part]  # fmt: skip

    first, second = chunks(cuts, delta), chunks(other_cuts, other)
    sent = SentAnswer(facts())
    sent.keep(delta(role="assistant") + b"".join(first[:break_at]))
    had = (sent.reasoning, sent.text)
    data = response(b"".join(second) + other("stop"), framing="chunked")
    outcome = drive(cut(data, points), facts(), sent, Continuation.REPEAT)
    assert outcome.passed == ANSWER_ENDED
    assert had[0] + joined(outcome.out, "reasoning_content") == thinking
    assert had[1] + joined(outcome.out) == text


# --- an upstream that was to go on and begins anew


def asked(stream: bytes, text: str = ANSWER) -> Outcome:
    return attempt(stream + other("stop"), Continuation.ASSISTANT, text, step=17)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_beginning_that_comes_again_as_a_whole_is_dropped(size: int):
    outcome = asked(other(role="assistant") + pieces_of(ANSWER + " indeed", "content", size))
    assert (joined(outcome.out), outcome.passed) == (" indeed", ANSWER_ENDED)
    assert joined(asked(pieces_of(ANSWER, "content", size)).out) == ""
    assert joined(attempt(other("stop", content=ANSWER), Continuation.ASSISTANT).out) == ""


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize(
    "rest", ["It is what it is", "It", "It is", ANSWER[:-1], ANSWER[:-1] + "!", " and more"]
)
def test_a_text_that_only_begins_like_the_answer_passes(size: int, rest: str):
    outcome = asked(pieces_of(rest, "content", size))
    assert (joined(outcome.out), outcome.passed) == (rest, ANSWER_ENDED)


def test_text_in_other_words_is_not_held_back():
    splice = Splice(sent_of(ANSWER), Continuation.ASSISTANT, ApiFormat.CHAT)
    assert joined(splice.feed(other(content=" and"))) == " and"
    assert joined(splice.feed(other(content=ANSWER))) == ANSWER


def test_what_is_held_back_is_not_overtaken():
    splice = Splice(sent_of(ANSWER), Continuation.ASSISTANT, ApiFormat.CHAT)
    assert joined(splice.feed(other(reasoning_content="Hm")), "reasoning_content") == "Hm"
    assert splice.feed(other(content="It is")) == b""
    assert deltas(splice.feed(other(tool_calls=[{}]))) == [{"content": "It is"}, {"tool_calls": [{}]}]


def test_done_releases_what_is_held_back():
    splice = Splice(sent_of(ANSWER), Continuation.ASSISTANT, ApiFormat.CHAT)
    assert splice.feed(other(content="It is")) == b""
    assert joined(splice.feed(DONE)) == "It is"


@pytest.mark.parametrize(
    ("continuation", "text"),
    [(Continuation.ASSISTANT, "too short"), (Continuation.LLAMACPP, ANSWER), (Continuation.PREFIX, ANSWER)],
)
def test_others_may_repeat_themselves(continuation: Continuation, text: str):
    outcome = attempt(other(content=text) + other("stop"), continuation, text)
    assert joined(outcome.out) == text


def test_a_third_attempt_follows_the_second():
    sent = sent_of("one ")
    request: RequestFacts = facts()
    drive([response(other(content="two "), framing="close")], request, sent, Continuation.LLAMACPP)
    drive([response(other(content="three") + other("stop"))], request, sent, Continuation.LLAMACPP)
    assert (sent.text, sent.id, sent.tokens) == ("one two three", "one", 3)
