"""A day of a gateway: requests that go well, and in every way wrong, one after the other."""

import json
import socket
import sys
import threading
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from attrs import frozen

from gatewright.commands import Outcome
from tests.parity import engine
from tests.support.gateway import Gateway, stream_lines, wait_until
from tests.support.upstream import Upstream

PATIENCE_S: Final = 30.0
"""A test fails by it; none waits for it."""
SECRET: Final = "whispered"
"""In every prompt."""


def local_model(name: str, *contexts: int, binary: str = sys.executable) -> str:
    """A model in the configuration, with a scripted engine for each context."""
    variants = ", ".join(
        f'{{ binary = "{binary}", context = {context}, args = {{ "-S", "-E", "{engine.__file__}", '
        f'"--port", "${{PORT}}", "--context", "{context}" }} }}'
        for context in contexts
    )
    return (
        f'{{ name = "{name}", engine = presets.engines.llamacpp, connect = "http://127.0.0.1:${{PORT}}", '
        f"answer_tokens = 64, variants = {{ {variants} }} }}"
    )


@frozen
class Question:
    """A request of the scenario.

    Attributes:
        model: Asked.
        script: What the engine or provider does; see `engine.answer`.
        outcome: How it ends.
        stream: Whether events are wanted.
        answer_tokens: Limit of the answer.
    """

    model: str
    script: str
    outcome: Outcome
    stream: bool = False
    answer_tokens: int = 8

    @property
    def body(self) -> dict[str, Any]:
        """Of the request."""
        message = {"role": "user", "content": f"{self.script} {SECRET}"}
        return {
            "model": self.model,
            "messages": [message],
            "max_tokens": self.answer_tokens,
            "stream": self.stream,
        }


# Failing providers have a name each, so that what is learnt of one does not concern the others.
PROVIDERS: Final = MappingProxyType(
    {
        "far": "parallel = 1",
        "picky": "",
        "failing": "retries = 1",
        "silent": "retries = 1",
        "broken": "retries = 1",
        "unlucky": 'retries = 0, fallbacks = { "far" }',
        "leaky": 'retries = 0, fallbacks = { "far" }',
        "vanishing": "",
        "fine": "retries = 0, quality = 0.9, input_per_million = 10, output_per_million = 10",
        "plain": "retries = 0, quality = 0.5, input_per_million = 1, output_per_million = 1",
        "spent": "input_per_million = 10, output_per_million = 10",
    }
)
"""Models of the test's own upstream, and what the configuration says of them."""
CHOICES: Final = """
routes = { auto = {
  candidates = { "fine", "plain" },
  weights = { quality = 1 },
  fallback = { strategies = { "next_in_ranking", "cheaper" } },
} }
budgets = {
  { name = "all", limit = 10 },
  { name = "spent", per = "model", of = "spent", limit = 0.00001 },
  { name = "fine", per = "model", of = "fine", limit = 0.0005 },
}
"""
"""A route, and budgets: a large one, one that allows nothing, and one that allows a short answer of the better model."""
QUESTIONS: Final = (
    Question("local", "plain", Outcome.ANSWERED),
    Question("local", "plain", Outcome.ANSWERED, stream=True),
    Question("far", "plain", Outcome.ANSWERED),
    Question("far", "plain", Outcome.ANSWERED, stream=True),
    Question("local", "overflow", Outcome.ANSWERED, stream=True),
    Question("local", "plain", Outcome.ANSWERED),  # by the larger engine, which runs now
    Question("nobody", "plain", Outcome.FAILED),
    Question("missing", "plain", Outcome.FAILED),
    Question("picky", "bad", Outcome.UPSTREAM_ERROR),
    Question("local", "bad", Outcome.UPSTREAM_ERROR, stream=True),
    Question("failing", "failing", Outcome.FAILED),
    Question("unlucky", "elsewhere", Outcome.ANSWERED),
    Question("leaky", "repeated", Outcome.ANSWERED, stream=True),
    Question("local", "mended", Outcome.ANSWERED, stream=True),
    Question("silent", "silent", Outcome.FAILED),
    Question("broken", "broken", Outcome.BROKE_OFF, stream=True),
    Question("local", "silent", Outcome.FAILED, stream=True),
    Question("local", "broken", Outcome.BROKE_OFF, stream=True),
    Question("local", "plain", Outcome.ANSWERED),
    Question("dead", "plain", Outcome.FAILED),
    Question("spent", "plain", Outcome.FAILED),
    # These cost what is reserved for them: what the store warns of does not depend on whether they are settled already.
    Question("auto", "plain", Outcome.ANSWERED, answer_tokens=9),
    Question("auto", "plain", Outcome.ANSWERED, answer_tokens=1000),  # more than the budget of "fine" allows
    Question("auto", "plain", Outcome.ANSWERED, stream=True, answer_tokens=9),
    Question("auto", "failing", Outcome.FAILED),
)
VANISHING: Final = Question("vanishing", "held", Outcome.CANCELED, stream=True)
HOLDING: Final = Question("far", "held", Outcome.ANSWERED, stream=True)
WAITING: Final = Question("far", "plain", Outcome.ANSWERED)
ALL: Final = (*QUESTIONS, VANISHING, HOLDING, WAITING)
"""In the order in which they come."""


class Scenario:
    """The models of the configuration, and what is asked of them; use it as a context manager.

    Args:
        trace: File that the gateway records to.

    Attributes:
        models: Members of `models`, in Lua.
    """

    def __init__(self, trace: Path) -> None:
        self._trace = trace
        self._go = threading.Event()
        self._provider = Upstream(self._provide)
        dead = (
            '{ name = "dead", engine = presets.engines.openai, connect = "http://127.0.0.1:1", retries = 1 }'
        )
        self.models = (
            local_model("local", 4096, 16384),
            local_model("missing", 4096, binary="/nowhere/engine"),
            *(self._provider.lua(name, extra) for name, extra in PROVIDERS.items()),
            dead,
        )

    def __enter__(self) -> Self:
        self._provider.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._go.set()
        self._provider.__exit__(kind, error, traceback)

    def _provide(self, connection: socket.socket, head: bytes, body: bytes) -> None:  # noqa: ARG002  # an upstream's
        for piece in engine.answer(json.loads(body), 128_000, self._go.wait):
            connection.sendall(piece)
        if engine.breaks_off(json.loads(body)):
            connection.shutdown(socket.SHUT_RDWR)

    # --- the questions

    def play(self, gateway: Gateway) -> None:
        """Ask everything: each question once the one before has ended, but for one that waits in the queue."""
        for number, question in enumerate(QUESTIONS, 1):
            _ask(gateway, question)
            self._wait_for("RecordRequest", number)
        with stream_lines(gateway, VANISHING.body) as response:
            response.read(1)
        self._wait_for("RecordRequest", len(QUESTIONS) + 1)
        with stream_lines(gateway, HOLDING.body) as response:
            response.read(1)
            news = self._count("event", "LeaseProgress")
            waiting = threading.Thread(target=_ask, args=(gateway, WAITING))
            waiting.start()
            self._wait_for("LeaseProgress", news + 1, place="event")
            self._go.set()
            response.read()
        waiting.join(PATIENCE_S)
        self._wait_for("RecordRequest", len(ALL))

    def _wait_for(self, message: str, number: int, place: str = "commands") -> None:
        """Wait until the Gateway's trace has so many lines with this message."""
        wait_until(lambda: self._count(place, message) >= number, f"{number} {message}", PATIENCE_S)

    def _count(self, place: str, message: str) -> int:
        lines = self._trace.read_bytes().splitlines() if self._trace.exists() else []
        return sum(b'"machine":"gateway"' in line and _speaks_of(line, place, message) for line in lines)


def _speaks_of(line: bytes, place: str, message: str) -> bool:
    """Whether the event or the commands of a line are, or hold, such a message."""
    event, _, commands = line.partition(b',"commands":')
    return f'{{"{message}"'.encode() in (event if place == "event" else commands)


def _ask(gateway: Gateway, question: Question) -> None:
    with suppress(HTTPException, OSError):  # an answer may break off
        gateway.request("POST", "/v1/chat/completions", question.body)
