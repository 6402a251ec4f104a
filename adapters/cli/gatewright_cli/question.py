"""A question, from the words of the command line to the request that an engine gets."""

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from attrs import field, frozen

from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.api.facts import RequestFacts
from gatewright.api.request import read_request
from gatewright.config import Config
from gatewright.errors import InvalidRequest
from gatewright.wire.server import RequestHead
from gatewright_cli import exits

PATH: Final = "/v1/chat/completions"
_JSON: Final = "application/json"


@frozen(kw_only=True)
class Question:
    """What is asked, and how it is to be answered.

    Attributes:
        prompt: The question.
        system: System prompt.
        max_tokens: Longest answer.
        temperature: Of the sampling.
        schema: JSON schema that the answer must follow.
        stream: Answer in pieces.
        wishes: What is said about the choice of the model: the body's member `gatewright`.
    """

    prompt: str
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    schema: dict[str, Any] | None = None
    stream: bool = True
    wishes: dict[str, Any] = field(factory=dict)


@frozen
class QuestionRequest:
    """A question as a client of the API would put it.

    Attributes:
        head: Request line and headers.
        facts: What the Gateway reads of it.
        body: JSON.
    """

    head: RequestHead
    facts: RequestFacts
    body: bytes


def join_prompt(words: tuple[str, ...]) -> str:
    """The prompt: the words, a blank line, and what is piped in; either may be missing.

    Raises:
        Misuse: Both are.
    """
    parts = [" ".join(words).strip(), _piped().strip()]
    prompt = "\n\n".join(part for part in parts if part)
    if not prompt:
        raise exits.Misuse("nothing to ask: give the prompt as arguments, or pipe it in")
    return prompt


def _piped() -> str:
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    except OSError:  # a terminal that is not ours to read, or a directory
        return ""


def read_schema(path: Path) -> dict[str, Any]:
    """A JSON schema from a file.

    Raises:
        click.BadParameter: There is none in it.
    """
    try:
        schema = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise click.BadParameter(f"{path}: {reason}", param_hint="--schema") from None
    return schema


def make_request(name: str, question: Question, config: Config | None = None) -> QuestionRequest:
    """The question as a request to the API.

    Args:
        name: Model or route that is asked.
        question: The question.
        config: The configuration; if it has routes, the text is looked at for how hard the question is.

    Raises:
        Misuse: A wish is not allowed.
    """
    messages = [{"role": "user", "content": question.prompt}]
    if question.system is not None:
        messages.insert(0, {"role": "system", "content": question.system})
    fields: dict[str, Any] = {"model": name, "messages": messages, "stream": question.stream}
    if question.max_tokens is not None:
        fields["max_tokens"] = question.max_tokens
    if question.temperature is not None:
        fields["temperature"] = question.temperature
    if question.schema is not None:
        named = {"name": "answer", "schema": question.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": named}
    if question.wishes:
        fields["gatewright"] = question.wishes
    body = msgspec.json.encode(fields)
    head = RequestHead(
        method="POST",
        target=PATH,
        headers=((b"content-type", _JSON.encode()), (b"accept", b"*/*"), (b"user-agent", b"gw-cli")),
        http_version="1.1",
        expects_continue=False,
        content_length=len(body),
    )
    endpoint = match_endpoint("POST", PATH)
    assert isinstance(endpoint, Endpoint)  # the path is ours
    try:
        return QuestionRequest(head, read_request(endpoint, head.headers, body, config), body)
    except InvalidRequest as error:
        raise exits.Misuse(error.problem.message) from None
