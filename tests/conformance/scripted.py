"""A provider whose models are behaviours: what it does to a request is decided by the model's name."""

import json
import socket
import threading
import time
from typing import Any

from tests.support.upstream import CHUNK, LAST, STREAM_HEAD, Upstream, chunked, reply

PROVIDER_KEY = "sk-provider-secret"
KEY_VARIABLE = "CONFORMANCE_PROVIDER_KEY"
EVIL_HEADERS = (
    b"Connection: x-secret, keep-alive\r\n"
    b"X-Secret: internal\r\n"
    b"Keep-Alive: timeout=5\r\n"
    b"Proxy-Authenticate: Basic\r\n"
    b"Upgrade: h2c\r\n"
    b"Server: provider/1.0\r\n"
    b"Set-Cookie: session=1; HttpOnly\r\n"
    b"X-Request-Id: provider-id\r\n"
    b"X-Gw-Model: forged\r\n"
    b"X-Kept: yes\r\n"
)
Document = dict[str, Any]
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'},
}
MORE = ("breaks-body", "breaks-record")
"""What fails often is left alone for a while, and other tests would meet that: each has one of its own."""
PACE_S = 0.02
"""Between the pieces of what comes slowly."""
PATIENCE_S = 30.0


def completion(content: str | None, **message: Any) -> bytes:
    """A chat completion that says this."""
    said = {"role": "assistant", "content": content, **message}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": said, "finish_reason": reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    return json.dumps(document, ensure_ascii=False).encode()


def event(**delta: Any) -> bytes:
    """One event of a stream."""
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


class Provider(Upstream):
    """Listens while it is entered.

    Attributes:
        left: Set when a connection was closed under an answer of `drip` or `silent`.
    """

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.left = threading.Event()

    def models(self) -> list[str]:
        """Its models in a configuration."""
        extra = f'api_key_env = "{KEY_VARIABLE}", retries = 0'  # what is repeated takes its time
        names = [name.removeprefix("_do_") for name in dir(self) if name.startswith("_do_")]
        return [self.lua(name, extra) for name in (*names, *MORE)]

    def last(self) -> tuple[bytes, bytes]:
        """Head and body of the last request."""
        return self.requests[-1]

    def _answer(self, connection: socket.socket, _: bytes, body: bytes) -> None:
        try:
            document = json.loads(body)
        except ValueError:
            document = {"model": "deaf"}  # a form
        act = getattr(self, f"_do_{document['model'].partition('-')[0]}")
        act(connection, document)

    def _do_echo(self, connection: socket.socket, document: Document) -> None:
        """Repeats the last message; in a stream with every byte in a piece of its own."""
        text = document["messages"][-1]["content"]
        if not document.get("stream"):
            connection.sendall(reply(completion(text)))
            return
        connection.sendall(STREAM_HEAD)
        data = event(role="assistant", content="") + event(content=text)
        for number in range(len(data)):
            connection.sendall(chunked(data[number : number + 1]))
        connection.sendall(chunked(LAST) + b"0\r\n\r\n")

    def _do_deaf(self, connection: socket.socket, _: Document) -> None:
        """Takes whatever it gets, and has one short answer for it."""
        connection.sendall(reply(completion("taken")))

    def _do_evil(self, connection: socket.socket, document: Document) -> None:
        """Sends headers that are none of the client's business."""
        if document.get("stream"):
            head = STREAM_HEAD.removesuffix(b"\r\n") + EVIL_HEADERS
            connection.sendall(head + b"\r\n" + chunked(CHUNK + LAST) + b"0\r\n\r\n")
        else:
            body = completion("hello")
            again = b"Content-Length: %d\r\n" % len(body)  # `reply` has one of its own
            connection.sendall(reply(body, headers=again + EVIL_HEADERS))

    def _do_tools(self, connection: socket.socket, document: Document) -> None:
        """Calls a tool."""
        if document.get("stream"):
            call = {"index": 0, **TOOL_CALL}
            data = event(role="assistant", content=None, tool_calls=[call]) + LAST
            connection.sendall(STREAM_HEAD + chunked(data) + b"0\r\n\r\n")
        else:
            connection.sendall(reply(completion(None, tool_calls=[TOOL_CALL])))

    def _do_breaks(self, connection: socket.socket, document: Document) -> None:
        """Is gone in the middle of its answer."""
        if document.get("stream"):
            connection.sendall(STREAM_HEAD + chunked(CHUNK))
            time.sleep(PACE_S)
        else:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
        connection.shutdown(socket.SHUT_RDWR)

    def _do_short(self, connection: socket.socket, _: Document) -> None:
        """Ends its stream without an end."""
        connection.sendall(STREAM_HEAD + chunked(CHUNK) + b"0\r\n\r\n")

    def _do_complains(self, connection: socket.socket, _: Document) -> None:
        """Finds in mid-stream that it cannot go on, and says so."""
        trouble = b'data: {"error":{"message":"out of memory","type":"server_error","code":500}}\n\n'
        connection.sendall(STREAM_HEAD + chunked(CHUNK) + chunked(trouble) + b"0\r\n\r\n")

    def _do_refuses(self, connection: socket.socket, _: Document) -> None:
        """Refuses, in its own words."""
        error = b'{"error":{"message":"no","type":"teapot","param":null,"code":"short_and_stout"}}'
        connection.sendall(reply(error, b"418 No", b"Retry-After: 7\r\n"))

    def _do_drip(self, connection: socket.socket, _: Document) -> None:
        """Streams without end, slowly."""
        connection.sendall(STREAM_HEAD)
        end = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < end:
                connection.sendall(chunked(CHUNK))
                time.sleep(PACE_S)
        except OSError:
            self.left.set()
            raise

    def _do_silent(self, connection: socket.socket, _: Document) -> None:
        """Says nothing."""
        connection.settimeout(PATIENCE_S)
        if not connection.recv(1):
            self.left.set()
