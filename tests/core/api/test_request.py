from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.endpoints import Endpoint, EndpointKind, match_endpoint
from gatewright.api.facts import ApiFormat, RequestFacts, Wishes
from gatewright.api.request import read_request
from gatewright.config import Config
from gatewright.configuration.schema import read_config
from gatewright.errors import InvalidRequest
from gatewright.selection.criteria import Prefer

JSON_TYPE = "application/json"
HELLO = [{"role": "user", "content": "hello"}]


def facts(
    path: str, content_type: str | None = JSON_TYPE, raw: bytes | None = None, **body: Any
) -> RequestFacts:
    endpoint = match_endpoint("POST", path)
    assert isinstance(endpoint, Endpoint)
    headers = ((b"content-type", content_type.encode()),) if content_type is not None else ()
    return read_request(endpoint, headers, msgspec.json.encode(body) if raw is None else raw)


def chat(**body: Any) -> RequestFacts:
    return facts("/v1/chat/completions", messages=HELLO, **body)


def refusal(
    path: str = "/v1/chat/completions", content_type: str | None = JSON_TYPE, **body: Any
) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        facts(path, content_type, **({"messages": HELLO} | body))
    return caught.value.problem.message, caught.value.problem.param


def test_a_chat():
    assert chat(model="qwen", stream=True, max_tokens=16, temperature=0, unknown={"x": [1]}) == RequestFacts(
        path="/v1/chat/completions",
        format=ApiFormat.CHAT,
        model="qwen",
        stream=True,
        sized=True,
        prompt_bytes=9,
        messages=1,
        answer_tokens=16,
        continuable=True,
    )


def test_a_request_may_name_nothing():
    found = chat()
    assert (found.model, found.stream, found.answer_tokens) == (None, False, None)
    assert chat(model=None, stream=None, max_tokens=None) == found


def test_tokens_and_media_are_told():
    assert facts("/completion", prompt=[1, 2, "abc"]).prompt_tokens_given == 2
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert facts("/v1/chat/completions", messages=image).media == 1


def test_what_has_to_fit_no_context_is_not_sized():
    found = facts("/tokenize?x=1", model="qwen", content="hello", max_tokens="odd")
    assert found == RequestFacts(path="/tokenize?x=1", format=ApiFormat.OTHER, model="qwen", sized=False)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
def test_without_an_answer_none_is_reserved(path: str):
    assert facts(path, input="x", query="x", documents=["y"], max_tokens=5).answer_tokens == 0


# --- model and stream


@pytest.mark.parametrize("model", ["", 5, True, ["x"], {}, "x" * 1000])
def test_a_model_is_a_name(model: Any):
    assert refusal(model=model) == ("'model' must be the name of a model", "model")


@pytest.mark.parametrize("stream", [0, 1, "true", []])
def test_stream_is_a_boolean(stream: Any):
    assert refusal(stream=stream) == ("'stream' must be true or false", "stream")


def test_a_model_in_the_query_stands_in():
    assert facts("/v1/chat/completions?model=org%2Fq", messages=HELLO).model == "org/q"
    assert facts("/v1/chat/completions?model=q", messages=HELLO, model="p").model == "p"
    assert facts("/v1/chat/completions?x=1", messages=HELLO).model is None
    assert "too many" in refusal("/v1/chat/completions?" + "a=b&" * 200)[0]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/props"), ("POST", "/props"), ("POST", "/slots/1?action=erase")]
)
def test_questions_about_an_engine_name_it_in_the_query(method: str, path: str):
    for suffix, model in (("model=q", "q"), ("model=", None), ("", None)):
        target = f"{path}{'&' if '?' in path else '?'}{suffix}"
        endpoint = match_endpoint(method, target)
        assert isinstance(endpoint, Endpoint)
        assert endpoint.kind is EndpointKind.ENGINE
        assert read_request(endpoint, (), b"\xff not looked at") == RequestFacts(
            path=target, format=ApiFormat.OTHER, model=model, sized=False
        )


# --- limits of the answer


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 5}, 5),
        ({"n_predict": 5}, 5),
        ({"max_output_tokens": 5}, 5),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 5.0}, 5),
        ({"max_tokens": -1}, None),
        ({"n_predict": -1, "max_tokens": 5}, None),
        ({"max_tokens": 5, "n_predict": 7}, 7),
        ({"max_tokens": None, "n_predict": 7}, 7),
    ],
)
def test_limits(limits: dict[str, Any], tokens: int | None):
    assert chat(**limits).answer_tokens == tokens


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"])
@pytest.mark.parametrize("value", [-2, 1.5, "5", True, [], {}])
def test_a_limit_is_a_number_of_tokens(name: str, value: Any):
    assert refusal(**{name: value}) == (
        f"'{name}' must be a whole number of tokens, or -1 for no limit",
        name,
    )


# --- content types


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json; charset=utf-8", "Application/JSON", "application/x-www-form-urlencoded"],
)
def test_types_that_are_json(content_type: str | None):
    assert facts("/v1/chat/completions", content_type, messages=HELLO).messages == 1


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "multipart/mixed"])
def test_forms_in_parts_are_not_taken_for_json(content_type: str):
    message, _ = refusal(content_type=content_type or "x")
    assert "Content-Type: application/json" in message


def test_a_body_that_is_no_json():
    for path in ("/v1/chat/completions", "/v1/audio/speech"):
        with pytest.raises(InvalidRequest, match="not valid JSON"):
            facts(path, raw=b"{")
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        facts("/v1/chat/completions", raw=b"")


def test_open_routes_take_forms_and_nothing():
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--x--\r\n'
    found = facts("/v1/audio/transcriptions", "multipart/form-data; boundary=x", form)
    assert found == RequestFacts(
        path="/v1/audio/transcriptions", format=ApiFormat.OTHER, model="whisper", sized=False
    )
    assert facts("/v1/responses/abc/cancel?model=q", None, b"").model == "q"
    with pytest.raises(InvalidRequest, match="boundary"):
        facts("/v1/audio/transcriptions", "multipart/form-data", form)


# --- whatever comes

PATHS = st.sampled_from(
    ["/v1/chat/completions", "/v1/completions", "/infill", "/v1/responses", "/v1/messages", "/v1/embeddings", "/rerank", "/tokenize"]
)  # fmt: skip
NAMES = st.sampled_from(
    ["model", "stream", "messages", "role", "content", "type", "text", "image_url", "prompt", "input", "tools", "query",
     "documents", "texts", "max_tokens", "n_predict", "system", "source", "prompt_string", "multimodal_data", "user"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


def outcome(path: str, content_type: str | None, body: bytes) -> RequestFacts | InvalidRequest:
    try:
        return facts(path, content_type, body)
    except InvalidRequest as error:
        return error


@settings(deadline=None)
@given(PATHS, st.dictionaries(NAMES, VALUES, max_size=8))
def test_any_object_is_read_or_refused(path: str, body: dict[str, Any]):
    found = outcome(path, JSON_TYPE, msgspec.json.encode(body))
    if isinstance(found, InvalidRequest):
        assert found.problem.status == 400
        assert "\n" not in found.problem.message
    else:
        assert found.prompt_bytes >= 0
        assert found.media >= 0


@settings(deadline=None)
@given(PATHS, st.binary(max_size=200), st.none() | st.text(max_size=30))
def test_any_bytes_are_read_or_refused(path: str, body: bytes, content_type: str | None):
    for kind in (content_type, JSON_TYPE, "multipart/form-data; boundary=x"):
        assert isinstance(outcome(path, kind, body), RequestFacts | InvalidRequest)


@pytest.mark.parametrize(
    ("headers", "client_timeout_s"),
    [
        ((), None),
        (((b"x-stainless-read-timeout", b"600"),), 600.0),
        (((b"x-stainless-read-timeout", b"2.5"), (b"x-stainless-timeout", b"9")), 2.5),
        (((b"x-stainless-timeout", b"9"),), 9.0),
        (((b"x-stainless-read-timeout", b"NOT_GIVEN"),), None),
        (((b"x-stainless-read-timeout", b"-1"),), None),
        (((b"x-stainless-read-timeout", b"inf"),), None),
        (((b"x-stainless-read-timeout", b"nan"),), None),
    ],
)
def test_the_client_says_how_long_it_waits(headers: Any, client_timeout_s: float | None):
    endpoint = match_endpoint("POST", "/v1/chat/completions")
    assert isinstance(endpoint, Endpoint)
    body = msgspec.json.encode({"messages": HELLO})
    assert read_request(endpoint, headers, body).client_timeout_s == client_timeout_s


# --- what the request says about the choice of the model


def choosing(
    headers: tuple[tuple[bytes, bytes], ...] = (), config: Config | None = None, **body: Any
) -> RequestFacts:
    endpoint = match_endpoint("POST", "/v1/chat/completions")
    assert isinstance(endpoint, Endpoint)
    return read_request(endpoint, headers, msgspec.json.encode({"messages": HELLO, **body}), config)


def test_wishes_are_read_from_body_and_headers():
    found = choosing(((b"x-gw-prefer", b"cost"),), gatewright={"task": "translate"})
    assert found.wishes == Wishes(task="translate", prefer=Prefer.COST)
    with pytest.raises(InvalidRequest, match=r"gatewright\.task: got 5"):
        choosing(gatewright={"task": 5})


@pytest.mark.parametrize(
    ("body", "user", "session"),
    [
        ({"user": "u"}, "u", None),
        ({"safety_identifier": "u"}, "u", None),
        ({"user": "u", "safety_identifier": "v"}, "u", None),
        ({"prompt_cache_key": "s"}, None, "s"),
        ({"conversation": "s", "prompt_cache_key": "k"}, None, "s"),
        ({"conversation": {"id": "s"}}, None, "s"),
        ({"session_id": "s", "conversation": "c"}, None, "s"),
        ({"user": "u", "gatewright": {"user": "w", "session": "s"}}, "w", "s"),
    ],
)
def test_user_and_session_are_taken_from_where_clients_name_them(body, user, session):
    assert choosing(**body).wishes == Wishes(user=user, session=session)


@pytest.mark.parametrize(
    "body", [{"user": 5}, {"user": ""}, {"conversation": {"x": 1}}, {"metadata": {"user_id": "u"}}]
)
def test_users_and_sessions_that_are_no_text_say_nothing(body):
    assert choosing(**body).wishes is None


def test_anthropics_clients_name_the_user_in_the_metadata():
    found = facts("/v1/messages", messages=HELLO, max_tokens=5, metadata={"user_id": "u"})
    assert found.wishes == Wishes(user="u")
    assert facts("/v1/messages", messages=HELLO, max_tokens=5, metadata=[1]).wishes is None


@pytest.mark.parametrize(
    ("body", "features"),
    [
        ({}, set()),
        ({"stream": True, "tools": [], "logprobs": False, "response_format": {"type": "text"}}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"logprobs": True}, {"logprobs"}),
        ({"reasoning_effort": "low"}, {"reasoning_effort"}),
        ({"response_format": {"type": "json_object"}}, {"json_mode"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"response_format": "odd", "tools": [{}, {}]}, {"tools"}),
        ({"response_format": {"type": ["odd"]}}, set()),
    ],
)
def test_features_that_a_request_makes_necessary(body, features):
    assert choosing(**body).features == features


def test_features_of_the_other_apis():
    schema = {"type": "json_schema", "schema": {}}
    assert facts("/v1/responses", input="x", text={"format": schema}).features == {"json_schema"}
    assert facts("/v1/responses", input="x", text=5).features == set()
    for member in ({"output_format": schema}, {"output_config": {"format": schema}}):
        assert facts("/v1/messages", messages=HELLO, max_tokens=5, **member).features == {"json_schema"}


@pytest.mark.parametrize(
    ("part", "modalities"),
    [
        ({"type": "text", "text": "x"}, set()),
        ({"type": "image_url", "image_url": {"url": "http://x"}}, {"image"}),
        ({"type": "input_audio", "input_audio": {"data": "x"}}, {"audio"}),
        ({"type": "file", "file": {}}, set()),
        ({"type": "odd", "url": "data:image/png;base64,x"}, {"image"}),
        ({"type": "odd", "url": "data:audio/wav;base64,x"}, {"audio"}),
    ],
)
def test_modalities_of_the_prompt(part, modalities):
    assert choosing(messages=[{"role": "user", "content": [part]}]).modalities == modalities


def test_signals_are_taken_only_where_there_are_routes():
    model = {"name": "gpt", "engine": "openai", "connect": "https://api.example.com"}
    plain = read_config({"server": {}, "models": [model]})
    routed = read_config({"server": {}, "models": [model], "routes": {"auto": {}}})
    assert choosing().signals is None
    assert choosing(config=plain).signals is None
    found = choosing(config=routed, gatewright={"task": "translate"}).signals
    assert found is not None
    assert (found.task, found.text_characters, found.turns) == ("translate", 5, 1)
    endpoint = match_endpoint("POST", "/v1/embeddings")
    assert isinstance(endpoint, Endpoint)
    assert read_request(endpoint, (), b'{"input": "x"}', routed).signals is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_that_no_number_holds_is_refused(name):
    body = b'{"messages": [{"role": "user", "content": "hi"}], "%s": 1%s}' % (name.encode(), b"0" * 400)
    endpoint = match_endpoint("POST", "/v1/chat/completions")
    with pytest.raises(InvalidRequest, match=name):
        read_request(endpoint, (), body)


def test_more_answers_than_anyone_gives_are_counted_as_very_many():
    body = b'{"messages": [{"role": "user", "content": "hi"}], "n": 1%s}' % (b"0" * 400)
    endpoint = match_endpoint("POST", "/v1/chat/completions")
    assert read_request(endpoint, (), body).choices == 1_000_000
