import msgspec
import pytest

from gatewright.api.counting import input_tokens_request, prompt_text, read_token_count
from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.api.request import read_request


def asked(path: str, body: bytes) -> tuple[str, bytes]:
    endpoint = match_endpoint("POST", path)
    assert isinstance(endpoint, Endpoint)
    return input_tokens_request(read_request(endpoint, (), body), body)


@pytest.mark.parametrize(
    ("path", "count_path", "body"),
    [
        (
            "/chat/completions",
            "/v1/chat/completions/input_tokens",
            b'{"messages":[{"role":"user","content":"x"}]}',
        ),
        ("/v1/responses", "/v1/responses/input_tokens", b'{"input":"x"}'),
        ("/v1/messages", "/v1/messages/count_tokens", b'{"messages":[{"role":"user","content":"x"}]}'),
    ],
)
def test_messages_are_counted_as_they_are(path: str, count_path: str, body: bytes):
    assert asked(path, body) == (count_path, body)


@pytest.mark.parametrize(
    ("path", "body", "content"),
    [
        ("/v1/completions?x=1", b'{"prompt":"hello"}', "hello"),
        ("/completion", b'{"prompt":["a","bb"]}', "bb"),
        ("/completion", b'{"prompt":[1,"a",2]}', [1, "a", 2]),
        ("/infill", b'{"input_prefix":"a","input_suffix":"b"}', "a\nb"),
        ("/v1/embeddings", b'{"input":["a","bb"]}', "bb"),
        ("/v1/rerank", b'{"query":"q","documents":["a","bb"]}', "q\nbb"),
    ],
)
def test_prompts_are_tokenized(path: str, body: bytes, content: object):
    count_path, count_body = asked(path, body)
    assert count_path == "/tokenize"
    assert msgspec.json.decode(count_body) == {"content": content, "add_special": True, "parse_special": True}


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/v1/chat/completions/input_tokens", b'{"input_tokens":26,"object":"response.input_tokens"}', 26),
        ("/v1/messages/count_tokens", b'{"input_tokens":26}', 26),
        ("/tokenize", b'{"tokens":[104,101,108]}', 3),
        ("/tokenize", b'{"tokens":[{"id":1,"piece":"a"}]}', 1),
        ("/tokenize", b'{"tokens":[]}', 0),
        ("/tokenize", b'{"input_tokens":5}', None),
        ("/v1/messages/count_tokens", b'{"input_tokens":"26"}', None),
        ("/v1/messages/count_tokens", b'{"input_tokens":true}', None),
        ("/v1/messages/count_tokens", b'{"input_tokens":-1}', None),
        ("/v1/messages/count_tokens", b"<html>", None),
        ("/v1/messages/count_tokens", b"[]", None),
        ("/v1/messages/count_tokens", b"", None),
    ],
)
def test_answers_to_the_count(path: str, body: bytes, count: int | None):
    assert read_token_count(path, body) == count


def test_the_prompt_as_text():
    body = b'{"messages":[{"role":"system","content":"be"},{"role":"user","content":[{"type":"text","text":"hello"}]}]}'
    endpoint = match_endpoint("POST", "/v1/chat/completions")
    assert isinstance(endpoint, Endpoint)
    assert prompt_text(read_request(endpoint, (), body), body) == "system\nbe\nuser\nhello"
