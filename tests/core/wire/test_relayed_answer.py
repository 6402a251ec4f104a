"""How an answer that has begun goes on and ends."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, RequestFacts, Resumable, UpstreamError, Usage
from gatewright.events import RelayFailure
from gatewright.wire.client import ClientExchange
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import NEED_DATA
from gatewright.wire.upstream_answer import UpstreamAnswer
from gatewright.wire.verdicts import ANSWER_ENDED, Begun, RelayBroken
from tests.support.upstream_answers import DONE, JSON, cut, delta, drive, event, facts, response, splits

HELLO = delta(content="hello")
STOP = delta("stop")
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
ERROR = event({"error": {"message": "no memory", "code": 500}})
FRAMINGS = ["length", "chunked", "close"]


def broken(
    data: bytes, passed: bytes, failure: RelayFailure, api_format: ApiFormat = ApiFormat.CHAT
) -> RelayBroken:
    """The answer begins, lets this through and breaks in this way, however it is split."""
    outcomes = [drive(pieces, facts(api_format)) for pieces in splits(data, step=3)]
    whole = outcomes[0]
    assert all(outcome == whole for outcome in outcomes)
    assert whole.held == Begun(200)
    assert whole.out == passed
    assert isinstance(whole.passed, RelayBroken)
    assert whole.passed.failure is failure
    assert whole.passed.reason
    assert not whole.is_finished
    return whole.passed


def ended(data: bytes, passed: bytes, choices: int = 1, api_format: ApiFormat = ApiFormat.CHAT) -> None:
    for pieces in splits(data, step=3):
        outcome = drive(pieces, facts(api_format, choices))
        assert (outcome.held, outcome.passed, outcome.out) == (Begun(200), ANSWER_ENDED, passed)


def begun(data: bytes) -> tuple[UpstreamAnswer, SentAnswer]:
    exchange = ClientExchange()
    exchange.request_bytes("POST", "upstream", "/x", (), b"{}")
    sent = SentAnswer(facts())
    answer = UpstreamAnswer(exchange, facts(), sent)
    answer.receive(data)
    assert isinstance(answer.hold(), Begun)
    return answer, sent


# --- answers that break


def test_a_connection_that_breaks():
    data = response(HELLO * 2)[:-10]
    assert "of" in broken(data, HELLO, RelayFailure.BROKEN).reason
    document = response(b'{"x":"' + b"x" * 1_100_000, JSON)
    outcome = drive([document[:-9]], facts())
    assert isinstance(outcome.passed, RelayBroken)
    assert outcome.passed.failure is RelayFailure.BROKEN


def test_a_framing_that_breaks():
    data = response(HELLO, framing="chunked")[: -len(b"0\r\n\r\n")] + b"zz\r\n"
    broken(data, HELLO, RelayFailure.BROKEN)


@pytest.mark.parametrize("rest", [b"", b"data: {", b"data: [DON", b": ping"])
def test_a_good_form_without_its_mark_is_incomplete(rest: bytes):
    for framing in FRAMINGS:
        broken(response(HELLO + rest, framing=framing), HELLO, RelayFailure.INCOMPLETE)


def test_a_document_that_ends_with_its_connection_may_be_incomplete():
    body = b'{"x":"' + b"x" * 1_100_000
    outcome = drive([response(body, JSON, framing="close")], facts())
    assert isinstance(outcome.passed, RelayBroken)
    assert outcome.passed.failure is RelayFailure.INCOMPLETE


def test_the_second_malformed_event_ends_the_stream():
    broken(
        response(HELLO + b"data: x\n\n" + HELLO + b"data: {\n\n" + STOP), HELLO * 2, RelayFailure.MALFORMED
    )


@pytest.mark.parametrize("rest", [b"", HELLO + STOP + DONE])
def test_an_error_does_not_pass(rest: bytes):
    verdict = broken(response(HELLO + ERROR + rest), HELLO, RelayFailure.REFUSED)
    assert verdict.error == UpstreamError(message="no memory", code="500", status=500)
    assert "no memory" in verdict.reason


def test_an_error_without_its_blank_line_does_not_pass():
    broken(response(HELLO + ERROR[:-2]), HELLO, RelayFailure.REFUSED)


def test_an_error_with_a_reason_to_finish_is_an_error():
    chunk = event({"error": {"message": "m"}, "choices": [{"delta": {}, "finish_reason": "error"}]})
    broken(response(HELLO + chunk + DONE), HELLO, RelayFailure.REFUSED)


def test_a_failed_response_is_not_complete():
    first = event({"type": "response.output_text.delta", "delta": "x"})
    last = event({"type": "response.failed", "response": {"status": "failed", "error": {"message": "m"}}})
    verdict = broken(response(first + last), first, RelayFailure.REFUSED, ApiFormat.RESPONSES)
    assert verdict.error == UpstreamError(message="m")


# --- good ends


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_missing_done_is_added(framing: str):
    ended(response(HELLO + STOP, framing=framing), HELLO + STOP + DONE)
    ended(response(HELLO + STOP + USAGE, framing=framing), HELLO + STOP + USAGE + DONE)
    ended(response(HELLO + STOP + DONE, framing=framing), HELLO + STOP + DONE)


def test_of_two_ends_one_passes():
    ended(response(HELLO + STOP + DONE + DONE + HELLO), HELLO + STOP + DONE)


@pytest.mark.parametrize("rest", [b"data: {", ERROR, b"data: x\n\ndata: x\n\n", b"data: x\n\n", b""])
def test_when_the_model_is_finished_every_end_is_a_good_one(rest: bytes):
    for framing in FRAMINGS:
        ended(response(HELLO + STOP + rest, framing=framing), HELLO + STOP + DONE)
    ended(response(HELLO + STOP + rest + b"x" * 9)[:-9], HELLO + STOP + DONE)


def test_other_formats_get_no_done():
    native = event({"content": "a", "stop": False}) + event({"content": "", "stop": True})
    ended(response(native), native, api_format=ApiFormat.NATIVE)
    ended(response(native + b"x")[:-1], native, api_format=ApiFormat.NATIVE)


def test_all_choices_must_be_finished():
    both = delta(content="a") + delta(content="b", index=1)
    one = both + delta("stop")
    outcome = drive([response(one)], facts(choices=2))
    assert isinstance(outcome.passed, RelayBroken)
    assert outcome.out == one
    ended(response(one + DONE), one + DONE, choices=2)
    ended(response(one + delta("length", 1)), one + delta("length", 1) + DONE, choices=2)


def test_an_unknown_stream_ends_well_but_does_not_break_well():
    outcome = drive([response(b"data: x\n\n")], facts(ApiFormat.OTHER))
    assert (outcome.passed, outcome.out, outcome.is_finished) == (ANSWER_ENDED, b"data: x\n\n", False)
    broken(response(b"data: x\n\ndata")[:-1], b"data: x\n\n", RelayFailure.BROKEN, ApiFormat.OTHER)


# --- as a driver sees it


def test_what_is_taken_counts_as_sent():
    answer, sent = begun(response(HELLO + HELLO, framing="close"))
    assert answer.pass_on() == NEED_DATA
    assert (answer.relayed_bytes, sent.text) == (0, "")
    assert answer.take() == HELLO + HELLO
    assert (answer.relayed_bytes, sent.text) == (2 * len(HELLO), "hellohello")
    assert answer.take() == b""
    answer.receive(STOP + USAGE)
    assert answer.pass_on() == NEED_DATA
    assert answer.is_finished
    assert (answer.usage, answer.finish_reason) == (Usage(prompt_tokens=3, completion_tokens=1), "stop")
    assert answer.take() == STOP + USAGE


@pytest.mark.parametrize(
    ("body", "asked", "tokens"),
    [
        (delta(role="assistant", content="") + HELLO * 3 + STOP + DONE, facts(), 3),
        (delta(content="x" * 400) + STOP + DONE, facts(), 100),  # many tokens in an event
        (delta(reasoning_content="hm") + HELLO + STOP + DONE, facts(), 2),
        (HELLO * 3 + STOP + USAGE + DONE, facts(), 0),  # the upstream has counted
        (delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]) + STOP + DONE, facts(), 3),
        (HELLO + delta(content="b", index=1) + STOP + delta("stop", 1) + DONE, facts(choices=2), 5),
        (event({"type": "response.output_text.delta", "delta": "a"}), facts(ApiFormat.RESPONSES), 1),
    ],
)
def test_tokens_that_nobody_counts_are_estimated_by_text_and_events(
    body: bytes, asked: RequestFacts, tokens: int
):
    assert drive([response(body)], asked).relayed_tokens == tokens


def test_tokens_of_a_document_are_estimated_by_its_size():
    body = msgspec.json.encode({"choices": [{"message": {"content": "x" * 400}, "finish_reason": "stop"}]})
    assert drive([response(body, JSON)], facts()).relayed_tokens == len(body) // 4
    error = msgspec.json.encode({"error": {"message": "x" * 400}})
    assert drive([response(error, JSON, 400)], facts()).relayed_tokens == 0


def test_nothing_can_be_taken_before_the_answer_has_begun():
    exchange = ClientExchange()
    exchange.request_bytes("POST", "upstream", "/x", (), b"{}")
    answer = UpstreamAnswer(exchange, facts(), SentAnswer(facts()))
    answer.receive(response(b": ping\n\n", framing="close"))
    assert answer.hold() == NEED_DATA
    assert answer.take() == b""
    answer.receive(HELLO)
    assert answer.hold() == answer.hold() == Begun(200)
    assert answer.take() == b": ping\n\n" + HELLO


def test_a_document_is_not_remembered():
    answer, sent = begun(response(b'{"choices":[{"message":{"content":"x"}}]}', JSON))
    assert answer.take()
    assert sent.resumable is Resumable.NO


def test_a_driver_may_give_up():
    answer, _ = begun(response(HELLO, framing="close"))
    verdict = RelayBroken(RelayFailure.STALLED, "silence")
    assert answer.give_up(RelayFailure.STALLED, "silence") == verdict
    assert answer.take() == HELLO
    answer.receive(STOP)
    assert answer.pass_on() == answer.give_up(RelayFailure.BROKEN, "late") == verdict
    assert answer.take() == b""


def test_giving_up_a_finished_answer_ends_it_well():
    answer, _ = begun(response(HELLO + STOP, framing="close"))
    assert answer.pass_on() == NEED_DATA
    assert answer.give_up(RelayFailure.STALLED, "silence") == ANSWER_ENDED
    assert answer.take() == HELLO + STOP + DONE
    assert answer.pass_on() == ANSWER_ENDED


def test_a_break_in_an_event_that_is_too_large_to_be_held():
    answer, sent = begun(response(HELLO + STOP, framing="close"))
    answer.receive(b"data: " + b"x" * 1_100_000)
    assert answer.pass_on() == NEED_DATA
    assert answer.in_event
    assert answer.take().startswith(HELLO + STOP + b"data: xxx")
    verdict = answer.give_up(RelayFailure.BROKEN, "gone")
    assert verdict == RelayBroken(RelayFailure.BROKEN, "gone")
    assert answer.take() == b""
    assert sent.resumable is Resumable.NO


def test_a_connection_can_be_used_again_after_a_good_end():
    answer, _ = begun(response(HELLO + STOP + DONE, framing="chunked"))
    assert answer.pass_on() == ANSWER_ENDED
    assert answer.ended
    assert answer._exchange.reusable


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([HELLO, STOP, DONE, USAGE, ERROR, b"data: x\n\n", b": c\n\n", b"data: {"]),
        max_size=10,
    ),
    st.lists(st.integers(0, 2000), max_size=8),
    st.integers(0, 300),
)
def test_a_done_is_the_last_event_and_the_mark_of_a_good_end(
    parts: list[bytes], points: list[int], missing: int
):
    data = response(HELLO + b"".join(parts), framing="chunked")
    data = data[: max(len(response(HELLO)), len(data) - missing)]
    outcome = drive(cut(data, points), facts())
    assert outcome == drive([data], facts())
    assert outcome.out.count(DONE) == (outcome.passed == ANSWER_ENDED)
    assert outcome.out.endswith(DONE) is (outcome.passed == ANSWER_ENDED)
    assert b"error" not in outcome.out
    assert b"data: x" not in outcome.out
