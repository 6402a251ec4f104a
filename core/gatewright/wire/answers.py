"""What the JSON of an answer says about its end, its tokens and its errors, for each API format.

Nothing here trusts a shape: a document that is not as expected teaches nothing, and the relay goes on.
"""

from typing import Any, Final

import msgspec

from gatewright.api.facts import ApiFormat, Usage


class _Choice(msgspec.Struct):
    finish_reason: Any = None


class _OpenAiDocument(msgspec.Struct):
    """A chunk or whole answer of chat and text completions, of llama-server's own format, of embeddings."""

    choices: list[_Choice] | None = None
    usage: Any = None
    timings: Any = None
    error: Any = None
    stop: Any = None
    stop_type: Any = None
    tokens_evaluated: Any = None
    tokens_predicted: Any = None


class _Message(msgspec.Struct):
    stop_reason: Any = None
    usage: Any = None


class _AnthropicDocument(msgspec.Struct):
    """An event or whole answer of Anthropic's messages."""

    type: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    stop_reason: Any = None
    usage: Any = None


class _Reason(msgspec.Struct):
    reason: Any = None


class _Response(msgspec.Struct):
    status: Any = None
    incomplete_details: _Reason | None = None
    usage: Any = None


class _ResponsesDocument(_Response):
    """An event or whole answer of OpenAI's responses."""

    type: str | None = None
    response: _Response | None = None
    error: Any = None
    timings: Any = None


_OPENAI: Final = msgspec.json.Decoder(_OpenAiDocument | list[_OpenAiDocument])
_ANTHROPIC: Final = msgspec.json.Decoder(_AnthropicDocument)
_RESPONSES: Final = msgspec.json.Decoder(_ResponsesDocument)
_RESPONSE_ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed"))
_STOP_TYPES: Final = {"eos": "stop", "word": "stop", "limit": "length"}


class AnswerReader:
    """Collects what the documents of one answer say.

    Attributes:
        format: How to read them.
        usage: Tokens, as the upstream counted them; None while it has not told.
        finish_reason: As the upstream put it.
        complete: The mark that ends an answer of this format was seen.
        saw_error: The answer holds an error.
    """

    def __init__(self, format: ApiFormat) -> None:  # noqa: A002 - the word that facts use
        self.format = format
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.complete = format is ApiFormat.OTHER
        self.saw_error = False
        self._counts: dict[str, Any] = {}

    def learn(self, document: bytes) -> bool:
        """Read one JSON document; False if it is none, or has not the shape of its format."""
        try:
            match self.format:
                case ApiFormat.MESSAGES:
                    self._learn_anthropic(_ANTHROPIC.decode(document))
                case ApiFormat.RESPONSES:
                    self._learn_responses(_RESPONSES.decode(document))
                case _:
                    found = _OPENAI.decode(document)
                    for each in found if isinstance(found, list) else (found,):
                        self._learn_openai(each)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True

    def _learn_openai(self, document: _OpenAiDocument) -> None:
        if document.error:
            self.saw_error = True
        for choice in document.choices or ():
            self._finish(choice.finish_reason)
        if document.stop is True:
            self._finish(_STOP_TYPES.get(str(document.stop_type), "stop"))
        if isinstance(document.usage, dict):
            self._count(document.usage)
        elif not self._counts:
            if isinstance(document.timings, dict):
                self.usage = _usage_of_timings(document.timings)
            elif document.tokens_evaluated is not None and document.stop is True:
                self.usage = Usage(
                    prompt_tokens=_tokens(document.tokens_evaluated),
                    completion_tokens=_tokens(document.tokens_predicted),
                )

    def _learn_anthropic(self, document: _AnthropicDocument) -> None:
        if document.type == "error":
            self.saw_error = True
        elif document.type == "message_stop":
            self.complete = True
        for part in (document, document.message, document.delta):
            if part is not None:
                if isinstance(part.stop_reason, str):
                    self.finish_reason = part.stop_reason
                if isinstance(part.usage, dict):
                    self._count(part.usage)

    def _learn_responses(self, document: _ResponsesDocument) -> None:
        if document.error or document.type in {"error", "response.failed"}:
            self.saw_error = True
        if document.type in _RESPONSE_ENDS:
            self.complete = True
        part = document.response or document
        if document.type in _RESPONSE_ENDS or document.response is None:
            reason = part.incomplete_details.reason if part.incomplete_details else part.status
            if isinstance(reason, str):
                self.finish_reason = reason
        if isinstance(part.usage, dict):
            self._count(part.usage)
        elif isinstance(document.timings, dict) and not self._counts:
            self.usage = _usage_of_timings(document.timings)

    def _finish(self, reason: object) -> None:
        if isinstance(reason, str):
            self.finish_reason = reason
            self.complete = True

    def _count(self, counts: dict[str, Any]) -> None:
        """Later counts replace earlier ones of the same name: Anthropic tells input first and output last."""
        self._counts.update({name: value for name, value in counts.items() if value is not None})
        merged = self._counts
        if self.format is ApiFormat.MESSAGES:
            # Here, and only here, `input_tokens` leaves out what came from the cache.
            cached = _tokens(merged.get("cache_read_input_tokens"))
            prompt = _tokens(merged.get("input_tokens")) + _tokens(merged.get("cache_creation_input_tokens"))
            answer = _tokens(merged.get("output_tokens"))
            self.usage = Usage(prompt_tokens=prompt + cached, completion_tokens=answer, cached_tokens=cached)
            return
        details = merged.get("prompt_tokens_details") or merged.get("input_tokens_details")
        self.usage = Usage(
            prompt_tokens=_tokens(merged.get("prompt_tokens", merged.get("input_tokens"))),
            completion_tokens=_tokens(merged.get("completion_tokens", merged.get("output_tokens"))),
            cached_tokens=_tokens(details.get("cached_tokens")) if isinstance(details, dict) else 0,
        )


def _usage_of_timings(timings: dict[str, Any]) -> Usage:
    """llama-server's own figures; its `prompt_n` leaves out what came from the cache."""
    cached = _tokens(timings.get("cache_n"))
    return Usage(
        prompt_tokens=_tokens(timings.get("prompt_n")) + cached,
        completion_tokens=_tokens(timings.get("predicted_n")),
        cached_tokens=cached,
    )


def _tokens(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
