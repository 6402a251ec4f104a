from typing import Any

import msgspec
import pytest

from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.api.request import read_request

HELLO = [{"role": "user", "content": "hello"}]


def read(path: str, **body: Any) -> tuple[int, bool]:
    endpoint = match_endpoint("POST", path)
    assert isinstance(endpoint, Endpoint)
    facts = read_request(endpoint, (), msgspec.json.encode(body))
    return facts.choices, facts.continuable


def chat(**body: Any) -> tuple[int, bool]:
    return read("/v1/chat/completions", **{"messages": HELLO, "stream": True, **body})


def completion(**body: Any) -> tuple[int, bool]:
    return read("/v1/completions", **{"prompt": "Once", "stream": True, **body})


@pytest.mark.parametrize(
    ("n", "choices"),
    [(None, 1), (1, 1), (3, 3), (3.0, 3), (0, 1), (-2, 1), ("3", 1), (True, 1), (2.5, 1), ([], 1)],
)
def test_choices_of_a_chat(n: Any, choices: int):
    assert chat(n=n) == (choices, choices == 1)


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("a", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2), ([1, "a"], 1)],
)
def test_choices_of_prompts(prompt: Any, choices: int):
    assert completion(prompt=prompt)[0] == choices
    assert completion(prompt=prompt, n=3)[0] == 3 * choices
    assert read("/completion", prompt=prompt, n=3)[0] == choices


def test_other_formats_have_one_choice():
    assert read("/v1/responses", input="x", n=3, stream=True) == (1, False)
    assert read("/v1/messages", messages=HELLO, n=3, stream=True) == (1, False)
    assert read("/v1/embeddings", input=["x", "y"], n=3, stream=True) == (1, False)
    assert read("/completion", prompt="x", stream=True) == (1, False)
    assert read("/infill", input_prefix="x", stream=True) == (1, False)


@pytest.mark.parametrize(
    "more",
    [
        {}, {"tools": [{"type": "function"}]}, {"functions": [{}]}, {"logit_bias": {"1": 2}}, {"temperature": 1},
        {"response_format": {"type": "text"}}, {"response_format": None}, {"logprobs": False}, {"grammar": ""},
        {"json_schema": None}, {"echo": False}, {"suffix": None}, {"best_of": 1}, {"stream_options": {"include_usage": True}},
    ],
)  # fmt: skip
def test_free_text_is_continuable(more: dict[str, Any]):
    assert chat(**more) == (1, True)
    assert completion(**more) == (1, True)


@pytest.mark.parametrize(
    "more",
    [
        {"stream": False}, {"stream": None}, {"n": 2}, {"logprobs": True}, {"grammar": "root ::= x"}, {"json_schema": {}},
        {"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_schema"}},
        {"response_format": {}}, {"response_format": "text"}, {"guided_json": {}}, {"guided_regex": "a"}, {"guided_choice": ["a"]},
        {"guided_grammar": "x"}, {"structured_outputs": {"json": {}}}, {"regex": "a+"}, {"ebnf": "x"},
    ],
)  # fmt: skip
def test_what_more_than_its_beginning_decides_about_is_not_continuable(more: dict[str, Any]):
    assert not chat(**more)[1]
    assert not completion(**more)[1]


@pytest.mark.parametrize(
    "more", [{"echo": True}, {"suffix": "end"}, {"logprobs": 0}, {"logprobs": 5}, {"best_of": 2}, {"prompt": [1, 2]}, {"prompt": ["a", "b"]}]
)  # fmt: skip
def test_text_completions_that_are_not_continuable(more: dict[str, Any]):
    assert not completion(**more)[1]


def test_one_prompt_in_a_list_is_continuable():
    assert completion(prompt=["Once"]) == (1, True)
