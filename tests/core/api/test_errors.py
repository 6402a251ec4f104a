import json
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.errors import (
    read_answer_error,
    read_upstream_error,
    render_problem,
    stream_comment,
    stream_error,
)
from gatewright.api.facts import ApiFormat, UpstreamError
from gatewright.errors import (
    ContextTooLarge,
    EngineCrashed,
    MethodNotAllowed,
    Problem,
    QueueFull,
    ShuttingDown,
    Unauthorized,
)

OVERFLOW = (
    b'{"error":{"code":400,"message":"request (12021 tokens) exceeds the available context size (2048 tokens), try '
    b'increasing it","type":"exceed_context_size_error","n_prompt_tokens":12021,"n_ctx":2048}}'
)


def rendered(problem: Problem, api_format: ApiFormat = ApiFormat.CHAT) -> tuple[int, dict[bytes, bytes], Any]:
    status, headers, body = render_problem(problem, api_format)
    return status, dict(headers), json.loads(body)


def test_an_openai_error():
    status, headers, body = rendered(ContextTooLarge(9000, 8192, prompt_tokens=8000).problem)
    assert status == 400
    assert headers == {b"content-type": b"application/json", b"x-should-retry": b"false"}
    assert body == {
        "error": {
            "message": "Request requires 9000 tokens, but largest variant only supports 8192",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
            "n_ctx": 8192,
            "n_prompt_tokens": 8000,
        }
    }


def test_an_anthropic_error():
    status, _, body = rendered(ContextTooLarge(9000, 8192).problem, ApiFormat.MESSAGES)
    assert status == 400
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["code"] == "context_length_exceeded"
    assert body["error"]["n_ctx"] == 8192


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unauthorized("x"), "authentication_error"),
        (QueueFull("x"), "rate_limit_error"),
        (ShuttingDown("x"), "overloaded_error"),
        (EngineCrashed("x"), "api_error"),
        (MethodNotAllowed("x"), "invalid_request_error"),
    ],
)
def test_anthropic_types(error: Any, kind: str):
    assert rendered(error.problem, ApiFormat.MESSAGES)[2]["error"]["type"] == kind


def test_headers_for_retries_keys_and_methods():
    headers = rendered(QueueFull("x", retry_after_s=1.2004).problem)[1]
    assert headers[b"retry-after"] == b"2"
    assert headers[b"retry-after-ms"] == b"1201"
    assert b"x-should-retry" not in headers
    assert rendered(ShuttingDown("x").problem)[1][b"x-should-retry"] == b"true"
    assert rendered(QueueFull("x", retry_after_s=-1).problem)[1][b"retry-after"] == b"0"
    assert rendered(Unauthorized("x").problem)[1][b"www-authenticate"] == b"Bearer"
    assert (
        rendered(MethodNotAllowed("x", details={"allow": "GET, HEAD"}).problem)[1][b"allow"] == b"GET, HEAD"
    )


# --- in streams


@pytest.mark.parametrize("api_format", list(ApiFormat))
def test_an_error_in_a_stream_is_one_event(api_format: ApiFormat):
    event = stream_error(EngineCrashed('died\nof "it"').problem, api_format)
    assert event.endswith(b"\n\n")
    assert event.count(b"\n\n") == 1
    assert b"[DONE]" not in event
    data = json.loads(event.partition(b"data: ")[2])
    assert data["error"]["message"] == 'died\nof "it"'
    assert data["error"]["code"] == "engine_crashed"
    assert event.startswith(b"event: error\n") is (api_format in {ApiFormat.MESSAGES, ApiFormat.RESPONSES})


def test_errors_in_the_streams_of_responses_and_messages():
    responses = json.loads(
        stream_error(EngineCrashed("died").problem, ApiFormat.RESPONSES).partition(b"data: ")[2]
    )
    assert responses["type"] == "error"
    assert responses["message"] == "died"
    messages = json.loads(
        stream_error(EngineCrashed("died").problem, ApiFormat.MESSAGES).partition(b"data: ")[2]
    )
    assert messages["type"] == "error"
    assert messages["error"]["type"] == "api_error"


@pytest.mark.parametrize("api_format", [ApiFormat.CHAT, ApiFormat.RESPONSES])
def test_the_official_client_raises_on_an_error_in_a_stream(api_format: ApiFormat):
    events = b'data: {"choices":[]}\n\n' + stream_error(EngineCrashed("died").problem, api_format)
    decoder = openai.OpenAI(api_key="x")._make_sse_decoder()
    data = [event.json() for event in decoder.iter_bytes(iter([events]))]
    assert data[-1].get("error")  # what its Stream looks for
    assert data[-1]["error"]["message"] == "died"


def test_a_comment_stays_one_line():
    assert stream_comment("waiting: 3 of\n5\r\n\r\ndata: x") == b": waiting: 3 of 5 data: x\n\n"
    assert stream_comment("") == b": \n\n"


# --- errors of upstreams


def test_overflow_of_llama_server():
    assert read_upstream_error(400, (), OVERFLOW) == UpstreamError(
        message="request (12021 tokens) exceeds the available context size (2048 tokens), try increasing it",
        type="exceed_context_size_error",
        code="400",
        overflow=True,
        prompt_tokens=12021,
        context_tokens=2048,
    )


@pytest.mark.parametrize(
    ("error", "prompt_tokens", "context_tokens"),
    [
        (
            {
                "message": "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            },
            5000,
            4096,
        ),
        (
            {
                "message": "prompt is too long: 208310 tokens > 200000 maximum",
                "type": "invalid_request_error",
            },
            208310,
            200000,
        ),
        (
            {
                "message": "This model's maximum context length is 2048 tokens. However, you requested 2500 tokens "
                "(2000 in the messages, 500 in the completion).",
                "type": "BadRequestError",
                "code": 400,
            },
            2000,
            2048,
        ),
        ({"message": "Too long", "code": "context_length_exceeded"}, None, None),
        ({"message": "Your prompt is too long."}, None, None),
    ],
)
def test_overflow_of_others(error: dict[str, Any], prompt_tokens: int | None, context_tokens: int | None):
    for document in ({"error": error}, {"type": "error", "error": error}, error, [{"error": error}]):
        found = read_upstream_error(400, (), json.dumps(document).encode())
        assert (found.overflow, found.prompt_tokens, found.context_tokens) == (
            True,
            prompt_tokens,
            context_tokens,
        )


def test_what_is_no_overflow():
    for status, body in (
        (400, b'{"error":{"message":"bad"}}'),
        (500, b'{"error":{"message":"the prompt is too long to explain"}}'),
        (400, b"prompt is too long"),
    ):
        assert not read_upstream_error(status, (), body).overflow


def test_loading():
    body = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
    assert read_upstream_error(503, (), body).loading
    assert not read_upstream_error(500, (), body).loading
    assert not read_upstream_error(503, (), b'{"error":{"message":"busy"}}').loading


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "HTTP status 502"),
        (b"upstream\r\n  failed ", "upstream failed"),
        (
            b"<html><head><style>a{b:c}</style><title>502 Bad</title></head><body>Gate\nway</body></html>",
            "502 Bad Gate way",
        ),
        (b"\xff\xfe", "��"),
        (b'{"error":"plain"}', "plain"),
        (b'{"detail":"of FastAPI"}', "of FastAPI"),
        (b'{"message":"of vLLM"}', "of vLLM"),
        (b'{"error":{"code":7}}', "HTTP status 502"),
        (b'{"error":" \\r"}', "HTTP status 502"),
        (b'"text"', '"text"'),
        (b"[]", "[]"),
        (b"x" * 10_000, "x" * 499 + "…"),
        (json.dumps({"error": {"message": "x " * 10_000}}).encode(), ("x " * 250)[:499] + "…"),
    ],
)
def test_the_message_is_one_short_line(body: bytes, message: str):
    assert read_upstream_error(502, (), body).message == message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), None),
        (((b"retry-after", b"3"),), 3.0),
        (((b"retry-after", b"0.5"),), 0.5),
        (((b"retry-after", b"3"), (b"retry-after-ms", b"1500")), 1.5),
        (((b"retry-after", b"3"), (b"retry-after-ms", b"soon")), 3.0),
        (((b"retry-after", b"Fri, 20 Nov 2026 12:00:00 GMT"),), None),
        (
            (
                (b"date", b"Fri, 20 Nov 2026 11:59:30 GMT"),
                (b"retry-after", b"Fri, 20 Nov 2026 12:00:00 GMT"),
            ),
            30.0,
        ),
        (
            (
                (b"date", b"Fri, 20 Nov 2026 12:00:30 GMT"),
                (b"retry-after", b"Fri, 20 Nov 2026 12:00:00 GMT"),
            ),
            0.0,
        ),
        (((b"date", b"Fri, 20 Nov 2026 12:00:30"), (b"retry-after", b"Fri, 20 Nov 2026 12:01:00")), 30.0),
        (((b"date", b"x"), (b"retry-after", b"Fri, 20 Nov 0000 12:00:00 GMT")), None),
        (((b"retry-after", b"-1"),), None),
        (((b"retry-after", b"inf"),), None),
        (((b"retry-after", b"nan"),), None),
    ],
)
def test_retry_after(headers: tuple[tuple[bytes, bytes], ...], seconds: float | None):
    for body in (OVERFLOW, b"text"):
        assert read_upstream_error(429, headers, body).retry_after_s == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "n_ctx", "n_prompt_tokens", "detail"]), inner
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(
    st.sampled_from([400, 413, 429, 500, 503]),
    st.binary() | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_nothing_raises_on_anything(status: int, body: bytes):
    found = read_upstream_error(status, (), body)
    assert "\n" not in found.message
    assert 0 < len(found.message) <= 500


# --- errors that come with a good status


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b'{"error":{"message":"m","code":503}}', UpstreamError(message="m", code="503", status=503)),
        (b'{"error":{"message":"m","status":"429"}}', UpstreamError(message="m", status=429)),
        (b'{"error":{"message":"m","status_code":400}}', UpstreamError(message="m", status=400)),
        (b'{"error":{"message":"m","code":"rate_limit","status":429}}', UpstreamError(message="m", code="rate_limit", status=429)),
        (b'{"error":{"message":"m","code":200}}', UpstreamError(message="m", code="200")),
        (b'{"error":{"message":"m","code":1234}}', UpstreamError(message="m", code="1234")),
        (b'{"error":{"code":true}}', UpstreamError(message="an error that tells nothing of itself")),
        (b'{"error":"m"}', UpstreamError(message="m")),
        (b'{"type":"error","message":"m"}', UpstreamError(message="m", type="error")),
        (b'{"type":"response.failed","response":{"error":{"code":"x","message":"m"}}}', UpstreamError(message="m", code="x")),
        (b'{"error":{"message":"m"},"response":{"error":{"message":"n"}}}', UpstreamError(message="m")),
        (b'{"error":{"message":"Loading model","code":503}}', UpstreamError(message="Loading model", code="503", status=503, loading=True)),
        (
            b'{"error":{"message":"m","code":400,"type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}',
            UpstreamError(
                message="m", code="400", status=400, type="exceed_context_size_error", overflow=True, prompt_tokens=9, context_tokens=8
            ),
        ),
        (b" out of  memory", UpstreamError(message="out of memory")),
        (b"", UpstreamError(message="an error that tells nothing of itself")),
    ],
)  # fmt: skip
def test_an_error_in_the_place_of_an_answer(document: bytes, error: UpstreamError):
    assert read_answer_error((), document) == error


def test_an_overflow_is_found_without_a_status():
    message = "prompt is too long: 9 tokens > 8 maximum"
    error = read_answer_error((), json.dumps({"error": {"message": message}}).encode())
    assert (error.overflow, error.prompt_tokens, error.context_tokens) == (True, 9, 8)
    error = read_answer_error((), json.dumps({"error": {"message": message, "code": 500}}).encode())
    assert not error.overflow


def test_an_error_with_a_good_status_may_say_when_to_come_back():
    headers = ((b"retry-after", b"3"),)
    assert read_answer_error(headers, b'{"error":"m"}').retry_after_s == 3
    assert read_answer_error(headers, b"m").retry_after_s == 3


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_an_error_may_be_anything(document: bytes):
    assert read_answer_error((), document).message
