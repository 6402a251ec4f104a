"""An upstream that keeps books: every question has a number, and says itself what its answer takes."""

import json
import socket
import threading
import time
from collections import Counter
from typing import Any, Final

from attrs import frozen

from tests.support.upstream import STREAM_HEAD, Upstream, chunked, reply

PROMPT_TOKENS: Final = 11
"""Of every question: four bytes each, which is what the gateway takes for granted before it has learnt anything."""
WORD: Final = "one "
"""A token of the answer; as long as a token is by estimate."""
_PROMPT_BYTES: Final = 4 * PROMPT_TOKENS - len("user")


@frozen(kw_only=True)
class Question:
    """What is asked.

    Attributes:
        number: Its own.
        tokens: Of the answer.
        most: Limit on that, as the request names it.
        delay_ms: Time until the answer begins.
        stream: Whether events are wanted.
        tells_usage: Whether a stream is to tell its tokens.
        waits: The stream stops after its tokens, until nobody listens any more.
    """

    number: int
    tokens: int
    most: int
    delay_ms: int = 0
    stream: bool = False
    tells_usage: bool = False
    waits: bool = False

    def body(self, model: str) -> dict[str, Any]:
        """Of the request."""
        text = f"{self.number} {self.tokens} {self.delay_ms} {self.waits:d}".ljust(_PROMPT_BYTES)
        assert len(text) == _PROMPT_BYTES
        message = {"role": "user", "content": text}
        body = {"model": model, "messages": [message], "max_tokens": self.most, "stream": self.stream}
        if self.stream and self.tells_usage:
            body["stream_options"] = {"include_usage": True}
        return body


class Meter:
    """The books, and how to serve as an `Upstream`.

    Attributes:
        served: Tokens of each question, the prompt included, as far as they were sent.
        under_way: Numbers of questions that are being answered.
    """

    def __init__(self) -> None:
        self.served: Counter[int] = Counter()
        self.under_way: set[int] = set()
        self._lock = threading.Lock()

    def upstream(self) -> Upstream:
        """Serves with these books."""
        return Upstream(self._serve)

    def _serve(self, connection: socket.socket, head: bytes, body: bytes) -> None:  # noqa: ARG002  # an upstream's
        asked = json.loads(body)
        number, tokens, delay_ms, waits = map(int, asked["messages"][-1]["content"].split())
        with self._lock:
            self.under_way.add(number)
        try:
            time.sleep(delay_ms / 1000)
            usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens}
            if asked.get("stream"):
                tells_usage = bool(asked.get("stream_options", {}).get("include_usage"))
                self._stream(connection, number, tokens, usage if tells_usage else None, waits=bool(waits))
            else:
                self._count(number, PROMPT_TOKENS + tokens)
                connection.sendall(_document(WORD * tokens, usage))
        finally:
            with self._lock:
                self.under_way.discard(number)

    def _stream(
        self,
        connection: socket.socket,
        number: int,
        tokens: int,
        usage: dict[str, int] | None,
        *,
        waits: bool,
    ) -> None:
        self._count(number, PROMPT_TOKENS)
        connection.sendall(STREAM_HEAD + chunked(_event({"role": "assistant", "content": ""})))
        for _ in range(tokens):
            self._count(number, 1)
            connection.sendall(chunked(_event({"content": WORD})))
        if waits:
            while connection.recv(4096):
                pass
            raise ConnectionResetError
        connection.sendall(chunked(_event({}, finish="stop")))
        if usage is not None:
            connection.sendall(chunked(_data({"choices": [], "usage": usage})))
        connection.sendall(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _count(self, number: int, tokens: int) -> None:
        with self._lock:
            self.served[number] += tokens


def _document(text: str, usage: dict[str, int]) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return reply(json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode())


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    # As long as those of the large providers are.
    frame = {
        "id": "chatcmpl-BudgetRaceBudgetRaceBudget",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "meter-2026-01-01",
        "system_fingerprint": "fp_0123456789",
    }
    return _data(
        {**frame, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
    )


def _data(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(document).encode()
