import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat, Usage
from gatewright.wire.answers import AnswerReader

OPENAI_FORMATS = (ApiFormat.CHAT, ApiFormat.COMPLETION, ApiFormat.NATIVE, ApiFormat.OTHER)


def learnt(api_format: ApiFormat, *documents: bytes) -> AnswerReader:
    reader = AnswerReader(api_format)
    for document in documents:
        assert reader.learn(document)
    return reader


def test_usage_on_the_last_chunk_with_choices():
    reader = learnt(
        ApiFormat.CHAT,
        b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}',
    )
    assert reader.usage == Usage(prompt_tokens=5, completion_tokens=2)
    assert reader.finish_reason == "stop"
    assert reader.complete


def test_the_latest_usage_counts():
    documents = [b'{"usage":{"prompt_tokens":5,"completion_tokens":%d}}' % n for n in range(3)]
    assert learnt(ApiFormat.CHAT, *documents, b'{"usage":null}').usage == Usage(
        prompt_tokens=5, completion_tokens=2
    )


def test_cached_tokens():
    reader = learnt(
        ApiFormat.CHAT,
        b'{"usage":{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":8}}}',
    )
    assert reader.usage == Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=8)


def test_timings_stand_in_where_there_is_no_usage():
    timings = b'"timings":{"cache_n":4,"prompt_n":1,"predicted_n":2}'
    assert learnt(ApiFormat.CHAT, b"{%b}" % timings).usage == Usage(
        prompt_tokens=5, completion_tokens=2, cached_tokens=4
    )
    both = b'{"usage":{"prompt_tokens":7},%b}' % timings
    assert learnt(ApiFormat.CHAT, both, b"{%b}" % timings).usage == Usage(prompt_tokens=7)


def test_the_native_format():
    assert not learnt(ApiFormat.NATIVE, b'{"stop":false,"tokens_evaluated":5,"tokens_predicted":1}').complete
    for stop_type, reason in ((b"eos", "stop"), (b"word", "stop"), (b"limit", "length"), (b"other", "stop")):
        reader = learnt(
            ApiFormat.NATIVE,
            b'{"stop":true,"stop_type":"%b","tokens_evaluated":5,"tokens_predicted":2}' % stop_type,
        )
        assert reader.usage == Usage(prompt_tokens=5, completion_tokens=2)
        assert reader.finish_reason == reason
        assert reader.complete


def test_a_list_of_answers():
    reader = learnt(ApiFormat.NATIVE, b'[{"stop":true,"stop_type":"eos"},{"stop":true,"stop_type":"limit"}]')
    assert reader.complete
    assert reader.finish_reason == "length"


def test_anthropic_counts_the_cache_apart():
    start = b'{"type":"message_start","message":{"usage":{"input_tokens":1,"cache_read_input_tokens":25,"output_tokens":1}}}'
    delta = b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}'
    reader = learnt(ApiFormat.MESSAGES, start, delta)
    assert reader.usage == Usage(prompt_tokens=26, completion_tokens=7, cached_tokens=25)
    assert reader.finish_reason == "end_turn"
    assert not reader.complete
    assert reader.learn(b'{"type":"message_stop"}')
    assert reader.complete
    created = b'{"usage":{"input_tokens":1,"cache_creation_input_tokens":10,"cache_read_input_tokens":null}}'
    assert learnt(ApiFormat.MESSAGES, created).usage == Usage(prompt_tokens=11)


@pytest.mark.parametrize(
    ("kind", "status", "reason", "is_error"),
    [
        ("completed", '"status":"completed"', "completed", False),
        ("incomplete", '"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}', "max_output_tokens", False),
        ("failed", '"status":"failed","error":{"code":"x"}', "failed", True),
    ],
)  # fmt: skip
def test_ends_of_responses(kind: str, status: str, reason: str, is_error: bool):
    usage = '"usage":{"input_tokens":24,"output_tokens":2,"input_tokens_details":{"cached_tokens":6}}'
    reader = learnt(
        ApiFormat.RESPONSES,
        b'{"type":"response.created","response":{"status":"in_progress"}}',
        f'{{"type":"response.{kind}","response":{{{status},{usage}}}}}'.encode(),
    )
    assert reader.usage == Usage(prompt_tokens=24, completion_tokens=2, cached_tokens=6)
    assert reader.finish_reason == reason
    assert reader.complete is not is_error
    assert reader.saw_error is is_error


def test_errors():
    assert learnt(ApiFormat.CHAT, b'{"error":{"message":"x"}}').saw_error
    assert learnt(ApiFormat.CHAT, b'{"error":"x"}').saw_error
    assert not learnt(ApiFormat.CHAT, b'{"error":null}').saw_error
    assert learnt(ApiFormat.MESSAGES, b'{"type":"error","error":{}}').saw_error
    assert learnt(ApiFormat.RESPONSES, b'{"type":"error","message":"x"}').saw_error
    assert learnt(ApiFormat.MESSAGES, b'{"type":"error","message":"x"}').saw_error
    assert learnt(ApiFormat.CHAT, b'{"object":"error","message":"x"}').saw_error
    assert learnt(ApiFormat.CHAT, b'[{"choices":[]},{"error":{"message":"x"}}]').saw_error
    assert not learnt(ApiFormat.CHAT, b'{"usage":{}}').saw_error
    assert not learnt(ApiFormat.OTHER, b'{"object":"batch","error":{"message":"x"}}').saw_error


def test_with_an_error_nothing_is_finished():
    reader = learnt(
        ApiFormat.CHAT,
        b'{"error":{"message":"x"},"choices":[{"finish_reason":"error"}],"usage":{"prompt_tokens":1}}',
    )
    assert (reader.complete, reader.finish_reason, reader.usage) == (False, None, Usage(prompt_tokens=1))


@pytest.mark.parametrize(
    ("lines", "count", "are_read"),
    [
        (b'{"choices":[]}', 1, True),
        (b'{"choices":[]}\n{"choices":[{"finish_reason":"stop"}]}', 2, True),
        (b'{"choices":[]}\n{"choices":[]}', 1, False),
        (b'{"choices":[]}{"choices":[]}', 1, False),
        (b'{"choices":[]}\n', 2, False),
        (b'{"choices":[]}\n{"error":{"a":1}}', 2, False),
        (b'{"choices":[{"finish_reason":"stop"}]}\nx', 2, False),
        (b'{"choices":[{"finish_reason":"stop"}]}\n{"usage":{}}', 2, False),
        (b"[]", 1, False),
        (b"", 1, False),
    ],
)
def test_lines_are_learnt_all_or_none(lines: bytes, count: int, are_read: bool):
    reader = AnswerReader(ApiFormat.CHAT)
    assert reader.learn_lines(lines, count) is are_read
    assert reader.complete is (are_read and b"stop" in lines)
    assert not reader.saw_error


def test_several_choices():
    reader = AnswerReader(ApiFormat.CHAT, choices=3)
    for document in (
        b'{"choices":[{"index":2,"finish_reason":"stop"}]}',
        b'{"choices":[{"index":2,"finish_reason":"stop"},{"index":"odd","finish_reason":"stop"}]}',
    ):
        assert reader.learn(document)
        assert not reader.complete
    assert reader.learn(b'{"choices":[{"index":1,"finish_reason":"length"}]}')
    assert (reader.complete, reader.finish_reason) == (True, "length")


def test_odd_figures_count_as_nothing():
    reader = learnt(
        ApiFormat.CHAT, b'{"usage":{"prompt_tokens":5.0,"completion_tokens":"7","prompt_tokens_details":[]}}'
    )
    assert reader.usage == Usage(prompt_tokens=5)
    assert learnt(ApiFormat.CHAT, b'{"usage":{"prompt_tokens":-1,"completion_tokens":true}}').usage == Usage(
        prompt_tokens=0
    )
    assert learnt(ApiFormat.CHAT, b'{"usage":[],"timings":1}').usage is None


@pytest.mark.parametrize(
    "document", [b"", b"{", b"1", b'"x"', b'{"choices":1}', b'{"choices":"\xff"}', b"[" * 10_000]
)
def test_what_is_no_answer_teaches_nothing(document: bytes):
    reader = AnswerReader(ApiFormat.CHAT)
    assert not reader.learn(document)
    assert (reader.usage, reader.finish_reason, reader.complete, reader.saw_error) == (
        None,
        None,
        False,
        False,
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "usage", "error", "type", "message", "delta", "response", "timings", "stop"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@settings(deadline=None)
@given(JSON, st.sampled_from(list(ApiFormat)))
def test_nothing_raises_on_any_json(document: object, api_format: ApiFormat):
    AnswerReader(api_format).learn(msgspec.json.encode(document))
