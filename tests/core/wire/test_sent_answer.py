import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, RequestFacts, Resumable
from gatewright.wire.sent_answer import MAX_RAW_BYTES, MAX_TEXT_CHARACTERS, SentAnswer
from tests.support.upstream_answers import DONE, cut, delta, event, facts

ROLE = delta(role="assistant", content="")


def sent(*blocks: bytes, request: RequestFacts | None = None) -> SentAnswer:
    answer = SentAnswer(request or facts())
    for block in blocks:
        answer.keep(block)
    return answer


def test_the_text_of_a_chat():
    answer = sent(ROLE + delta(content="Hel"), delta(content="lo ½"), b": ping\n\n", delta("stop"), DONE)
    assert (answer.text, answer.reasoning, answer.tokens) == ("Hello ½", "", 2)
    assert (answer.id, answer.created, answer.object, answer.model) == (
        "one",
        1,
        "chat.completion.chunk",
        None,
    )
    assert answer.is_readable
    assert not answer.has_tool_calls
    assert answer.resumable is Resumable.CONTINUE


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning(name: str):
    answer = sent(ROLE, delta(**{name: "Hm. "}), delta(**{name: "Well."}))
    assert (answer.text, answer.reasoning, answer.tokens) == ("", "Hm. Well.", 2)
    assert answer.resumable is Resumable.REPEAT
    answer.keep(delta(content="Yes"))
    assert (answer.text, answer.tokens, answer.resumable) == ("Yes", 3, Resumable.CONTINUE)


def test_reasoning_under_both_names_counts_once():
    assert sent(delta(reasoning="a", reasoning_content="a", reasoning_details=[{}])).reasoning == "a"


def test_a_text_completion():
    chunks = [
        event({"id": "c", "model": "m", "choices": [{"index": 0, "text": text}]}) for text in ("a", "b", "")
    ]
    answer = sent(*chunks, request=facts(ApiFormat.COMPLETION))
    assert (answer.text, answer.tokens, answer.id, answer.model) == ("ab", 2, "c", "m")
    assert answer.resumable is Resumable.CONTINUE


def test_nothing_sent_is_nothing_to_resume():
    answer = sent()
    assert (answer.resumable, answer.text, answer.id, answer.created, answer.tokens) == (
        Resumable.NO,
        "",
        None,
        None,
        0,
    )


def test_a_role_alone_can_be_replaced():
    assert sent(ROLE).resumable is Resumable.REPEAT


@pytest.mark.parametrize(
    "chunk",
    [
        delta(tool_calls=[{"index": 0}]),
        delta(function_call={"name": "f"}),
        delta(refusal="I must not"),
        delta(audio={"data": "x"}),
        delta(content=[{"type": "text", "text": "a"}]),
        delta(content="second", index=1),
        b"data: no JSON\n\n",
        b"data: []\n\n",
        b'data: {"choices":[{"delta":{"content":"half of an event',
    ],
)
def test_what_is_more_than_text_is_not_resumable(chunk: bytes):
    answer = sent(delta(content="a"), chunk)
    assert answer.resumable is Resumable.NO
    answer.keep(delta(content="b"))
    assert answer.resumable is Resumable.NO


def test_calls_of_tools_are_told():
    assert sent(delta(tool_calls=[{"index": 0}])).has_tool_calls
    assert not sent(delta(tool_calls=[], refusal=None, content="a")).has_tool_calls


@pytest.mark.parametrize(
    "request_facts",
    [facts(choices=2), facts(ApiFormat.MESSAGES), facts(ApiFormat.NATIVE), facts(ApiFormat.OTHER)],
)
def test_other_answers_are_not_kept(request_facts: RequestFacts):
    answer = sent(delta(content="a"), request=request_facts)
    assert (answer.resumable, answer.text, answer.is_readable) == (Resumable.NO, "", False)


def test_ids_of_odd_types_are_none():
    answer = sent(event({"id": 1, "created": "x", "model": [], "object": {}, "choices": []}))
    assert (answer.id, answer.created, answer.model, answer.object) == (None, None, None, None)


def test_much_is_kept_as_text():
    answer = sent(*[delta(content="word ")] * 5000)
    assert sum(map(len, answer._raw)) <= MAX_RAW_BYTES
    assert answer.text == "word " * 5000
    assert answer.tokens == 5000


def test_too_much_is_not_kept():
    piece = delta(content="x" * 60_000)
    answer = sent(*[piece] * (MAX_TEXT_CHARACTERS // 60_000 + 2))
    assert (answer.is_readable, answer.resumable, answer.text) == (False, Resumable.NO, "")


PIECES = st.lists(
    st.tuples(st.sampled_from(["content", "reasoning_content"]), st.text(max_size=5)), max_size=30
)


@given(PIECES, st.lists(st.integers(0, 3000)), st.sampled_from([b"\n", b"\r\n"]))
def test_all_text_is_found_however_it_was_sent(
    pieces: list[tuple[str, str]], points: list[int], line_end: bytes
):
    chunks = [delta(**{name: text}).replace(b"\n", line_end) for name, text in pieces]
    answer = sent(*chunks)
    assert answer.text == "".join(text for name, text in pieces if name == "content")
    assert answer.reasoning == "".join(text for name, text in pieces if name != "content")
    assert answer.tokens == sum(bool(text) for _, text in pieces)
    joined = sent(*cut(b"".join(chunks), points))
    assert (joined.text, joined.reasoning, joined.tokens) == (answer.text, answer.reasoning, answer.tokens)
