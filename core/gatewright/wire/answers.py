"""What the JSON of an answer says about its end, its tokens and its errors, for each API format.

Nothing here trusts a shape: a document that is not as expected teaches nothing, and the relay goes on.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gatewright.api.facts import ApiFormat, Usage
from gatewright.wire.json_text import read_object

_MOST_TOKENS: Final = 2**53
"""What an upstream may say; beyond this a float no longer holds every whole number."""


class _Choice(msgspec.Struct):
    finish_reason: Any = None
    index: Any = 0


class _OpenAiDocument(msgspec.Struct):
    """A chunk or whole answer of chat and text completions, of llama-server's own format, of embeddings."""

    choices: list[_Choice] | None = None
    usage: Any = None
    timings: Any = None
    error: Any = None
    stop: Any = None
    stop_type: Any = None
    index: Any = 0
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
    error: Any = None


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


class _Bare(msgspec.Struct):
    """What tells an error, whatever else a document holds."""

    type: Any = None
    object: Any = None
    error: Any = None


_OPENAI: Final = msgspec.json.Decoder(_OpenAiDocument)
_OPENAI_LIST: Final = msgspec.json.Decoder(list[_OpenAiDocument])
_ANTHROPIC: Final = msgspec.json.Decoder(_AnthropicDocument)
_RESPONSES: Final = msgspec.json.Decoder(_ResponsesDocument)
_BARE: Final = msgspec.json.Decoder(_Bare)
_RESPONSE_ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed"))
_STOP_TYPES: Final = {"eos": "stop", "word": "stop", "limit": "length"}
_ERROR_TYPES: Final = ("error", "response.failed")

_TELLING: Final = 1
"""An object that says more than some words of the answer."""
_SUSPECT: Final = 2
"""One that is an error or may be one, and has to be looked at as a whole."""


class AnswerReader:
    """Collects what the documents of one answer say.

    Args:
        format: How to read them.
        choices: Answers side by side that are awaited.

    Attributes:
        format: How to read them.
        usage: Tokens, None while unknown.
        finish_reason: As the upstream put it, None while unknown.
        complete: The mark that ends answers of this format was seen, for each of the choices.
        saw_error: The answer holds an error.
    """

    def __init__(self, format: ApiFormat, choices: int = 1) -> None:  # noqa: A002 - the word that facts use
        self.format = format
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.complete = format is ApiFormat.OTHER
        self.saw_error = False
        self._choices = choices
        self._finished: set[object] = set()
        self._counts: dict[str, Any] = {}
        self._decoder, self._weigh = _READING[format]

    def learn(self, document: bytes) -> bool:
        """Read one JSON document; False if it is none, or has not the shape of its format."""
        try:
            found = self._decoder.decode(document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._learn_odd(document)
        if self._weigh(found) == _SUSPECT:
            self._learn_bare(document)
        self._learn_from(found)
        return True

    def learn_lines(self, lines: bytes, count: int) -> bool:
        """Read documents of one line each; False, and nothing learnt, if they are not just that and free of errors.

        Args:
            lines: Separated by line feeds. A line feed is nowhere within a JSON string, and documents follow each other
                without a comma nowhere within an array: lines that are no JSON by themselves are none together either.
            count: Number of documents.
        """
        try:
            found = [self._decoder.decode(lines)] if count == 1 else self._decoder.decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if len(found) != count:
            return False
        telling = []
        for document in found:
            weight = self._weigh(document)
            if weight:
                if weight == _SUSPECT:
                    return False
                telling.append(document)
        for document in telling:
            self._learn_from(document)
        return True

    def _learn_from(self, document: Any) -> None:
        """Take what a decoded object says, but for errors."""
        match self.format:
            case ApiFormat.MESSAGES:
                self._learn_anthropic(document)
            case ApiFormat.RESPONSES:
                self._learn_responses(document)
            case _:
                self._learn_openai(document)

    def _learn_odd(self, document: bytes) -> bool:
        """A list of answers, JSON that only others take for JSON, or an error in some other shape."""
        try:
            if self._decoder is _OPENAI and document.lstrip().startswith(b"["):
                for each in _OPENAI_LIST.decode(document):
                    self.saw_error = self.saw_error or bool(each.error)
                    self._learn_from(each)
                return True
            found = read_object(document)
            if found is not None:
                self.saw_error = (
                    self.saw_error or bool(found.get("error")) or found.get("type") in _ERROR_TYPES
                )
                self._learn_from(msgspec.convert(found, self._decoder.type))
                return True
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        return self.saw_error

    def _learn_bare(self, document: bytes) -> None:
        """See whether an object is an error; vLLM's older ones have no member of that name."""
        bare = _BARE.decode(document)
        match self.format:
            case ApiFormat.CHAT | ApiFormat.COMPLETION:
                is_error = bool(bare.error) or bare.object == "error"
            case ApiFormat.OTHER:
                # A job or batch that names its type tells of an error that it once had.
                is_error = bool(bare.error) and bare.object in (None, "error")
            case _:
                is_error = bool(bare.error) or bare.type in _ERROR_TYPES
        self.saw_error = self.saw_error or is_error

    def _learn_openai(self, document: _OpenAiDocument) -> None:
        if not self.saw_error:  # with an error comes a reason that ends nothing well
            for choice in document.choices or ():
                if choice.finish_reason:
                    self._finish(choice.finish_reason, choice.index)
            if document.stop is True:
                self._finish(_STOP_TYPES.get(str(document.stop_type), "stop"), document.index)
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
        if document.type == "message_stop":
            self.complete = True
        for part in (document, document.message, document.delta):
            if part is not None:
                if isinstance(part.stop_reason, str):
                    self.finish_reason = part.stop_reason
                if isinstance(part.usage, dict):
                    self._count(part.usage)

    def _learn_responses(self, document: _ResponsesDocument) -> None:
        if document.type in _RESPONSE_ENDS and not self.saw_error:
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

    def _finish(self, reason: object, index: object) -> None:
        if isinstance(reason, str):
            self.finish_reason = reason
            self._finished.add(index if isinstance(index, int) else 0)
            if len(self._finished) >= self._choices:
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


# What an object is good for, told without a second look at most of them.


def _weigh_choices(document: _OpenAiDocument) -> int:
    if document.choices is None or document.error:
        return _SUSPECT
    if document.usage or document.timings or document.stop:
        return _TELLING
    for choice in document.choices:
        if choice.finish_reason:
            return _TELLING
    return 0


def _weigh_other(document: _OpenAiDocument) -> int:
    if document.error:
        return _SUSPECT
    return _TELLING if document.stop or document.usage or document.timings or document.choices else 0


def _weigh_anthropic(document: _AnthropicDocument) -> int:
    if document.error or document.type == "error":
        return _SUSPECT
    return 0 if document.type == "content_block_delta" else _TELLING


def _weigh_responses(document: _ResponsesDocument) -> int:
    if document.error or document.type in _ERROR_TYPES:
        return _SUSPECT
    return _TELLING if document.response or document.usage or document.timings or document.status else 0


_READING: Final[dict[ApiFormat, tuple[msgspec.json.Decoder[Any], Callable[[Any], int]]]] = {
    ApiFormat.CHAT: (_OPENAI, _weigh_choices),
    ApiFormat.COMPLETION: (_OPENAI, _weigh_choices),
    ApiFormat.RESPONSES: (_RESPONSES, _weigh_responses),
    ApiFormat.MESSAGES: (_ANTHROPIC, _weigh_anthropic),
    ApiFormat.NATIVE: (_OPENAI, _weigh_other),
    ApiFormat.OTHER: (_OPENAI, _weigh_other),
}


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
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(0, value), _MOST_TOKENS)
