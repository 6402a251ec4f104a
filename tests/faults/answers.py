"""Answers of OpenAI's API, of a model that knows one text by heart."""

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen

from tests.faults.behaviours import Behaviour

CREATED: Final = 1_700_000_000
EMBEDDING_SIZE: Final = 8

CHAT: Final = "/v1/chat/completions"
COMPLETION: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"


def tokens_of(words: int, letter: str = "w") -> list[str]:
    """The tokens of the text: `w0`, ` w1`, ` w2`, ..."""
    return [f"{' ' if number else ''}{letter}{number}" for number in range(words)]


def text_of(words: int, letter: str = "w") -> str:
    """The text: `w0 w1 w2 ...`."""
    return "".join(tokens_of(words, letter))


def rest_of(tokens: list[str], prefix: str) -> list[str]:
    """The tokens behind a beginning of the text; all of them if it is none."""
    if not "".join(tokens).startswith(prefix):
        return tokens
    rest = []
    for token in tokens:
        if len(prefix) < len(token):
            rest.append(token[len(prefix) :])
        prefix = prefix[len(token) :]
    return rest


def _plain(content: Any) -> str:
    """The text of a message's content or of a prompt."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in parts)


def _prefilled(path: str, body: dict[str, Any], text: str) -> str:
    """What the client has of the answer already: an assistant's message at the end, or the end of a prompt."""
    if path == CHAT:
        last = (body.get("messages") or [{}])[-1]
        return _plain(last.get("content")) if last.get("role") == "assistant" else ""
    prompt = _plain(body.get("prompt"))
    ends = (text[:length] for length in range(len(text), 0, -1))
    return next((end for end in ends if prompt.endswith(end)), "")


def _prompt_tokens(body: dict[str, Any]) -> int:
    texts = [_plain(message.get("content")) for message in body.get("messages") or ()]
    texts += [_plain(body.get(name)) for name in ("prompt", "input")]
    return max(1, sum(len(text.split()) for text in texts))


@frozen
class Reply:
    """The answer to one request, in pieces.

    Attributes:
        document: The whole as it is sent when nothing is streamed.
        tokens: Its text.
        streamed: Whether the client asked for a stream.
        opening: The event before the first token, where the API has one.
        token_events: The events of the tokens.
        closing: The events after the last token, without `[DONE]`.
    """

    document: bytes
    tokens: tuple[str, ...]
    streamed: bool
    opening: tuple[bytes, ...]
    token_events: tuple[bytes, ...]
    closing: tuple[bytes, ...]

    def cut_at(self, tokens: int) -> int:
        """How much of the document holds just so many tokens."""
        at = self.document.find(b'"%b"' % "".join(self.tokens).encode()) if self.tokens else -1
        return at + 1 + len("".join(self.tokens[:tokens])) if at >= 0 else len(self.document) // 2


def make_reply(
    number: int, path: str, body: dict[str, Any], behaviour: Behaviour, words: int, *, honours_limit: bool
) -> Reply:
    """The answer of a model that behaves so; `number` makes its id."""
    if path == EMBEDDINGS:
        return Reply(_embeddings(body), (), streamed=False, opening=(), token_events=(), closing=())
    tokens = tokens_of(words, behaviour.letter)
    prefix = _prefilled(path, body, "".join(tokens))
    tokens = rest_of(tokens, prefix) if behaviour.content else []
    finish: str | None = "stop"
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if honours_limit and limit is not None and limit < len(tokens):
        tokens, finish = tokens[:limit], "length"
    if not behaviour.finish:
        finish = None
    shapes = _Shapes(number, path, body, len(tokens))
    return Reply(
        document=shapes.document("".join(tokens), finish),
        tokens=tuple(tokens),
        streamed=body.get("stream") is True,
        opening=tuple(shapes.opening()),
        token_events=tuple(shapes.token(token) for token in tokens),
        closing=tuple(shapes.closing(finish)),
    )


class _Shapes:
    def __init__(self, number: int, path: str, body: dict[str, Any], tokens: int) -> None:
        self._chat = path == CHAT
        self._choices = range(body.get("n") or 1)
        self._calls_tool = self._chat and body.get("tool_choice") == "required"
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._common = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{number}",
            "created": CREATED,
            "model": body.get("model"),
        }
        prompt = _prompt_tokens(body)
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
        }

    def document(self, text: str, finish: str | None) -> bytes:
        choice: dict[str, Any] = {"finish_reason": self._finish(finish), "logprobs": None}
        if self._calls_tool:
            choice["message"] = {"role": "assistant", "content": None, **_tool_call(text, **_CALLED)}
        elif self._chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        choices = [{"index": index, **choice} for index in self._choices]
        kind = "chat.completion" if self._chat else "text_completion"
        return json.dumps({**self._common, "object": kind, "choices": choices, "usage": self._usage}).encode()

    def opening(self) -> Iterator[bytes]:
        if self._chat:
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        if self._calls_tool:
            yield self._chunk(_tool_call("", **_CALLED))

    def token(self, text: str) -> bytes:
        if self._calls_tool:
            return self._chunk(_tool_call(text))
        return self._chunk({"content": text} if self._chat else text)

    def closing(self, finish: str | None) -> Iterator[bytes]:
        if finish is not None:
            yield self._chunk({} if self._chat else "", self._finish(finish))
        if self._wants_usage:
            yield self._event(choices=[], usage=self._usage)

    def _finish(self, finish: str | None) -> str | None:
        return "tool_calls" if self._calls_tool and finish == "stop" else finish

    def _chunk(self, piece: Any, finish: str | None = None) -> bytes:
        """An event for each of the answers."""
        name = "delta" if self._chat else "text"
        choice = {name: piece, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._wants_usage else {}
        return b"".join(self._event(choices=[{"index": each, **choice}], **usage) for each in self._choices)

    def _event(self, **fields: Any) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return event(json.dumps({**self._common, "object": kind, **fields}).encode())


_CALLED: Final = {"id": "call_1", "type": "function", "name": "say"}


def _tool_call(arguments: str, **more: str) -> dict[str, Any]:
    """A call of a tool, or a piece of it: the text stands in the place of its arguments."""
    function = {"arguments": arguments, **({"name": more.pop("name")} if more else {})}
    return {"tool_calls": [{"index": 0, **more, "function": function}]}


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + b"\n\n"


def _embeddings(body: dict[str, Any]) -> bytes:
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    data = []
    for index, text in enumerate(texts):
        vector = [((len(str(text)) * 7 + place * 13) % 32) / 32 for place in range(EMBEDDING_SIZE)]
        packed = base64.b64encode(struct.pack(f"<{EMBEDDING_SIZE}f", *vector)).decode()
        is_packed = body.get("encoding_format") == "base64"
        data.append({"object": "embedding", "index": index, "embedding": packed if is_packed else vector})
    tokens = _prompt_tokens(body)
    return json.dumps(
        {
            "object": "list",
            "data": data,
            "model": body.get("model"),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    ).encode()


def models(names: list[str]) -> bytes:
    """The list of models."""
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "faults"} for name in names]
    return json.dumps({"object": "list", "data": data}).encode()
