"""An answer that broke off goes on where it was: asked of the real engine, with its demo model."""

import http.client
import importlib.resources
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gatewright.api.continuation import continue_body
from gatewright.api.facts import ApiFormat, Continuation, RequestFacts, Resumable
from gatewright.wire.client import ClientExchange
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.upstream_answer import UpstreamAnswer
from gatewright.wire.verdicts import ANSWER_ENDED, Begun

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.engine

START_S = 30.0
CHAT = {"messages": [{"role": "user", "content": "Tell me about the sea."}]}
COMPLETION = {"prompt": "The sea is"}
REQUESTS = [
    (ApiFormat.CHAT, "/v1/chat/completions", CHAT, Continuation.LLAMACPP),
    (ApiFormat.CHAT, "/v1/chat/completions", CHAT, Continuation.ASSISTANT),
    (ApiFormat.CHAT, "/v1/chat/completions", CHAT, Continuation.REPEAT),
    (ApiFormat.COMPLETION, "/v1/completions", COMPLETION, Continuation.PROMPT),
    (ApiFormat.COMPLETION, "/v1/completions", COMPLETION, Continuation.REPEAT),
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    model = importlib.resources.files("gatewright_host") / "data" / "demo.gguf"
    engine = Path(sys.executable).with_name("gatewright-engine")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_")}
    process = subprocess.Popen(
        [str(engine), "-t", "1", "-m", str(model), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], START_S)[0]
        yield int(process.stdout.readline().decode().rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def stream(port: int, path: str, body: bytes) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)) as connection:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()


def pass_on(events: bytes, facts: RequestFacts, sent: SentAnswer, continuation: Continuation | None) -> bytes:
    exchange = ClientExchange()
    exchange.request_bytes("POST", "engine", facts.path, (), b"{}")
    answer = UpstreamAnswer(exchange, facts, sent, continuation)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(events)
    answer.receive(head + events)
    assert answer.hold() == Begun(200)
    assert answer.pass_on() == ANSWER_ENDED
    return answer.take()


def texts(format: ApiFormat, events: bytes) -> list[str]:  # noqa: A002
    chunks: list[dict[str, Any]] = [
        json.loads(event[6:]) for event in events.split(b"\n\n") if event and b"[DONE]" not in event
    ]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    if format is ApiFormat.CHAT:
        return [choice["delta"].get("content") or "" for choice in choices]
    return [choice["text"] for choice in choices]


@pytest.mark.parametrize(("format", "path", "request_body", "continuation"), REQUESTS)
def test_an_answer_cut_in_half_goes_on(
    port: int,
    format: ApiFormat,  # noqa: A002
    path: str,
    request_body: dict[str, Any],
    continuation: Continuation,
):
    body = json.dumps({**request_body, "stream": True, "max_tokens": 40, "temperature": 0}).encode()
    facts = RequestFacts(path=path, format=format, stream=True, continuable=True)
    whole = stream(port, path, body)
    events = whole.split(b"\n\n")
    half = next(at for at in range(len(events)) if "".join(texts(format, b"\n\n".join(events[:at]))))
    half = max(half, (len(events) - 3) // 2)
    sent = SentAnswer(facts)
    sent.keep(b"".join(event + b"\n\n" for event in events[:half]))
    begun, first_id = sent.text, sent.id
    assert sent.resumable is Resumable.CONTINUE
    rest = pass_on(
        stream(port, path, continue_body(body, format, begun, sent.tokens, continuation)),
        facts,
        sent,
        continuation,
    )
    assert begun + "".join(texts(format, rest)) == "".join(texts(format, whole)) == sent.text
    assert 0 < len(begun) < len(sent.text)
    assert rest.endswith(b"data: [DONE]\n\n")
    assert {json.loads(event[6:])["id"] for event in rest.split(b"\n\n")[:-2]} == {first_id}
