"""An engine that does as the user says: how requests go is up to the scenario.

A program with nothing but the standard library, so that `python -S -E` starts it in some milliseconds. The test's own
upstream answers with the same `answer`.
"""

import argparse
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

HEALED_TOKENS = 9000
"""Size of the prompt "overflow", as the engine counts it."""
ELSEWHERE = "far"
"""Model that helps out."""
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


def say(text: str, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"choices": [choice], **more}).encode()


def document(status: int, body: object) -> bytes:
    """A whole answer."""
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def stream(*events: bytes) -> bytes:
    """A whole stream."""
    return STREAM_HEAD + b"".join(map(chunk, (*events, b"data: [DONE]\n\n"))) + b"0\r\n\r\n"


def failure(status: int, kind: str, **more: object) -> bytes:
    return document(status, {"error": {"code": status, "type": kind, "message": f"scripted {kind}", **more}})


def script_of(body: dict[str, Any]) -> str:
    """What is to be done: the first word of what the user says."""
    text: str = next(each["content"] for each in body["messages"] if each["role"] == "user")
    return text.split(maxsplit=1)[0]


def whole(streamed: bool, usage: dict[str, int]) -> bytes:
    if streamed:
        return stream(say("one"), say(" two"), say("", "stop", usage=usage))
    message = {"role": "assistant", "content": "one two"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return document(200, {"object": "chat.completion", "choices": [choice], "usage": usage})


def answer(body: dict[str, Any], context: int, wait: Callable[[], object]) -> Iterator[bytes]:
    """What is sent for a request; the connection is closed after it, unless it ends in good form.

    Args:
        body: The request.
        context: Context of the engine.
        wait: Returns when a held answer may go on.
    """
    script = script_of(body)
    streamed = body.get("stream") is True
    match script:
        case "silent":
            return
        case _ if breaks_off(body):
            yield STREAM_HEAD + chunk(say("one"))
        case "mended":
            yield stream(say(" two"), say("", "stop", usage=USAGE))
        case "bad":
            yield failure(400, "invalid_request_error")
        case "failing" | "elsewhere" if body["model"] != ELSEWHERE:
            yield failure(500, "server_error")
        case "overflow" if context < HEALED_TOKENS:
            more = {"n_prompt_tokens": HEALED_TOKENS, "n_ctx": context}
            text = f"request ({HEALED_TOKENS} tokens) exceeds the available context size ({context} tokens)"
            yield failure(400, "exceed_context_size_error", **more, message=text)
        case "overflow":
            yield whole(streamed, {**USAGE, "prompt_tokens": HEALED_TOKENS})
        case "held":
            yield STREAM_HEAD + chunk(say("one"))
            wait()
            yield chunk(say("", "stop", usage=USAGE)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        case _:
            yield whole(streamed, USAGE)


def breaks_off(body: dict[str, Any]) -> bool:
    """Whether the answer has no end."""
    match script_of(body):
        case "silent" | "broken":
            return True
        case "mended":  # for those who have its beginning
            return bool(body["messages"][-1]["role"] != "assistant")
        case "repeated":
            return bool(body["model"] != ELSEWHERE)
        case _:
            return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", options.port))
    sys.stderr.write(f"listening on {options.port}\n")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, options.context), daemon=True).start()


def serve(connection: socket.socket, context: int) -> None:
    with connection:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65_536)
        head, _, content = data.partition(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        if path == "/props":
            settings = {"default_generation_settings": {"n_ctx": context}, "total_slots": 1}
            connection.sendall(document(200, settings))
            return
        if path == "/health":
            connection.sendall(document(200, {"status": "ok"}))
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(content) < length:
            content += connection.recv(65_536)
        for piece in answer(json.loads(content), context, lambda: None):
            connection.sendall(piece)


if __name__ == "__main__":
    main()
