"""Every fault does what its name says."""

import http.client
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.faults import behaviours, upstream
from tests.faults.upstream import FaultUpstream, text_of
from tests.support.gateway import wait_until

SILENCE_S = 0.03
"""Whoever says nothing for so long after the last thing expected of him is silent."""
PATIENCE_S = 5.0
"""Far more than anything takes."""
CHUNKS_END = b"\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def faults() -> Iterator[FaultUpstream]:
    with FaultUpstream() as running:
        yield running


@pytest.fixture(autouse=True)
def as_new(faults: FaultUpstream) -> Iterator[None]:
    yield
    wait_until(lambda: faults.active == 0, "no connection is open")
    faults.reset()


def ask_for(model: str, path: str = "/v1/chat/completions", **extra: Any) -> bytes:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "say it"}], **extra}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Client:
    """One connection."""

    def __init__(self, faults: FaultUpstream) -> None:
        self.sock = socket.create_connection(("127.0.0.1", faults.port), timeout=PATIENCE_S)

    def ask(self, model: str, path: str = "/v1/chat/completions", **extra: Any) -> None:
        self.sock.sendall(ask_for(model, path, **extra))

    def read(self, until: bytes = CHUNKS_END) -> tuple[bytes, str]:
        """All that comes, and how it ended: "closed", "reset" or, some time after `until`, "silent"."""
        received = b""
        try:
            while True:
                self.sock.settimeout(SILENCE_S if until in received else PATIENCE_S)
                piece = self.sock.recv(65536)
                if not piece:
                    return received, "closed"
                received += piece
        except TimeoutError:
            assert until in received, received
            return received, "silent"
        except ConnectionResetError:
            return received, "reset"


@contextmanager
def connected(faults: FaultUpstream) -> Iterator[Client]:
    client = Client(faults)
    with client.sock:
        yield client


def raw(faults: FaultUpstream, model: str, until: bytes = CHUNKS_END, **extra: Any) -> tuple[bytes, str]:
    with connected(faults) as client:
        client.ask(model, **extra)
        return client.read(until)


def call(
    faults: FaultUpstream, model: str, path: str = "/v1/chat/completions", **extra: Any
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", faults.port, timeout=PATIENCE_S)
    body = {"model": model, "messages": [{"role": "user", "content": "say it"}], **extra}
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def error_of(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    return error


def dechunked(answer: bytes) -> tuple[bytes, bool]:
    """The content of a chunked answer, and whether it is whole."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    content = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            assert rest == b"\r\n"
            return content, True
        content += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return content, False


def events_of(content: bytes) -> list[bytes]:
    assert not content or content.endswith(b"\n\n")
    return [event.removeprefix(b"data: ") for event in content.split(b"\n\n")[:-1]]


def stream(
    faults: FaultUpstream, model: str, until: bytes = CHUNKS_END, **extra: Any
) -> tuple[list[bytes], bool, str]:
    """Events of a streamed answer, whether it is whole as HTTP goes, and how the connection ended."""
    received, end = raw(faults, model, until, stream=True, **extra)
    content, is_whole = dechunked(received)
    return events_of(content), is_whole, end


def text_in(events: list[bytes]) -> str:
    """The text in all events that are JSON."""
    text = ""
    for event in events:
        try:
            choices = json.loads(event).get("choices") or []
        except ValueError:
            continue
        for choice in choices:
            text += choice.get("text") or choice.get("delta", {}).get("content") or ""
    return text


def is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


# --- good answers


def test_a_good_answer(faults: FaultUpstream) -> None:
    status, headers, body = call(faults, "ok")
    answer = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "ok"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": text_of(20), "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 20, "total_tokens": 22}
    assert text_of(3) == "w0 w1 w2"


def test_a_good_stream(faults: FaultUpstream) -> None:
    events, is_whole, end = stream(faults, "ok")
    assert (is_whole, end) == (True, "silent")
    assert events[-1] == b"[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", "ok")
    }
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 21 + ["stop"]
    assert text_in(events) == faults.text == text_of(20)
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_of_a_stream_is_sent_when_asked_for(faults: FaultUpstream) -> None:
    events, _, _ = stream(faults, "ok@3", stream_options={"include_usage": True})
    *chunks, last = [json.loads(event) for event in events[:-1]]
    assert [chunk["usage"] for chunk in chunks] == [None] * 5
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)


def test_the_length_of_the_text_is_the_names_or_the_upstreams() -> None:
    with FaultUpstream(words=4) as short:
        assert json.loads(call(short, "ok")[2])["choices"][0]["message"]["content"] == text_of(4)
        assert json.loads(call(short, "ok@2")[2])["choices"][0]["message"]["content"] == text_of(2)
        assert text_in(stream(short, "cut-after-1@3")[0]) == "w0"


def test_a_limit_is_honoured_if_wanted() -> None:
    with FaultUpstream(honours_limit=True) as upstream:
        choice = json.loads(call(upstream, "ok", max_tokens=2)[2])["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("w0 w1", "length")


@pytest.mark.parametrize(
    ("prefix", "rest"),
    [
        ("w0 w1", text_of(20)[5:]),
        ("w0 w1 w", text_of(20)[7:]),
        ("", text_of(20)),
        ("something else", text_of(20)),
        (text_of(20), ""),
    ],
)
def test_an_assistants_message_at_the_end_is_continued(faults: FaultUpstream, prefix: str, rest: str) -> None:
    for content in (prefix, [{"type": "text", "text": prefix}]):
        messages = [{"role": "user", "content": "say it"}, {"role": "assistant", "content": content}]
        whole = json.loads(call(faults, "ok", messages=messages)[2])
        assert whole["choices"][0]["message"]["content"] == rest
        assert text_in(stream(faults, "ok", messages=messages)[0]) == rest


def test_a_cut_answer_is_cut_again_in_its_continuation(faults: FaultUpstream) -> None:
    messages = [{"role": "user", "content": "say it"}, {"role": "assistant", "content": "w0 w1"}]
    assert text_in(stream(faults, "cut-after-2", messages=messages)[0]) == " w2 w3"


def test_a_prompts_end_is_continued(faults: FaultUpstream) -> None:
    for prompt, text in (("say it: w0 w1", text_of(20)[5:]), ("say it", text_of(20))):
        received, _ = raw(faults, "ok", path="/v1/completions", prompt=prompt, stream=True)
        events = events_of(dechunked(received)[0])
        assert text_in(events) == text
        assert json.loads(events[0])["object"] == "text_completion"
        status, _, body = call(faults, "ok", "/v1/completions", prompt=prompt)
        assert (status, json.loads(body)["choices"][0]["text"]) == (200, text)


def test_several_answers(faults: FaultUpstream) -> None:
    document = json.loads(call(faults, "ok", n=2)[2])
    assert [choice["index"] for choice in document["choices"]] == [0, 1]
    events, _, _ = stream(faults, "cut-after-3", n=2)
    assert text_in(events) == "w0w0 w1 w1 w2 w2"


def test_a_call_of_a_tool(faults: FaultUpstream) -> None:
    (choice,) = json.loads(call(faults, "ok", tool_choice="required")[2])["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"arguments": faults.text, "name": "say"}
    events, _, _ = stream(faults, "ok", tool_choice="required")
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    calls = [delta["tool_calls"][0]["function"] for delta in deltas if delta.get("tool_calls")]
    assert calls[0] == {"arguments": "", "name": "say"}
    assert "".join(each["arguments"] for each in calls) == faults.text


def test_wrong_text_continues_nothing(faults: FaultUpstream) -> None:
    messages = [{"role": "assistant", "content": "w0"}]
    assert text_in(stream(faults, "wrong-text@3", messages=messages)[0]) == "x0 x1 x2"


def test_embeddings_and_models(faults: FaultUpstream) -> None:
    status, _, body = call(faults, "ok", "/v1/embeddings", input=["a", "b"])
    data = json.loads(body)["data"]
    assert (status, [item["index"] for item in data]) == (200, [0, 1])
    packed = json.loads(call(faults, "ok", "/v1/embeddings", input="a", encoding_format="base64")[2])
    decoded = struct.unpack("<8f", __import__("base64").b64decode(packed["data"][0]["embedding"]))
    assert list(decoded) == data[0]["embedding"]
    faults.lua("mine", "cut-after-3")
    connection = http.client.HTTPConnection("127.0.0.1", faults.port)
    connection.request("GET", "/v1/models")
    listed = json.loads(connection.getresponse().read())
    connection.close()
    assert {"ok", "cut-after-3"} <= {model["id"] for model in listed["data"]}


# --- before the head


def test_silence_before_and_after_the_head(faults: FaultUpstream) -> None:
    assert raw(faults, "silent", b"") == (b"", "silent")
    for is_streamed in (False, True):
        received, end = raw(faults, "silent-after-head", b"\r\n\r\n", stream=is_streamed)
        assert end == "silent"
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\n")
        assert received.count(b"\r\n\r\n") == 1


def test_a_connection_that_ends_before_the_head(faults: FaultUpstream) -> None:
    assert raw(faults, "reset-before-head") == (b"", "reset")
    assert raw(faults, "close-before-head") == (b"", "closed")


def test_pauses(faults: FaultUpstream) -> None:
    def seconds_to(model: str, wanted: bytes, **extra: Any) -> float:
        with connected(faults) as client:
            client.ask(model, **extra)
            began, received = time.monotonic(), b""
            while wanted not in received:
                received += client.sock.recv(65536)
            return time.monotonic() - began

    # A little less than the pause: it begins before the clock here does.
    assert seconds_to("slow-head-0.1", b"HTTP/1.1 200", stream=True) >= 0.05
    assert seconds_to("slow-first-token-0.1", b"w0", stream=True) >= 0.05
    assert seconds_to("slow-first-token-5", b'"role"', stream=True) < 2.5
    assert seconds_to("slow-first-token-0.1", b"HTTP/1.1 200") >= 0.05
    assert seconds_to("ok-slow-10@5", b"[DONE]", stream=True) >= 0.025
    assert seconds_to("ok-slow-10@5", b"}") >= 0.025


# --- streams that break off


def test_role_then_silent(faults: FaultUpstream) -> None:
    events, is_whole, end = stream(faults, "role-then-silent", b'"assistant"')
    assert [json.loads(event)["choices"][0]["delta"]["role"] for event in events] == ["assistant"]
    assert (is_whole, end) == (False, "silent")


@pytest.mark.parametrize(("how", "wanted"), [("cut", "closed"), ("reset", "reset"), ("stall", "silent")])
@pytest.mark.parametrize("tokens", [0, 3])
def test_an_answer_that_stops_after_some_tokens(
    faults: FaultUpstream, how: str, wanted: str, tokens: int
) -> None:
    model = f"{how}-after-{tokens}"
    last = f"w{tokens - 1}".encode() if tokens else b"role"
    events, is_whole, end = stream(faults, model, last)
    assert (text_in(events), is_whole, end) == (text_of(tokens), False, wanted)
    received, end = raw(faults, model, last if tokens else b"\r\n\r\n{")
    assert end == wanted
    assert int(received.split(b"Content-Length: ")[1].split(b"\r\n")[0]) > len(
        received.partition(b"\r\n\r\n")[2]
    )
    if tokens:
        assert received.endswith(b'"content": "' + text_of(tokens).encode())


@pytest.mark.parametrize("how", ["cut", "reset", "stall"])
def test_once_is_only_the_first_time(faults: FaultUpstream, how: str) -> None:
    assert text_in(stream(faults, f"{how}-after-3-once", b"w2")[0]) == "w0 w1 w2"
    for _ in range(2):
        events, is_whole, _ = stream(faults, f"{how}-after-3-once")
        assert (text_in(events), events[-1], is_whole) == (text_of(20), b"[DONE]", True)
    faults.reset()
    assert text_in(stream(faults, f"{how}-after-3-once", b"w2")[0]) == "w0 w1 w2"


def test_comments(faults: FaultUpstream) -> None:
    received, end = raw(faults, "comments-then-silent", (b"11\r\n: still working\n\n\r\n" * 3), stream=True)
    assert (dechunked(received)[0], end) == (b": still working\n\n" * 3, "silent")
    with connected(faults) as client:
        client.ask("comments-every-5", stream=True)
        received = b""
        while received.count(b": still working\n\n") < 10:
            received += client.sock.recv(65536)
        assert b"data:" not in received


# --- streams with something wrong in them


def test_malformed_events(faults: FaultUpstream) -> None:
    events, is_whole, _ = stream(faults, "malformed-event-2")
    assert [is_json(event) for event in events[:4]] == [True, True, False, True]
    assert (text_in(events), events[-1], is_whole) == (text_of(20).replace(" w1 ", " "), b"[DONE]", True)
    events, is_whole, _ = stream(faults, "malformed-all")
    assert [is_json(event) for event in events] == [True, *[False] * 22]
    assert (events[-1], is_whole) == (b"[DONE]", True)
    assert not is_json(call(faults, "malformed-event-2")[2])


@pytest.mark.parametrize("number", [0, 4])
def test_an_error_within_a_stream(faults: FaultUpstream, number: int) -> None:
    events, is_whole, end = stream(faults, f"error-event-{number}")
    assert len(events) == number + 1
    assert error_of(events[-1])["type"] == "server_error"
    assert (is_whole, end) == (True, "closed")
    status, _, body = call(faults, f"error-event-{number}")
    assert (status, error_of(body)["type"]) == (200, "server_error")


def test_ends_that_lack_something(faults: FaultUpstream) -> None:
    events, is_whole, end = stream(faults, "no-done")
    assert json.loads(events[-1])["choices"][0]["finish_reason"] == "stop"
    assert (text_in(events), is_whole, end) == (text_of(20), True, "silent")
    events, is_whole, end = stream(faults, "no-finish")
    assert json.loads(events[-1])["choices"][0]["finish_reason"] is None
    assert (text_in(events), is_whole, end) == (text_of(20), True, "silent")
    assert stream(faults, "done-without-content")[:2] == ([b"[DONE]"], True)
    events, is_whole, _ = stream(faults, "empty-answer")
    assert (len(events), text_in(events), events[-1], is_whole) == (3, "", b"[DONE]", True)
    events, is_whole, end = stream(faults, "hang-after-finish", b'"stop"')
    assert json.loads(events[-1])["choices"][0]["finish_reason"] == "stop"
    assert (is_whole, end) == (False, "silent")


# --- answers of one piece with something wrong in them


def test_wrong_lengths(faults: FaultUpstream) -> None:
    for model, error, wanted in (("wrong-length-short", -10, "silent"), ("wrong-length-long", 10, "closed")):
        received, end = raw(faults, model, b"\r\n\r\n{")
        head, _, body = received.partition(b"\r\n\r\n")
        assert int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]) == len(body) + error
        assert is_json(body)
        assert end == wanted
        assert stream(faults, model)[0][-1] == b"[DONE]"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_answers_that_only_look_well(faults: FaultUpstream, is_streamed: bool) -> None:
    status, headers, body = call(faults, "html-200", stream=is_streamed)
    assert (status, headers["content-type"], body[:6]) == (200, "text/html", b"<html>")
    assert call(faults, "empty-200", stream=is_streamed)[::2] == (200, b"")
    status, headers, body = call(faults, "bad-json-200", stream=is_streamed)
    assert (status, headers["content-type"], is_json(body)) == (200, "application/json", False)
    status, _, body = call(faults, "error-200", stream=is_streamed)
    assert (status, error_of(body)["type"]) == (200, "server_error")


# --- errors


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("429", 429, "rate_limit_exceeded"),
        ("insufficient-quota", 429, "insufficient_quota"),
        ("context-length", 400, "context_length_exceeded"),
        ("content-policy", 400, "content_policy_violation"),
        ("bad-key", 401, "invalid_api_key"),
        ("payment", 402, 402),
        ("forbidden", 403, "unsupported_country_region_territory"),
        ("status-418", 418, None),
        ("status-529", 529, None),
        ("nobody", 404, "model_not_found"),
    ],
)
def test_errors_have_openais_shape(faults: FaultUpstream, model: str, status: int, code: object) -> None:
    for is_streamed in (False, True):
        answered, headers, body = call(faults, model, stream=is_streamed)
        assert (answered, error_of(body)["code"]) == (status, code)
        assert "retry-after" not in headers


def test_when_to_come_back(faults: FaultUpstream) -> None:
    for model, status, header, value in (
        ("429-retry-after-7", 429, "retry-after", "7"),
        ("429-retry-after-0.5", 429, "retry-after", "0.5"),
        ("429-retry-after-ms-250", 429, "retry-after-ms", "250"),
        ("503-retry-after-3", 503, "retry-after", "3"),
    ):
        answered, headers, _ = call(faults, model)
        assert (answered, headers[header]) == (status, value)
    _, headers, _ = call(faults, "429-retry-after-date-30")
    assert 28 <= parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time() <= 30


def test_failing_first_and_well_then(faults: FaultUpstream) -> None:
    assert [call(faults, "fail-2")[0] for _ in range(4)] == [500, 500, 200, 200]
    assert [raw(faults, "fail-1-reset", b"}")[1] for _ in range(2)] == ["reset", "silent"]
    assert call(faults, "flapping-0.1")[0] == 503
    time.sleep(0.1)
    assert call(faults, "flapping-0.1")[0] == 200
    assert call(faults, "flapping-0.2")[0] == 503


# --- connections, and what is recorded


def test_a_connection_is_kept_but_by_faults_that_end_it(faults: FaultUpstream) -> None:
    before = faults.connections
    with connected(faults) as client:
        for model in ("ok", "429", "html-200", "malformed-all", "ok"):
            client.ask(model, stream=True)
            received, end = client.read(b"\r\n\r\n")
            assert received.startswith(b"HTTP/1.1 ")
            assert end == "silent"
    assert faults.connections == before + 1


def test_an_upstream_that_keeps_no_connection() -> None:
    with FaultUpstream(keeps_connections=False) as upstream:
        for stream in (False, True):
            with connected(upstream) as client:
                client.ask("ok", stream=stream)
                answer, end = client.read(b"never")
                assert end == "closed"
                assert b"Connection: close\r\n" in answer


def test_idle_connections_can_be_closed(faults: FaultUpstream) -> None:
    with connected(faults) as idle, connected(faults) as waiting:
        for client, model in ((idle, "ok"), (waiting, "silent")):
            client.ask(model)
        idle.read(b'"usage"')
        wait_until(lambda: faults.under_way == ["silent"], "one is idle")
        faults.close_idle()
        assert idle.read(b"never")[1] == "closed"
        assert waiting.read(b"")[1] == "silent"


def test_requests_that_come_together_are_answered_in_order(faults: FaultUpstream) -> None:
    with connected(faults) as client:
        client.sock.sendall(ask_for("ok-slow-1@3") + ask_for("status-418"))
        received, _ = client.read(b"HTTP/1.1 418")
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"418"]


def test_close_idle_closes_when_the_next_request_comes(faults: FaultUpstream) -> None:
    with connected(faults) as client:
        client.ask("close-idle")
        received, end = client.read(b"\r\n\r\n{")
        assert end == "silent"
        assert b"close" not in received.partition(b"\r\n\r\n")[0].lower()
        client.ask("close-idle")
        assert client.read() == (b"", "closed")
    assert len(faults.requests_for("close-idle")) == 1
    wait_until(lambda: faults.closes, "the close is recorded")
    assert (faults.closes[0].by, faults.closes[0].during) == ("upstream", None)


def test_what_is_recorded(faults: FaultUpstream) -> None:
    before = time.monotonic()
    with connected(faults) as client:
        client.ask("stall-after-1", stream=True, seed=7)
        client.read(b"w0")
        assert (faults.active, faults.under_way) == (1, ["stall-after-1"])
    (request,) = faults.requests_for("stall-after-1")
    assert (request.method, request.path, request.body["seed"]) == ("POST", "/v1/chat/completions", 7)
    assert request.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: here")
    assert request.headers["host"] == "here"
    assert before <= request.at <= time.monotonic()
    wait_until(lambda: faults.closes_during("stall-after-1"), "the client's close is seen")
    (closed,) = faults.closes_during("stall-after-1")
    assert (closed.connection, closed.by) == (request.connection, "client")
    assert request.at <= closed.at
    wait_until(lambda: faults.active == 0, "no connection is open")
    assert faults.under_way == []
    assert faults.requests_for("ok") == []


def test_a_client_that_leaves_a_stream_is_noticed(faults: FaultUpstream) -> None:
    with connected(faults) as client:
        client.ask("ok-slow-20@1000", stream=True)
        assert client.sock.recv(10)
    wait_until(lambda: faults.closes_during("ok-slow-20@1000"), "the client's close is seen", 2)
    assert faults.closes[0].by == "client"


def test_a_fault_can_be_switched(faults: FaultUpstream) -> None:
    faults.set("provider", "status-503")
    assert call(faults, "provider")[0] == 503
    faults.set("provider", "ok")
    assert call(faults, "provider")[0] == 200
    faults.set("fail-1", "ok")
    assert call(faults, "fail-1")[0] == 200
    faults.reset()
    assert [call(faults, "fail-1")[0] for _ in range(2)] == [500, 200]
    assert call(faults, "provider")[0] == 404
    with pytest.raises(ValueError, match="no such fault"):
        faults.set("provider", "nonsense")


def test_faults_in_turn(faults: FaultUpstream) -> None:
    faults.set("provider", "status-503|fail-1|429|ok@3")
    assert [call(faults, "provider")[0] for _ in range(5)] == [503, 500, 429, 200, 200]
    assert [call(faults, "status-503|fail-1")[0] for _ in range(4)] == [503, 500, 200, 200]
    assert call(faults, "ok|nonsense")[0] == 404


def test_a_model_of_a_configuration(faults: FaultUpstream) -> None:
    lua = faults.lua("mine", "cut-after-3", "context = 100")
    assert 'name = "mine"' in lua
    assert f'connect = "{faults.url}"' in lua
    assert 'upstream_model = "cut-after-3"' in lua
    assert "context = 100" in lua
    assert 'upstream_model = "fail-3"' in faults.lua("fail-3")
    assert 'upstream_model = "ok"' in faults.lua("mine")
    with pytest.raises(ValueError, match="cut-after-x"):
        faults.lua("mine", "cut-after-x")


def test_many_at_once() -> None:
    with FaultUpstream() as upstream:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(call(upstream, "ok")[0])) for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 50
        assert sorted(request.connection for request in upstream.requests) == list(range(1, 51))


def test_leaving_ends_what_is_under_way() -> None:
    with FaultUpstream() as upstream:
        client = Client(upstream)
        client.ask("silent")
        wait_until(lambda: upstream.requests, "the request is there")
    with client.sock:
        assert client.read(b"never")[1] == "closed"
    with pytest.raises(ConnectionRefusedError):
        Client(upstream)


def test_the_table_names_every_fault_and_no_other() -> None:
    rows = [line for line in (upstream.__doc__ or "").splitlines() if line.startswith("| `")]
    named = list(itertools.chain.from_iterable(re.findall(r"`([^`]+)`", row.split(" | ")[0]) for row in rows))
    assert sorted(named) == sorted(behaviours.FORMS)
