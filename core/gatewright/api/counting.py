"""How to have a request's prompt counted exactly: by a llama-server, or by a tokenizer that takes plain text."""

from typing import Any, Final

import msgspec

from gatewright.api.bodies import read_body
from gatewright.api.endpoints import BodyShape, Endpoint, match_endpoint
from gatewright.api.facts import ApiFormat, RequestFacts
from gatewright.api.prompt import PromptText, largest_prompt, walk_prompt

_COUNT_PATHS: Final = {
    ApiFormat.CHAT: "/v1/chat/completions/input_tokens",
    ApiFormat.RESPONSES: "/v1/responses/input_tokens",
    ApiFormat.MESSAGES: "/v1/messages/count_tokens",
}
_TOKENIZE_PATH: Final = "/tokenize"


def input_tokens_request(facts: RequestFacts, body: bytes) -> tuple[str, bytes]:
    """The request that asks a llama-server for the size of this request's prompt, template included.

    Args:
        facts: From `read_request`.
        body: The body that they were read from.

    Returns:
        Path and JSON body, to be sent with POST; `read_token_count` reads the answer.
    """
    path = _COUNT_PATHS.get(facts.format)
    if path is not None:
        return path, body
    content = largest_prompt(_shape(facts), read_body(body))
    return _TOKENIZE_PATH, msgspec.json.encode(
        {"content": content, "add_special": True, "parse_special": True}
    )


class _Count(msgspec.Struct):
    input_tokens: Any = None
    tokens: list[Any] | None = None


_COUNT: Final = msgspec.json.Decoder(_Count)


def read_token_count(path: str, body: bytes) -> int | None:
    """The number of tokens in the answer to an `input_tokens_request`; None if the answer holds none.

    Args:
        path: That was asked.
        body: Of an answer with status 200.
    """
    try:
        count = _COUNT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if path == _TOKENIZE_PATH:
        return None if count.tokens is None else len(count.tokens)
    tokens = count.input_tokens
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None


def prompt_text(facts: RequestFacts, body: bytes) -> str:
    """The prompt as plain text, for a tokenizer that knows no template; one line or more for each text.

    Tokens that the client gave as numbers are left out: `facts.prompt_tokens_given` counts them.
    """
    text = PromptText()
    walk_prompt(_shape(facts), read_body(body), text)
    return "\n".join(text.pieces)


def _shape(facts: RequestFacts) -> BodyShape:
    endpoint = match_endpoint("POST", facts.path)
    return endpoint.shape if isinstance(endpoint, Endpoint) else BodyShape.ANY
