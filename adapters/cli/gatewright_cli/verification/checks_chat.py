"""Checks of answers that come in one piece."""

import json
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Final

from gatewright_cli.verification.check import CHAT, Checks, Probe
from gatewright_cli.verification.client import Answer
from gatewright_cli.verification.outcome import (
    Failed,
    Skipped,
    document_of,
    expect,
    expect_status,
    parse_object,
    shown,
)

checks = Checks()

FINISH_REASONS: Final = frozenset(("stop", "length", "tool_calls", "content_filter"))
ROOM_TOKENS: Final = 256
"""For answers that have to come to their own end."""
UNSUPPORTED: Final = frozenset((400, 404, 422, 501))
"""A plain refusal of what a model or engine cannot do."""
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
_SCHEMA: Final = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
# In JSON a character may stand for itself or be written as an escape; beyond U+FFFF as two of them.
_UNICODE_TEXT: Final = "Grüße, 世界! \U0001f600 e\u0301 \u200d\U0001f469\u200d\U0001f4bb عربى"
_PARALLEL: Final = 4
_LARGE_BODY_BYTES: Final = 900_000
"""A little less than what reverse proxies commonly let through."""


def choice_of(completion: dict[str, Any]) -> dict[str, Any]:
    """The only choice of a completion.

    Raises:
        Failed: There is not exactly one.
    """
    choices = completion.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Failed("one choice", shown(completion))
    return choices[0]


def supported(answer: Answer, what: str) -> Answer:
    """The answer, unless it refuses plainly what was asked for.

    Raises:
        Skipped: It does.
    """
    if answer.status in UNSUPPORTED:
        raise Skipped(f"{what}: refused with {answer.status} {shown(answer.body)}")
    expect_status(answer, (HTTPStatus.OK,), "200 or a refusal")
    return answer


def check_call(call: object) -> None:
    """Go on only if this is a call of `TOOL`."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or function.get("name") != "get_weather":
        raise Failed("a call of get_weather", shown(call))
    arguments = parse_object(str(function.get("arguments")))
    expect(arguments.get("city") in {"Rome", "Oslo"}, "a city of the schema as argument", arguments)


@checks.check("chat", "a question gets a completion in OpenAI's format")
def _chat(probe: Probe) -> None:
    completion = probe.completion()
    kind = completion.get("object")
    expect(kind == "chat.completion", "the object chat.completion", kind)
    expect(isinstance(completion.get("id"), str) and completion["id"], "an id", completion.get("id"))
    choice = choice_of(completion)
    message = choice.get("message")
    if not isinstance(message, dict) or message.get("role") != "assistant":
        raise Failed("a message of the assistant", shown(choice))
    content = message.get("content")
    expect(content is None or isinstance(content, str), "text, or null, as content", content)
    expect(choice.get("finish_reason") in FINISH_REASONS, "a finish_reason", choice.get("finish_reason"))


@checks.check("usage", "the tokens of an answer are counted, and add up")
def _usage(probe: Probe) -> None:
    usage = probe.completion(max_tokens=4).get("usage")
    if not isinstance(usage, dict):
        raise Failed("usage", shown(usage))
    prompt, answer, total = (
        usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    if not isinstance(prompt, int) or not isinstance(answer, int) or not prompt:
        raise Failed("prompt_tokens above 0, and completion_tokens", shown(usage))
    expect(total == prompt + answer, f"a total of {prompt + answer} tokens", total)


@checks.check("max-tokens", "max_tokens limits the answer, and finish_reason says so")
def _max_tokens(probe: Probe) -> None:
    completion = probe.completion("Count from one to a hundred.", max_tokens=3)
    reason = choice_of(completion).get("finish_reason")
    expect(reason == "length", "finish_reason length", reason)
    made = (completion.get("usage") or {}).get("completion_tokens", 0)
    expect(made <= 3, "3 tokens at most", made)  # noqa: PLR2004  # what was asked for


@checks.check("messages", "system prompts, earlier turns and content in parts are understood")
def _messages(probe: Probe) -> None:
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "text", "text": "How are you?"}]},
    ]
    probe.completion(messages=messages)


@checks.check("unicode", "a text is the same one however JSON spells it, and the answer is UTF-8")
def _unicode(probe: Probe) -> None:
    counts = []
    for as_ascii in (True, False):
        body = json.dumps(probe.chat_body(_UNICODE_TEXT, max_tokens=2), ensure_ascii=as_ascii)
        answer = probe.client.post(CHAT, body.encode())
        expect_status(answer, (HTTPStatus.OK,), "200 and a completion")
        counts.append((document_of(answer).get("usage") or {}).get("prompt_tokens"))
    expect(counts[0] == counts[1], "as many tokens for escapes as for UTF-8", counts)


@checks.check("large-body", "a body of 900 kB is taken")
def _large_body(probe: Probe) -> None:
    # Blanks between the members: as long as a long prompt on its way here, and not a token for the model.
    head = json.dumps(probe.chat_body(max_tokens=2)).encode().removesuffix(b"}")
    body = head + b" " * (_LARGE_BODY_BYTES - len(head) - 1) + b"}"
    answer = probe.client.post(CHAT, body)
    expect_status(answer, (HTTPStatus.OK,), "200 and a completion")


@checks.check("parallel", "four requests at once are all answered")
def _parallel(probe: Probe) -> None:
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for completion in pool.map(lambda _: probe.completion(max_tokens=4), range(_PARALLEL)):
            choice_of(completion)


@checks.check("json-schema", "response_format json_schema is obeyed")
def _json_schema(probe: Probe) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA, "strict": True}}
    question = "Is water wet? Answer in JSON."
    answer = supported(
        probe.chat(question, max_tokens=ROOM_TOKENS, response_format=wanted), "response_format"
    )
    choice = choice_of(document_of(answer))
    if choice.get("finish_reason") == "length":
        raise Skipped(f"the answer was not complete after {ROOM_TOKENS} tokens")
    content = parse_object(str((choice.get("message") or {}).get("content")))
    expect(content.get("answer") in {"yes", "no"}, '{"answer": "yes"} or "no"', content)
    expect(content.keys() == {"answer"}, "no other members", content)


@checks.check("tools", "with tool_choice required, a tool is called")
def _tools(probe: Probe) -> None:
    asked = probe.chat(
        "What is the weather in Rome?", max_tokens=ROOM_TOKENS, tools=[TOOL], tool_choice="required"
    )
    choice = choice_of(document_of(supported(asked, "tools")))
    if choice.get("finish_reason") == "length":
        raise Skipped(f"the call was not complete after {ROOM_TOKENS} tokens")
    calls = (choice.get("message") or {}).get("tool_calls")
    if not isinstance(calls, list) or not calls:
        if choice.get("finish_reason") == "stop" and (choice.get("message") or {}).get("content"):
            raise Skipped("the model answers in words, and calls no tool")
        raise Failed("tool_calls", shown(choice))
    check_call(calls[0])
