"""What is done to requests before an upstream gets them, as the upstream sees it."""

from typing import Any

import pytest

from gatewright_cli.verification.check import CHAT
from tests.conformance.choosing import Choosing

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def sent(
    choosing: Choosing, model: str, name: str, *, stream: bool = False, **members: Any
) -> dict[str, Any]:
    """What the upstream of a model gets of a question that names something."""
    if stream:
        choosing.events(name, **members)
    else:
        choosing.ask(name, **members)
    return choosing.provider.received(model)[-1]


@pytest.mark.parametrize("stream", [False, True])
def test_the_models_own_transform_is_carried_out(choosing: Choosing, stream: bool) -> None:
    body = sent(choosing, "shaped", "shaped", stream=stream, temperature=0.9, logit_bias={"1": 1}, stop=["."])
    assert body == {
        "model": "speaks-shaped",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "temperature": 0.9,
        "top_p": 0.5,
        "max_tokens": 5,
        "stop": [".", "<END>"],
        "reasoning_effort": "none",
        **({"stream": True} if stream else {}),
    }


def test_the_routes_transform_comes_after_the_models(choosing: Choosing) -> None:
    body = sent(choosing, "shaped", "polite", gatewright={"task": "x"})
    prefix = body["messages"][0]
    assert prefix["role"] == "system"
    assert prefix["content"].index("Be brief.") < prefix["content"].index("Be polite.")
    assert (body["max_tokens"], body["stop"]) == (7, ["<END>", "<STOP>"])
    assert "gatewright" not in body


def test_a_model_that_knows_neither_system_prompts_nor_schemas_gets_both_in_words(choosing: Choosing) -> None:
    body = sent(choosing, "gemma", "json", response_format=SCHEMA)
    assert "response_format" not in body
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith("Think.")
    assert '"city"' in message["content"]
    assert message["content"].endswith("hi")
    assert body["chat_template_kwargs"] == {"enable_thinking": True, "reasoning_effort": "high"}


def test_a_model_that_has_no_transform_gets_what_the_client_said(choosing: Choosing) -> None:
    said = {
        **choosing.body("spare"),
        "logit_bias": {"1": 1},
        "temperature": 1.10,
        "seed": 12345678901234567890,
    }
    assert choosing.client.post(CHAT, said).status == 200
    assert choosing.provider.received("spare")[-1] == {**said, "model": "speaks-spare"}


def test_the_answer_is_as_long_as_the_transform_allows(choosing: Choosing) -> None:
    for given in ({"max_completion_tokens": 900}, {"max_tokens": 900}):
        body = {**choosing.body("shaped"), **given}
        assert choosing.client.post(CHAT, body).status == 200
        assert [choosing.provider.received("shaped")[-1].get(name) for name in given] != [900]


def test_other_formats_are_changed_in_their_own_words(choosing: Choosing) -> None:
    answer = choosing.client.post(
        "/v1/responses", {"model": "polite", "input": "hi", "max_output_tokens": 900}
    )
    assert answer.status == 200, answer
    body = choosing.provider.received("shaped")[-1]
    assert body["max_output_tokens"] == 7
    assert "Be brief." in body["instructions"]
    assert "Be polite." in body["instructions"]
    assert body["reasoning"] == {"effort": "none"}
