"""A gateway between a client and upstreams that fail, and what the client sees of it.

A file of tests says in `KINDS` what models there are, as fields of their configuration; of each kind there are as many
as tests want, and each is good for one story: `world.model(KIND, FAULT)` is one that nobody has called, with an upstream
model of its own at the `FaultUpstream`. So no two stories share a circuit; and all share the credential that there is not,
unless their kind names one.
"""

import http.client
import itertools
import json
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any, Final

from attrs import define, field, frozen

from tests.faults.behaviours import Past, read_fault
from tests.faults.upstream import FaultUpstream, Request, text_of
from tests.support.gateway import Gateway, wait_until
from tests.support.gunicorn import GunicornGateway

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
TEXT: Final = text_of(20)
HANGS_S: Final = 20.0
"""A client that has heard nothing for so long has been forgotten."""
SHORT: Final = "timeouts = { first_token = 0.5, head = 0.5, between_chunks = 0.5 }"
"""For models whose upstream is silent; the others keep the usual limits, so that a busy machine fails no test."""

TRANSPORTS: Final[Mapping[str, Callable[..., Gateway]]] = {
    "gw-server": Gateway,
    "gunicorn": lambda *models, **others: GunicornGateway(*models, workers=2, threads=12, **others),
}


MODELS_OF_A_KIND: Final = 80
AT_ONCE: Final = 20
"""Stories at a time, fewer than gunicorn has threads for."""

Story = Callable[..., None]
"""What a world lives through."""
Test = Callable[["World"], None]
"""It as pytest sees it."""


@frozen(kw_only=True)
class Answer:
    """What a client got.

    Attributes:
        status: HTTP status.
        headers: By name in lower case.
        body: All of it, as far as it came.
        is_whole: Whether it came to its end, as far as HTTP knows.
        seconds: How long it took.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool
    seconds: float

    @property
    def model(self) -> str:
        """Who answered, as the headers say."""
        return self.headers["x-gw-model"]

    @property
    def calls(self) -> int:
        """Calls to upstreams, as the headers say."""
        return int(self.headers["x-gw-attempts"])

    @property
    def is_stream(self) -> bool:
        """Whether it came in events."""
        return self.headers["content-type"].startswith("text/event-stream")

    @cached_property
    def events(self) -> list[bytes]:
        """The data of all events; comments are none."""
        found = []
        for event in self.body.split(b"\n\n"):
            lines = [line for line in event.split(b"\n") if line and not line.startswith(b":")]
            assert all(line.startswith(b"data: ") for line in lines), event
            if lines:
                found.append(b"\n".join(line[6:] for line in lines))
        return found

    @property
    def comments(self) -> list[bytes]:
        """Lines that clients skip."""
        return [line for line in self.body.split(b"\n") if line.startswith(b":")]

    @cached_property
    def documents(self) -> list[Any]:
        """What was sent as JSON."""
        if not self.is_stream:
            return [json.loads(self.body)]
        return [json.loads(data) for data in self.events if data != b"[DONE]"]

    @property
    def chunks(self) -> list[Any]:
        """The same without an error."""
        return [document for document in self.documents if not document.get("error")]

    @property
    def choices(self) -> list[Any]:
        """All that the model said, piece by piece."""
        return [choice for chunk in self.chunks for choice in chunk["choices"]]

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(_text_of(choice) for choice in self.choices)

    @property
    def error(self) -> Any:
        """What is the matter, None if nothing is."""
        return self.documents[-1].get("error") if self.documents else None

    @property
    def usage(self) -> Any:
        """Tokens as the last document that counts them has it."""
        return next((found["usage"] for found in reversed(self.chunks) if found.get("usage")), None)

    @property
    def attempts(self) -> list[tuple[str, str, int | None]]:
        """What was tried, as the error lists it: model, kind, status of the upstream."""
        listed = self.error.get("attempts", [])
        return [(each["model"], each["kind"], each["upstream_status"]) for each in listed]

    def assert_good(self, text: str = TEXT) -> None:
        """It is one whole answer without a seam.

        Args:
            text: The answer.
        """
        assert self.status == 200, (self.status, self.body)
        assert self.is_whole
        assert self.error is None, self.error
        assert self.text == text
        reasons = [choice["finish_reason"] for choice in self.choices if choice["finish_reason"]]
        assert reasons == ["stop"]
        assert len({chunk["id"] for chunk in self.chunks}) == 1
        assert len({chunk["created"] for chunk in self.chunks}) == 1
        assert len({chunk["object"] for chunk in self.chunks}) == 1
        if self.is_stream:
            assert self.events[-1] == b"[DONE]"
            assert self.events.count(b"[DONE]") == 1
            roles = [choice for choice in self.choices if choice.get("delta", {}).get("role")]
            assert len(roles) == ("chat" in self.chunks[0]["object"])

    def assert_broken(self, beginning: str = "", text: str = TEXT) -> None:
        """It is a stream that ends with an error, and a client sees that.

        Args:
            beginning: The least that had come.
            text: What it would have been.
        """
        assert self.status == 200
        assert self.is_stream
        assert self.error is not None, self.body
        assert self.error["message"]
        assert [document for document in self.documents if document.get("error")] == [self.documents[-1]]
        assert b"[DONE]" not in self.events
        assert self.text.startswith(beginning)
        assert text.startswith(self.text)

    def assert_failed(self, status: int) -> None:
        """It is an error, and not the beginning of anything."""
        assert self.status == status, (self.status, self.body)
        assert self.is_whole
        assert not self.is_stream
        assert self.error["message"]


def _text_of(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return str(choice["text"])
    return str(choice.get("delta", choice.get("message", {})).get("content") or "")


@define
class Call:
    """An answer that is being read.

    Attributes:
        response: Its head, and where the rest comes from.
        received: What was read of its body.
    """

    response: http.client.HTTPResponse
    _started: float
    received: bytes = b""
    is_whole: bool = False
    _connection: http.client.HTTPConnection = field(kw_only=True)

    def read_until(self, mark: bytes) -> None:
        """Read on until this has come."""
        while mark not in self.received:
            piece = self.response.read1(65536)
            assert piece, f"it ended before {mark!r}: {self.received!r}"
            self.received += piece

    def read_all(self) -> None:
        """Read to the end."""
        try:
            while piece := self.response.read1(65536):
                self.received += piece
            # `read1` takes a body that is too short for a whole one.
            self.is_whole = not self.response.length
        except (http.client.IncompleteRead, ConnectionError):
            self.is_whole = False

    @property
    def answer(self) -> Answer:
        """What has come up to now."""
        return Answer(
            status=self.response.status,
            headers={name.lower(): value for name, value in self.response.getheaders()},
            body=self.received,
            is_whole=self.is_whole,
            seconds=time.monotonic() - self._started,
        )


class World:
    """A running gateway and the upstream of its models.

    Attributes:
        gateway: The process.
        faults: The upstream.
    """

    def __init__(self, gateway: Gateway, faults: FaultUpstream, threads: ThreadPoolExecutor) -> None:
        self.gateway = gateway
        self.faults = faults
        self._numbers: dict[str, Iterator[int]] = defaultdict(itertools.count)
        self._threads = threads
        self._told: dict[str, list[Future[None]]] = {}

    def model(self, kind: str, fault: str) -> str:
        """A model of this kind that nobody has called, and whose upstream answers so."""
        number = next(self._numbers[kind])
        assert number < MODELS_OF_A_KIND
        name = _name(kind, number)
        self.faults.set(name, fault)
        return name

    @contextmanager
    def keeping_connections(self) -> Iterator[None]:
        """Meanwhile, the upstream lets connections live on after good answers."""
        self.faults.keeps_connections = True
        try:
            yield
        finally:
            self.faults.keeps_connections = False
            self.faults.close_idle()

    @contextmanager
    def begin(
        self,
        model: str,
        *,
        path: str = CHAT,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> Iterator[Call]:
        """Ask, and wait for the head of the answer; leaving hangs up."""
        asks = {"prompt": "hi"} if path == COMPLETIONS else {"messages": [{"role": "user", "content": "hi"}]}
        if members.get("stream"):
            members = {"stream_options": {"include_usage": True}, **members}
        body = json.dumps({"model": model, **asks, **members})
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=HANGS_S)
        started = time.monotonic()
        connection.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        try:
            with connection.getresponse() as response:
                yield Call(response, started, connection=connection)
        finally:
            connection.close()

    def ask(self, model: str, **more: Any) -> Answer:
        """Ask, and read the whole answer."""
        with self.begin(model, **more) as call:
            call.read_all()
            return call.answer

    def leave_early(self, model: str, **members: Any) -> None:
        """Ask, and hang up without having seen anything of an answer, as soon as the upstream was asked."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **members})
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=HANGS_S) as sock:
            sock.sendall((head + body).encode())
            before = time.monotonic()
            while not self.requests(model):
                assert time.monotonic() < before + HANGS_S, f"{model} was never asked"
                time.sleep(0.02)

    def told(self, model: str) -> bytes:
        """What its upstream answers to everything, byte by byte: an error."""
        fault = read_fault(self.faults.behaviour_of(model))
        assert fault is not None
        document = fault.behaviour(Past(1, 0.0)).document
        assert document is not None
        return document.body

    def begin_stories(self, tests: Iterable[Test]) -> None:
        """Begin to live through the stories of these tests, so that each test has only to wait for its own."""
        for test in tests:
            told = self._told[test.__name__] = []
            told.extend(self._threads.submit(story, self) for story in getattr(test, "stories", ()))

    def end_stories(self, test: str) -> None:
        """Wait until the stories of a test have come to their end, and raise what went wrong."""
        told = self._told.pop(test)
        failures = [failure for each in told if (failure := each.exception()) is not None]
        if failures:
            raise BaseExceptionGroup(f"{len(failures)} of {len(told)}", failures)

    def assert_nothing_is_left(self) -> None:
        """No call is under way, and the gateway has found no fault with itself."""
        wait_until(lambda: not self.faults.under_way, "all calls are over")
        assert "a bug" not in self.gateway.log, self.gateway.log

    def requests(self, model: str) -> list[Request]:
        """Those that came for a model."""
        return self.faults.requests_for(model)


def all_at_once(*cases: Any) -> Callable[[Story], Test]:
    """Makes one test of a story: it is lived through for each case, whole and streamed.

    Args:
        cases: What the story is told besides its world, each; it is told nothing if there are none.
    """
    told = [(case,) for case in cases] if cases else [()]

    def make_test(story: Story) -> Test:
        return _test_of(
            story, [partial(_tell, story, case, stream=way) for case in told for way in (False, True)]
        )

    return make_test


def each_at_once(*cases: Any) -> Callable[[Story], Test]:
    """The same for a story that knows itself in which way it asks."""
    told = [(case,) for case in cases] if cases else [()]

    def make_test(story: Story) -> Test:
        return _test_of(story, [partial(_tell, story, case) for case in told])

    return make_test


def _tell(story: Story, case: tuple[Any, ...], world: World, **way: bool) -> None:
    try:
        story(world, *case, **way)
    except BaseException as failure:
        failure.add_note(f"{story.__name__}: {case} {way}")
        raise


def _test_of(story: Story, stories: list[Callable[[World], None]]) -> Test:
    def test(world: World) -> None:
        world.end_stories(story.__name__)

    test.__name__, test.__doc__, test.__module__ = story.__name__, story.__doc__, story.__module__
    test.stories = stories  # type: ignore[attr-defined]
    return test


@contextmanager
def _deaf() -> Iterator[str]:
    """A port whose queue is full: who wants to connect waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as queue:
        address = listener.getsockname()
        for _ in range(2):
            waiting = queue.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"


def _name(kind: str, number: int) -> str:
    return f"{kind}_{number}"


@contextmanager
def running(
    transport: str, kinds: Mapping[str, str], models: Callable[[FaultUpstream], list[str]]
) -> Iterator[World]:
    """A gateway with models of these kinds, some others, and the one that never fails: `ok`.

    Args:
        transport: One of `TRANSPORTS`.
        kinds: By name: fields in Lua. `NAME` stands for the model's own, `DEAF` for an upstream that accepts no connection.
        models: Other models, in Lua.
    """
    # Connections that are kept would hide resets: who is reset on one is called once more on a fresh one.
    with FaultUpstream(keeps_connections=False) as faults, _deaf() as deaf_url:
        lua = [faults.lua("ok"), *models(faults)]
        for kind, extra in kinds.items():
            for number in range(MODELS_OF_A_KIND):
                name = _name(kind, number)
                faults.set(name, "ok")
                lua.append(faults.lua(name, name, extra.replace("NAME", name).replace("DEAF", deaf_url)))
        with TRANSPORTS[transport](*lua) as gateway, ThreadPoolExecutor(AT_ONCE) as threads:
            yield World(gateway, faults, threads)
