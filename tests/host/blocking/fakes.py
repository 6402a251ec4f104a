"""What surrounds the blocking driver, in the test's hands: an engine host, upstreams on real sockets, a client."""

import contextlib
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.api.facts import ApiFormat
from gatewright.api.request import read_request
from gatewright.config import Config
from gatewright.errors import Problem
from gatewright.leases import (
    LeaseEngine,
    LeaseGranted,
    LeaseNews,
    LeasePurpose,
    LeaseRequest,
    ReleaseLease,
)
from gatewright.wire.fields import Headers
from gatewright.wire.server import RequestHead
from gatewright_host.blocking.exchange import Exchange
from gatewright_host.blocking.service import Service
from gatewright_host.blocking.sink import ClientLost
from gatewright_host.host_protocol import HostLost
from tests.support.configs import read, variant

PATIENCE_S = 20.0
"""A test fails by it; none waits for it."""

CHAT = "/v1/chat/completions"


def two_variants(**fields: Any) -> Config:
    """A model "qwen" of 4,096 and 16,384 tokens."""
    return read({"name": "qwen", "variants": [variant(), variant(context=16384)], **fields})


# --- the engine host


class FakeHost:
    """Stands for `BlockingHostClient`: records what is said, and says what the test wants said.

    Attributes:
        heard: Everything sent so far.
        grants: Base URLs by context; a lease for one of these is granted at once.
    """

    def __init__(self, grants: dict[int, str] | None = None) -> None:
        self.heard: list[LeaseRequest] = []
        self.grants = grants or {}
        self._arrived: queue.Queue[LeaseRequest] = queue.Queue()
        self._news: deque[LeaseNews] = deque()
        self._ours, self._theirs = socket.socketpair()
        self._is_dead = False

    # --- used by the test

    def next_request(self) -> LeaseRequest:
        return self._arrived.get(timeout=PATIENCE_S)

    def say(self, news: LeaseNews) -> None:
        self._news.append(news)
        self._theirs.send(b"!")

    def die(self) -> None:
        self._is_dead = True
        self._theirs.close()

    @property
    def balance(self) -> int:
        """Leases asked for and not given back."""
        asked = [each for each in self.heard if isinstance(each, LeaseEngine)]
        return len(asked) - sum(isinstance(each, ReleaseLease) for each in self.heard)

    # --- used by the link

    def fileno(self) -> int:
        return self._ours.fileno()

    def send(self, request: LeaseRequest) -> None:
        if self._is_dead:
            raise HostLost("dead")
        self.heard.append(request)
        self._arrived.put(request)
        if isinstance(request, LeaseEngine) and request.purpose is LeasePurpose.ANSWER:
            for spec in request.variants:
                if spec.context_tokens in self.grants:
                    self.grant(request, spec.context_tokens)
                    return

    def grant(self, lease: LeaseEngine, context_tokens: int) -> None:
        self.say(
            LeaseGranted(
                lease_id=lease.lease_id, context_tokens=context_tokens, base_url=self.grants[context_tokens]
            )
        )

    def receive(self, timeout_s: float | None = None) -> LeaseNews | None:
        assert timeout_s == 0
        if self._news:
            with contextlib.suppress(OSError):
                self._ours.recv(1, socket.MSG_DONTWAIT)
            return self._news.popleft()
        if self._is_dead:
            raise HostLost("dead")
        return None

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


# --- upstreams


class Upstream:
    """An HTTP server of one test, on a real socket.

    Args:
        answers: One function for each request, in the order of arrival; the last one serves all further ones.
            Each gets the connection and the request and does as it likes; the connection stays open if it returns
            True.

    Attributes:
        requests: Heads and bodies that came.
        connections: How many were accepted.
        dropped: Set when a client has closed its connection.
    """

    def __init__(self, *answers: "Answer") -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.dropped = threading.Event()
        self._answers = deque(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def body(self, number: int = 0) -> Any:
        return msgspec.json.decode(self.requests[number].partition(b"\r\n\r\n")[2])

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while True:
                request = _read_request(connection)
                if request is None:
                    self.dropped.set()
                    return
                self.requests.append(request)
                answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
                if not answer(connection, request):
                    return

    def wait_dropped(self, connection: socket.socket) -> None:
        """Wait until the client has closed its side."""
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        self.dropped.set()

    def close(self) -> None:
        # Closing alone would leave the thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


Answer = Callable[[socket.socket, bytes], bool | None]


def _read_request(connection: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def upstream(*answers: Answer) -> Iterator[Upstream]:
    server = Upstream(*answers)
    try:
        yield server
    finally:
        server.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER of no time: closing sends a reset."""


def event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: %b\n\n" % msgspec.json.encode({"choices": [choice]})


EVENTS = (event("Hello"), event(" world"), event("", "stop"), b"data: [DONE]\n\n")


def streams(*events: bytes) -> Answer:
    """Answers with these events, each a chunk of its own."""

    def answer(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(STREAM_HEAD + b"".join(map(chunk, events or EVENTS)) + b"0\r\n\r\n")
        return True

    return answer


def says(status: int, body: object, *fields: str) -> Answer:
    """Answers with JSON."""

    def answer(connection: socket.socket, _: bytes) -> bool:
        content = msgspec.json.encode(body)
        lines = [
            f"HTTP/1.1 {status} X",
            "content-type: application/json",
            f"content-length: {len(content)}",
            *fields,
        ]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        return True

    return answer


def resets(after: bytes = b"") -> Answer:
    """Sends this much, then resets the connection."""

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(after)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    return answer


def cuts(after: bytes) -> Answer:
    """Sends this much, then closes the connection."""

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(after)

    return answer


def overflow(prompt_tokens: int, context_tokens: int) -> Answer:
    """llama-server's refusal of a prompt that is too long."""
    error = {
        "code": 400,
        "type": "exceed_context_size_error",
        "message": f"request ({prompt_tokens} tokens) exceeds the available context size ({context_tokens} tokens)",
        "n_prompt_tokens": prompt_tokens,
        "n_ctx": context_tokens,
    }
    return says(400, {"error": error})


# --- the client


class Client:
    """A sink that keeps what it gets, as a list of calls and as the answer's content.

    Attributes:
        calls: Names of the methods called, equal neighbors once.
        gone_after: Bytes after which the client is gone; None for a faithful one.
    """

    def __init__(self, *, gone_after: int | None = None) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.content = b""
        self.comments: list[str] = []
        self.trouble: Problem | None = None
        self.begun = False
        self.wrote = threading.Event()
        self.gone_after = gone_after

    def _called(self, name: str) -> None:
        if self.calls[-1:] != [name]:
            self.calls.append(name)

    def begin(self, status: int, headers: Headers, content_length: int | None) -> None:  # noqa: ARG002  # a sink's
        self._called("begin")
        self.begun = True
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}

    def write(self, data: bytes) -> None:
        self._called("write")
        self.content += data
        self.wrote.set()
        if self.gone_after is not None and len(self.content) > self.gone_after:
            raise ClientLost("the client closed the connection")

    def end(self) -> None:
        self._called("end")

    def comment(self, text: str) -> None:
        self._called("comment")
        self.comments.append(text)
        if self.gone_after is not None:
            raise ClientLost("the client closed the connection")

    def problem(self, problem: Problem, format: ApiFormat, headers: Headers) -> None:  # noqa: A002, ARG002  # a sink's
        self._called("problem")
        self.trouble = problem
        self.headers = {name.decode(): value.decode() for name, value in headers}

    def fail_stream(self, problem: Problem, format: ApiFormat) -> None:  # noqa: A002, ARG002  # a sink's
        self._called("fail_stream")
        self.trouble = problem

    def cut(self) -> None:
        self._called("cut")


def exchange(
    service: Service, sink: Client, *, prompt: str = "hi", path: str = CHAT, **fields: Any
) -> Exchange:
    """A request to the model "qwen" that has arrived."""
    messages = [{"role": "user", "content": prompt}]
    body = msgspec.json.encode({"model": "qwen", "messages": messages, "stream": True, **fields})
    head = RequestHead(
        method="POST",
        target=path,
        headers=((b"content-type", b"application/json"), (b"authorization", b"Bearer client")),
        http_version="1.1",
        expects_continue=False,
        content_length=len(body),
    )
    endpoint = match_endpoint("POST", path)
    assert isinstance(endpoint, Endpoint)
    return service.exchange(sink, head, read_request(endpoint, head.headers, body), body)


class InThread:
    """An exchange that runs in a thread of its own."""

    def __init__(self, running: Exchange) -> None:
        self.exchange = running
        self._thread = threading.Thread(target=running.run, daemon=True)
        self._thread.start()

    def join(self) -> Exchange:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the exchange hangs"
        return self.exchange
