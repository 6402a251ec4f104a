"""Joins a further attempt at an answer to what its client has of the first.

To the client it is one answer: the id stays, the role is not said twice, and nothing of the text is.
"""

from typing import Any, Final

import msgspec

from gatewright.api.facts import ApiFormat, Continuation
from gatewright.wire.json_text import read_object
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.sse import event_data, split_events

MIN_REPEATED_CHARACTERS: Final = 16
"""A shorter beginning that comes again is taken for a part of the answer."""

_REASONING: Final = ("reasoning_content", "reasoning")
_BESIDE_TEXT: Final = frozenset(("role", "name", "reasoning_details"))
"""Members of a delta that say nothing by themselves."""


class Splice:
    """The events of a further attempt, made to follow those that were sent.

    Args:
        sent: What the client has.
        continuation: How the upstream was asked for the rest.
        format: CHAT or COMPLETION.

    Attributes:
        difference: In what an answer that was to begin anew is not the one that was sent; "" if in nothing so far. Once
            it is set, nothing passes.
    """

    def __init__(self, sent: SentAnswer, continuation: Continuation, format: ApiFormat) -> None:  # noqa: A002 - as in facts
        self.difference = ""
        self._is_chat = format is ApiFormat.CHAT
        self._text_name = "content" if self._is_chat else "text"
        self._names = {
            name: value
            for name, value in (("id", sent.id), ("created", sent.created), ("object", sent.object))
            if value is not None
        }
        must_repeat = continuation is Continuation.REPEAT
        self._reasoning = _Rest(sent.reasoning if must_repeat else "")
        self._text = _Rest(sent.text if must_repeat else "")
        self._has_text = self._text.is_left
        # Who is asked by a last message alone may begin anew all the same.
        may_repeat = continuation is Continuation.ASSISTANT and len(sent.text) >= MIN_REPEATED_CHARACTERS
        self._beginning = _Rest(sent.text if may_repeat else "")
        self._held: dict[str, Any] = {}  # the last chunk of a beginning that came again

    @property
    def _is_comparing(self) -> bool:
        return self._reasoning.is_left or self._text.is_left

    def feed(self, block: bytes) -> bytes:
        """Whole events of the attempt; what of them the client gets."""
        passed = []
        for event in split_events(block):
            joined = self._join(event)
            if self.difference:
                break
            passed.append(joined)
        return b"".join(passed)

    def _join(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None:
            return b"" if self._is_comparing else event
        chunk = read_object(data)
        if chunk is not None:
            return self._join_chunk(chunk)
        if self._is_comparing:  # [DONE], or a piece of an event that is too large to be held
            self._differ("ends earlier")
        return self._release() + event

    def _join_chunk(self, chunk: dict[str, Any]) -> bytes:
        was_comparing = self._is_comparing
        chunk.update(self._names)
        choices = chunk.get("choices")
        kept = []
        if isinstance(choices, list):
            kept = [choice for choice in choices if isinstance(choice, dict) and self._keep(choice)]
            chunk["choices"] = kept
        if not kept and (was_comparing or (choices and not chunk.get("usage"))):
            return b""
        return self._watch(chunk, kept) if self._beginning.is_left else _encode(chunk)

    def _keep(self, choice: dict[str, Any]) -> bool:
        """Take out of a choice what the client has; whether something is left of it."""
        delta = choice.get("delta") if self._is_chat else choice
        if not isinstance(delta, dict):
            delta = {}
        delta.pop("role", None)
        if self._is_comparing:
            self._compare(choice, delta)
        return bool(choice.get("finish_reason") or delta.get(self._text_name)) or (
            self._is_chat and any(value for name, value in delta.items() if name not in _BESIDE_TEXT)
        )

    # --- an answer that begins anew

    def _compare(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        reasoning = next((name for name in _REASONING if delta.get(name)), None)
        if reasoning is not None:
            self._cut_reasoning(delta, delta[reasoning])
        if self._is_comparing and not self.difference and delta.get(self._text_name):
            self._cut_text(delta, delta[self._text_name])
        if self.difference or not self._is_comparing:
            return
        if choice.get("finish_reason"):
            self._differ("ends earlier")
        elif self._is_chat and any(value for name, value in delta.items() if name not in _BESIDE_TEXT):
            self._differ("does something else")

    def _cut_reasoning(self, delta: dict[str, Any], new: Any) -> None:
        left = self._reasoning.left
        if not self._reasoning.take(new) or (self._has_text and len(new) > left):
            self._differ("thinks something else")
            return
        delta.pop("reasoning_details", None)
        for name in _REASONING:  # some send the same under both names
            if isinstance(delta.get(name), str):
                delta[name] = delta[name][left:]

    def _cut_text(self, delta: dict[str, Any], new: Any) -> None:
        left = self._text.left
        if self._reasoning.is_left or not self._text.take(new):
            self._differ("says something else")
            return
        delta[self._text_name] = new[left:]

    def _differ(self, how: str) -> None:
        self.difference = f"the other answer {how} than the one that broke off"

    # --- an answer that was to go on, but may begin anew

    def _watch(self, chunk: dict[str, Any], kept: list[dict[str, Any]]) -> bytes:
        """Hold text back as long as it is that of the beginning, and drop it if all of the beginning came again.

        An answer that goes on in its own words is not held back at all.
        """
        text = _only_text(kept)
        if text is None:
            # Nothing is decided by what is no text; but nothing overtakes the text that is held back.
            return (self._release() if self._beginning.at else b"") + _encode(chunk)
        left = self._beginning.left
        is_end = bool(kept[0].get("finish_reason"))
        if (is_end and len(text) < left) or not self._beginning.take(text):
            return self._release() + _encode(chunk)
        if len(text) < left:
            self._held = chunk
            return b""
        kept[0]["delta"]["content"] = text[left:]
        return _encode(chunk) if is_end or len(text) > left else b""

    def _release(self) -> bytes:
        """What was held back, as one chunk; from now on everything passes."""
        text = self._beginning.taken if self._beginning.is_left else ""
        self._beginning = _Rest("")
        if not text:
            return b""
        self._held["choices"][0]["delta"]["content"] = text
        return _encode(self._held)


class _Rest:
    """A text that is to come again, piece by piece.

    Args:
        text: The text.

    Attributes:
        at: Characters that have come.
        left: Characters that have not.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0
        self.left = len(text)

    @property
    def is_left(self) -> bool:
        """Whether some of it has not come yet."""
        return self.left > 0

    @property
    def taken(self) -> str:
        """What of it has come."""
        return self._text[: self.at]

    def take(self, new: Any) -> bool:
        """Whether the next piece is of this text; it may go on beyond its end."""
        if not isinstance(new, str):
            return False
        if len(new) <= self.left:
            if not self._text.startswith(new, self.at):
                return False
        elif not new.startswith(self._text[self.at :]):
            return False
        self.at = min(self.at + len(new), len(self._text))
        self.left = len(self._text) - self.at
        return True


def _only_text(choices: list[dict[str, Any]]) -> str | None:
    """The text of a chunk of chat that holds text and nothing else, but perhaps its end."""
    delta = choices[0].get("delta") if len(choices) == 1 else None
    if not isinstance(delta, dict) or any(value for name, value in delta.items() if name != "content"):
        return None
    text = delta.get("content")
    return text if isinstance(text, str) and text else None


def _encode(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
