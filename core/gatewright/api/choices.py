"""How many answers a request wants, and whether it is one of free text that another model could go on with."""

from typing import Any, Final

import msgspec

from gatewright.api.bodies import Body, is_given
from gatewright.api.facts import ApiFormat

_MOST_CHOICES: Final = 1_000_000
"""No engine gives so many, and their tokens can still be counted."""


class _ResponseFormat(msgspec.Struct):
    type: Any = None


_RESPONSE_FORMAT: Final = msgspec.json.Decoder(_ResponseFormat)


def answer_choices(format: ApiFormat, body: Body) -> int:  # noqa: A002 - the word that facts use
    """Answers that come side by side; values that an engine would refuse count as one."""
    match format:
        case ApiFormat.CHAT:
            return _number(body.n)
        case ApiFormat.COMPLETION:
            return _number(body.n) * _prompts(body.prompt)
        case ApiFormat.NATIVE:
            return _prompts(body.prompt)
        case _:
            return 1


def is_free_text(format: ApiFormat, body: Body) -> bool:  # noqa: A002 - the word that facts use
    """Whether nothing but the text before it decides how the answer goes on.

    A grammar would begin anew in the middle, and probabilities would be those of another beginning.
    """
    if (
        is_given(body.grammar)
        or is_given(body.json_schema)
        or is_given(body.structured_outputs)
        or is_given(body.guided_json)
        or is_given(body.guided_regex)
        or is_given(body.guided_choice)
        or is_given(body.guided_grammar)
        or is_given(body.regex)
        or is_given(body.ebnf)
        or not _is_text(body.response_format)
    ):
        return False
    match format:
        case ApiFormat.CHAT:
            return not body.logprobs
        case ApiFormat.COMPLETION:
            # For text completions `"logprobs": 0` wants those of the tokens that were chosen.
            wants_logprobs = body.logprobs is not None and body.logprobs is not False
            is_one_prompt = isinstance(_only(body.prompt), str)
            return (
                is_one_prompt
                and not body.echo
                and not body.suffix
                and not wants_logprobs
                and _number(body.best_of) == 1
            )
        case _:
            return False


def _number(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return 1
    return min(max(1, value), _MOST_CHOICES)


def _prompts(prompt: Any) -> int:
    """Prompts in a value that may be one or a list of them; a list with token ids among its parts is one."""
    if not isinstance(prompt, list) or any(type(part) is int for part in prompt):
        return 1
    return max(1, len(prompt))


def _only(prompt: Any) -> Any:
    return prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt


def _is_text(response_format: msgspec.Raw) -> bool:
    if not is_given(response_format):
        return True
    try:
        return bool(_RESPONSE_FORMAT.decode(response_format).type == "text")
    except msgspec.DecodeError:
        return False
