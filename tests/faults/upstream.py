"""An upstream that fails as it is told to: the model's name says how.

It speaks OpenAI's chat and completion API over raw sockets, with a thread for each connection. Every good answer is the
same text, `w0 w1 ... w19`, a token a word. An assistant's message at the end (or a prompt's end) that is a beginning of
the text is continued, so that answers can be resumed. With `n`, there are so many answers, all the same; with
`"tool_choice": "required"` the text stands in the arguments of a call. `/v1/embeddings` and `/v1/models` are there as well.

| Name | What happens |
|---|---|
| `ok` | a good answer |
| `ok-slow-<ms>` | so long before every token |
| `wrong-text` | another text, `x0 x1 ...`: it continues nothing |
| `reset-before-head`, `close-before-head` | the connection is reset or closed instead of an answer |
| `silent` | no answer, ever |
| `silent-after-head` | a head, and nothing after it |
| `role-then-silent` | a head and the event before the first token (not streamed: as `silent-after-head`) |
| `slow-head-<s>` | so long before the head |
| `slow-first-token-<s>` | so long between the first event and the first token (not streamed: before the head) |
| `comments-then-silent` | a head and three comments, then silence |
| `comments-every-<ms>` | a head, then comments for ever |
| `cut-after-<n>`, `reset-after-<n>`, `stall-after-<n>` | after n tokens the connection is closed, is reset, or says nothing more |
| `cut-after-<n>-once`, `reset-after-<n>-once`, `stall-after-<n>-once` | the first request only; later ones are answered well |
| `malformed-event-<n>` | event n, counted from 0, is no JSON; the rest is good |
| `malformed-all` | every event after the first is no JSON |
| `error-event-<n>` | an error instead of event n, and the end (not streamed: as `error-200`) |
| `no-done` | a finish reason and a clean end, without `[DONE]` |
| `no-finish` | a clean end with neither |
| `done-without-content` | nothing but `[DONE]` (not streamed: an empty text) |
| `empty-answer` | a proper answer without a token |
| `hang-after-finish` | silence after the finish reason (not streamed: a good answer) |
| `wrong-length-short`, `wrong-length-long` | a `Content-Length` 10 too small; 10 too large, and the end (streamed: a good answer) |
| `html-200`, `empty-200`, `bad-json-200` | 200 with a page of HTML, with no body, with half a JSON document |
| `error-200` | 200 with `{"error": ...}` |
| `status-<code>` | this status with an error of OpenAI's shape |
| `429`, `429-retry-after-<s>`, `429-retry-after-ms-<ms>`, `429-retry-after-date-<s>` | too many requests; the last as a date |
| `503-retry-after-<s>` | unavailable |
| `insufficient-quota`, `context-length`, `content-policy` | 429, 400 and 400 with these codes |
| `bad-key`, `payment`, `forbidden` | 401, 402, 403 |
| `flapping-<s>` | 503 for so long after the first request, then good answers |
| `fail-<n>`, `fail-<n>-reset` | 500 or a reset for the first n requests, then good answers |
| `close-idle` | a good answer that keeps the connection, which is closed when the next request comes on it |

`cut-after-3@50` is `cut-after-3` with a text of 50 tokens; so for every name. `429|silent|ok` is `429` for the first
request, `silent` for the second, and `ok` for those that follow; so for all names. Events are counted from 0: the one that
names the role (of a chat), one for each token, the finish reason, the usage (if asked for). Not streamed, a broken event
is a document that is broken, and an answer that stops after n tokens stops within its body.
"""

import contextlib
import json
import socket
import struct
import threading
import time
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Literal, Self

from attrs import define, frozen

from tests.faults import answers
from tests.faults.answers import Reply, event, text_of
from tests.faults.behaviours import ERROR, WORDS, Behaviour, Document, Fault, Past, problem, read_fault

__all__ = ["Closed", "FaultUpstream", "Request", "text_of"]

_RESET: Final = struct.pack("ii", 1, 0)
_JSON: Final = "application/json"
_COMMENT: Final = b": still working\n\n"
_JOIN_S: Final = 5.0


@frozen(kw_only=True)
class Request:
    """A request that arrived whole.

    Attributes:
        fault: The model it names; empty if it names none.
        method: In upper case.
        path: Without its query.
        head: Request line and headers as they came.
        headers: By name in lower case.
        body: Parsed, None if it is no JSON.
        at: When, as `time.monotonic` counts.
        connection: Number of its connection, the first is 1.
    """

    fault: str
    method: str
    path: str
    head: bytes
    headers: dict[str, str]
    body: Any
    at: float
    connection: int


@frozen(kw_only=True)
class Closed:
    """A connection that ended.

    Attributes:
        connection: Its number.
        by: Who ended it.
        during: The fault that was being answered; None if none was.
        at: When, as `time.monotonic` counts.
    """

    connection: int
    by: Literal["client", "upstream"]
    during: str | None
    at: float


@define
class _Calls:
    first_at: float
    calls: int = 0


class FaultUpstream:
    """Listens on a port of its own while it is entered.

    Args:
        words: Tokens of the text, where the model's name does not say so.
        honours_limit: Whether `max_tokens` ends an answer, with finish reason "length"; else it is ignored.
        keeps_connections: Whether a connection lives on after a good answer.
    """

    def __init__(
        self, *, words: int = WORDS, honours_limit: bool = False, keeps_connections: bool = True
    ) -> None:
        self.words = words
        self.keeps_connections = keeps_connections
        self.honours_limit = honours_limit
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[Request] = []
        self.closes: list[Closed] = []
        self.connections = 0
        self._stopping = False
        self._open: dict[int, _Connection] = {}
        self._threads: set[threading.Thread] = set()
        self._set: dict[str, str] = {}
        self._calls: dict[str, _Calls] = {}
        self._names: list[str] = ["ok"]

    # --- for tests

    @property
    def text(self) -> str:
        """What `ok` answers."""
        return text_of(self.words)

    @property
    def active(self) -> int:
        """Connections that are open now."""
        with self._lock:
            return len(self._open)

    @property
    def under_way(self) -> list[str]:
        """The faults that are being answered now, silently or not."""
        with self._lock:
            return [each.during for each in self._open.values() if each.during is not None]

    def lua(self, name: str, fault: str | None = None, extra: str = "") -> str:
        """A model of the configuration that is answered with this fault.

        Args:
            name: Its name for clients.
            fault: The upstream's name for it; if None, `name` if that is a fault, else "ok".
            extra: More fields, in Lua.
        """
        if fault is None:
            fault = name if self._is_known(name) else "ok"
        if not self._is_known(fault):
            raise ValueError(f"no such fault: {fault}")
        if fault not in self._names:
            self._names.append(fault)
        return (
            f'{{ name = "{name}", engine = presets.engines.openai, connect = "{self.url}", '
            f'upstream_model = "{fault}", {extra} }}'
        )

    def set(self, name: str, behaviour: str) -> None:
        """From now on, answer requests for the model `name` (a fault's or any other) as this fault says."""
        if read_fault(behaviour) is None:
            raise ValueError(f"no such fault: {behaviour}")
        with self._lock:
            self._set[name] = behaviour
            self._calls.pop(name, None)

    def behaviour_of(self, name: str) -> str:
        """The fault that requests for the model `name` are answered with."""
        return self._set.get(name, name)

    def close_idle(self) -> None:
        """Close the connections on which nothing is being answered."""
        with self._lock:
            for connection in self._open.values():
                if connection.during is None:
                    connection.shut_down()

    def reset(self) -> None:
        """Forget all requests, closes, counts and what was `set`."""
        with self._lock:
            self._set.clear()
            self._calls.clear()
            self.requests.clear()
            self.closes.clear()

    def requests_for(self, fault: str) -> list[Request]:
        """The requests for a model."""
        with self._lock:
            return [request for request in self.requests if request.fault == fault]

    def closes_during(self, fault: str) -> list[Closed]:
        """The connections that ended while a fault was being answered."""
        with self._lock:
            return [closed for closed in self.closes if closed.during == fault]

    def _is_known(self, fault: str) -> bool:
        return fault in self._set or read_fault(fault) is not None

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._stopping = True
            for connection in self._open.values():
                connection.shut_down()
            threads = list(self._threads)
        for thread in threads:
            thread.join(_JOIN_S)
        self._listener.close()
        if error is None:
            assert not any(thread.is_alive() for thread in threads), "a connection does not end"

    def _start(self, run: Any, *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        with self._lock:
            self._threads = {known for known in self._threads if known.is_alive()} | {thread}
            thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    if self._stopping:
                        sock.close()
                        return
                    self.connections += 1
                    connection = self._open[self.connections] = _Connection(self, self.connections, sock)
                self._start(self._talk, connection)

    def _talk(self, connection: "_Connection") -> None:
        number = connection.number
        by: Literal["client", "upstream"] = "upstream"
        try:
            connection.serve()
        except _ClientLeft:
            by = "client"
        except OSError:
            by = "client"  # it would not take what it was sent
        finally:
            with self._lock:
                del self._open[number]
                connection.close()
                self.closes.append(
                    Closed(connection=number, by=by, during=connection.during, at=time.monotonic())
                )

    # --- for its connections

    def took(self, request: Request) -> tuple[int, Fault | None, Past]:
        """Record a request; its number, its fault and what that has seen."""
        with self._lock:
            self.requests.append(request)
            calls = self._calls.setdefault(request.fault, _Calls(request.at))
            calls.calls += 1
            fault = read_fault(self._set.get(request.fault, request.fault))
            return len(self.requests), fault, Past(calls.calls, request.at - calls.first_at)

    @property
    def names(self) -> list[str]:
        """Models that `/v1/models` lists: "ok" and those of a configuration."""
        return list(self._names)


class _ClientLeft(Exception):
    """The client closed the connection."""


class _Hangup(Exception):
    """The upstream closes the connection."""


class _Connection:
    """One connection, and the answers on it."""

    def __init__(self, upstream: FaultUpstream, number: int, sock: socket.socket) -> None:
        self._upstream = upstream
        self.number = number
        self._socket = sock
        self._received = b""
        self._drops_next = False
        self.during: str | None = None

    def serve(self) -> None:
        """Answer requests until somebody closes the connection."""
        with contextlib.suppress(_Hangup):
            while True:
                request = self._read()
                if self._drops_next:
                    return
                self.during = request.fault
                self._answer(request)
                self.during = None
                if request.headers.get("connection", "").lower() == "close":
                    return
                if not self._upstream.keeps_connections:
                    return

    def shut_down(self) -> None:
        """Wake the thread that serves it, and have it end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # --- reading

    def _receive(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise _ClientLeft
        self._received += piece

    def _read(self) -> Request:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        length = int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._receive()
        data, self._received = self._received[:length], self._received[length:]
        body = None
        with contextlib.suppress(ValueError):
            body = json.loads(data)
        method, target, _ = first.split(" ")
        return Request(
            fault=str(body.get("model") or "") if isinstance(body, dict) else "",
            method=method,
            path=target.partition("?")[0],
            head=head,
            headers=headers,
            body=body,
            at=time.monotonic(),
            connection=self.number,
        )

    # --- answering

    def _answer(self, request: Request) -> None:
        number, fault, past = self._upstream.took(request)
        if request.path == "/v1/models" and request.method == "GET":
            self._send_document(Document(200, answers.models(self._upstream.names)))
        elif request.path not in {answers.CHAT, answers.COMPLETION, answers.EMBEDDINGS}:
            self._send_document(_not_found(f"Invalid URL ({request.method} {request.path})"))
        elif not isinstance(request.body, dict):
            self._send_document(_not_found("We could not parse the JSON body of your request.", 400))
        elif fault is None:
            text = f"The model `{request.fault}` does not exist or you do not have access to it."
            self._send_document(_not_found(text, code="model_not_found"))
        else:
            words = fault.words if fault.words is not None else self._upstream.words
            behaviour = fault.behaviour(past)
            reply = answers.make_reply(
                number,
                request.path,
                request.body,
                behaviour,
                words,
                honours_limit=self._upstream.honours_limit,
            )
            self._behave(behaviour, reply)
            self._drops_next = behaviour.drops_next

    def _behave(self, behaviour: Behaviour, reply: Reply) -> None:
        self._stop_if(behaviour, "before-head")
        self._pause(behaviour.head_delay_s)
        if behaviour.document is not None:
            self._send_document(behaviour.document)
        elif reply.streamed:
            self._stream(behaviour, reply)
        else:
            self._send_whole(behaviour, reply)

    def _stop_if(self, behaviour: Behaviour, *places: str | int) -> None:
        if behaviour.stop is None or behaviour.stop_at not in places:
            return
        if behaviour.stop == "silence":
            self._pause(None)
        if behaviour.stop == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise _Hangup

    def _pause(self, seconds: float | None) -> None:
        """Wait so long (None: for ever), or until the client is gone."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            self._socket.settimeout(left)
            try:
                self._receive()  # whatever it sends is for later
            except TimeoutError:
                return
            finally:
                self._socket.settimeout(None)

    @property
    def _farewell(self) -> list[str]:
        return [] if self._upstream.keeps_connections else ["Connection: close"]

    def _send_document(self, document: Document, length: int | None = None, sent: int | None = None) -> None:
        body = document.body
        lines = [f"HTTP/1.1 {document.status} {_phrase(document.status)}", *self._farewell]
        if body or document.status not in {204, 304}:
            lines.append(f"Content-Type: {document.content_type}")
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        lines += [f"{name}: {value}" for name, value in document.headers]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body[:sent])

    def _send_whole(self, behaviour: Behaviour, reply: Reply) -> None:
        self._pause(behaviour.first_token_delay_s + behaviour.token_delay_s * len(reply.tokens))
        body, sent = reply.document, None
        if behaviour.error_event is not None:
            body = json.dumps({"error": ERROR}).encode()
        elif behaviour.broken_events:
            body = body[:-10]
        if behaviour.stop_at in {"head", "first-event"} or behaviour.comment_delay_s is not None:
            sent = 0
        elif behaviour.stop is not None and isinstance(behaviour.stop_at, int):
            sent = reply.cut_at(behaviour.stop_at)
        length = len(body) + behaviour.length_error
        self._send_document(Document(200, body), length, sent)
        if sent is not None:
            self._stop_if(behaviour, behaviour.stop_at)
            self._pause(None)
        if behaviour.length_error > 0:
            raise _Hangup

    def _stream(self, behaviour: Behaviour, reply: Reply) -> None:
        lines = ["HTTP/1.1 200 OK", *self._farewell, "Content-Type: text/event-stream"]
        self._socket.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        for _ in range(behaviour.comments):
            self._chunk(_COMMENT)
        self._stop_if(behaviour, "head")
        while behaviour.comment_delay_s is not None:
            self._chunk(_COMMENT)
            self._pause(behaviour.comment_delay_s)
        if behaviour.events:
            self._events(behaviour, reply)
        if behaviour.done:
            self._chunk(event(b"[DONE]"))
        self._end_of_chunks()

    def _events(self, behaviour: Behaviour, reply: Reply) -> None:
        number = 0
        for data in reply.opening:
            self._event(behaviour, number, data)
            number += 1
        self._stop_if(behaviour, "first-event", 0)
        self._pause(behaviour.first_token_delay_s)
        for sent, data in enumerate(reply.token_events, 1):
            self._pause(behaviour.token_delay_s)
            self._event(behaviour, number, data)
            number += 1
            self._stop_if(behaviour, sent)
        for data in reply.closing:
            self._event(behaviour, number, data)
            number += 1
        self._stop_if(behaviour, "finish")

    def _event(self, behaviour: Behaviour, number: int, data: bytes) -> None:
        if number == behaviour.error_event:
            self._chunk(event(json.dumps({"error": ERROR}).encode()))
            self._end_of_chunks()
            raise _Hangup
        if number in behaviour.broken_events:
            data = data[: len(data) // 2] + b"\n\n"
        self._chunk(data)

    def _chunk(self, data: bytes) -> None:
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def _end_of_chunks(self) -> None:
        self._socket.sendall(b"0\r\n\r\n")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unnamed"


def _not_found(message: str, status: int = 404, code: str | None = None) -> Document:
    error = {"message": message, "type": "invalid_request_error", "code": code}
    document = problem(status, error).document
    assert document is not None
    return document
