"""The embedded engine as its callers see it: a process, its exit code, HTTP."""

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gatewright_host.ports import Ports
from tests.support.tiny_models import build_tiny_model

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.engine

START_S = 30.0
STOP_S = 3.0  # generous: it takes milliseconds
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_")}
UNENDING = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 10_000_000}


class Engine:
    """A running ``gatewright-engine``."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("gatewright-engine")), "--threads", "1", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        self.port = 0

    def wait_until_serving(self) -> "Engine":
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], START_S)[0]
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on http://127.0.0.1:"), (line, self.process.communicate()[1])
        self.port = int(line.rpartition(":")[2])
        return self

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)

    def call(self, path: str, body: object = None) -> tuple[int, Any]:
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET" if body is None else "POST", path, body and json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, bytes, bytes]:
        """Exit code, rest of stdout, stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=STOP_S)
        return self.process.returncode, out, err


Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    engines: list[Engine] = []

    def start(*argv: str | Path) -> Engine:
        engines.append(Engine(*map(str, argv)))
        return engines[-1]

    yield start
    for engine in engines:
        if engine.process.poll() is None:
            engine.process.kill()
        engine.process.communicate()


@pytest.fixture(scope="module")
def engine(start: Start, tiny_model: Path) -> Engine:
    """Four slots of 512 tokens."""
    return start("-m", tiny_model, "--port", "0", "-c", "2048", "-np", "4").wait_until_serving()


@pytest.fixture(scope="module")
def roomy(start: Start, tiny_model: Path) -> Engine:
    """llama-server's default slots, on 4096 tokens."""
    return start("-m", tiny_model, "--port", "0", "-c", "4096").wait_until_serving()


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "slow.gguf", slow=True)


def user(content: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], **more}


# Serving


def test_health(engine: Engine):
    assert engine.call("/health") == (200, {"status": "ok"})


def test_chat_goes_on_until_max_tokens(engine: Engine):
    status, answer = engine.call("/v1/chat/completions", user("hello", max_tokens=50))
    assert status == 200
    choice = answer["choices"][0]
    assert (choice["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 50)
    assert choice["message"]["content"].isascii()


def test_stream(engine: Engine):
    with contextlib.closing(engine.connect()) as connection:
        body = user("hello", max_tokens=20, stream=True, stream_options={"include_usage": True})
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = [line.removeprefix(b"data: ") for line in answer.read().split(b"\n\n") if line]
    assert events[-1] == b"[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 20
    assert "timings" in json.loads(events[-2])


@pytest.mark.parametrize("text", ["the word", "Größe ½ — 你好 🎉", "\x00\x7f\t\n", " <|im_end|> "])
def test_any_text_is_tokenized_and_comes_back(engine: Engine, text: str):
    status, answer = engine.call("/tokenize", {"content": text})
    assert status == 200
    assert answer["tokens"]
    assert engine.call("/detokenize", answer) == (200, {"content": text})


def test_a_grammar_ends_the_answer(roomy: Engine):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "days": {"type": "integer", "maximum": 99},
        },
        "required": ["city", "days"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "trip", "schema": schema}}
    _, answer = roomy.call("/v1/chat/completions", user("hello", response_format=wanted, max_tokens=500))
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"city", "days"}


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
def test_a_tool_is_called_once_and_then_answered(roomy: Engine, tool_choice: str):
    parameters = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    body = user("hello", tools=tools, max_tokens=300)
    _, answer = roomy.call("/v1/chat/completions", body | {"tool_choice": tool_choice})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    message = answer["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    body["messages"] = [{"role": "user", "content": "hello"}, message, result]
    _, answer = roomy.call("/v1/chat/completions", body | {"max_tokens": 10})
    assert "tool_calls" not in answer["choices"][0]["message"]
    assert answer["choices"][0]["message"]["content"]


# Context


def context_of(engine: Engine) -> tuple[int, int]:
    _, props = engine.call("/props")
    return props["total_slots"], props["default_generation_settings"]["n_ctx"]


def test_slots_split_the_context(engine: Engine):
    assert context_of(engine) == (4, 512)


def test_automatic_slots_share_the_context(roomy: Engine):
    assert context_of(roomy) == (4, 4096)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [(["-c", "2048", "-np", "2", "-kvu"], (2, 2048)), (["-c", "0", "-np", "1"], (1, 32768))],
)
def test_unified_and_whole_context(
    start: Start, tiny_model: Path, argv: list[str], expected: tuple[int, int]
):
    engine = start("-m", tiny_model, "--port", "0", *argv).wait_until_serving()
    assert context_of(engine) == expected


@pytest.mark.parametrize("stream", [False, True])
def test_overflow(engine: Engine, stream: bool):
    body = user("the " * 900, stream=stream)
    _, counted = engine.call("/v1/chat/completions/input_tokens", body)
    tokens = counted["input_tokens"]
    assert tokens > 512
    error = {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size (512 tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": 512,
    }
    assert engine.call("/v1/chat/completions", body) == (400, {"error": error})


# Embeddings


def test_embeddings(start: Start, tmp_path: Path):
    model = build_tiny_model(tmp_path / "embed.gguf", embedding=True)
    engine = start("-m", model, "--port", "0", "-c", "1024", "--embeddings").wait_until_serving()
    status, answer = engine.call("/v1/embeddings", {"input": ["the word", "all water"]})
    assert status == 200
    first, second = (item["embedding"] for item in answer["data"])
    assert len(first) == 64
    assert first != second
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-3)


def test_rerank(start: Start, tmp_path: Path):
    model = build_tiny_model(tmp_path / "rank.gguf", rerank=True)
    engine = start("-m", model, "--port", "0", "-c", "1024", "--rerank").wait_until_serving()
    documents = ["hello you", "time and water", "of the"]
    status, answer = engine.call("/v1/rerank", {"query": "the word", "documents": documents})
    assert status == 200
    assert sorted(item["index"] for item in answer["results"]) == [0, 1, 2]
    assert len({item["relevance_score"] for item in answer["results"]}) == 3


# Failing to start


def fail(start: Start, *argv: str | Path) -> tuple[int, bytes, str]:
    """Exit code, stdout and the last line of stderr that is not llama.cpp's, which writes by a thread of its own."""
    process = start(*argv).process
    out, err = process.communicate(timeout=START_S)
    assert b"Traceback" not in err
    own = [line for line in err.decode().splitlines() if line.startswith("gatewright-engine: ")]
    return process.returncode, out, own[-1] if own else err.decode()


def test_a_missing_model(start: Start, tmp_path: Path):
    expected = f"gatewright-engine: error: cannot read the model {tmp_path}/a.gguf: No such file or directory"
    assert fail(start, "-m", tmp_path / "a.gguf", "--port", "0") == (1, b"", expected)


def test_a_file_that_is_no_model(start: Start, tmp_path: Path):
    (tmp_path / "a.gguf").write_text("weights")
    expected = f"gatewright-engine: error: the model {tmp_path}/a.gguf is no GGUF file"
    assert fail(start, "-m", tmp_path / "a.gguf", "--port", "0") == (1, b"", expected)


def test_half_a_model(start: Start, tiny_model: Path, tmp_path: Path):
    half = tmp_path / "half.gguf"
    half.write_bytes(tiny_model.read_bytes()[:100_000])
    expected = f"gatewright-engine: error: llama.cpp could not start with {half}; its log says why"
    assert fail(start, "-m", half, "--port", "0") == (1, b"", expected)
    assert fail(start, "-m", half, "--port", "0", "--log-disable") == (1, b"", expected)


def test_a_port_in_use(start: Start, tiny_model: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        expected = f"gatewright-engine: error: cannot listen on 127.0.0.1:{port}: the address is in use"
        assert fail(start, "-m", tiny_model, "--port", str(port)) == (1, b"", expected)


def test_the_socket_file_of_a_killed_engine_is_no_obstacle(start: Start, tiny_model: Path, tmp_path: Path):
    path = tmp_path / "e.sock"
    for _ in range(2):
        process = start("-m", tiny_model, "--host", path, "-c", "512").process
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening on unix://{path}\n".encode()
        process.kill()
        process.communicate()
        assert path.exists()


# Stopping


def read_stream(engine: Engine, first_byte: threading.Event) -> None:
    with (
        contextlib.closing(engine.connect()) as connection,
        contextlib.suppress(OSError, http.client.HTTPException),
    ):
        connection.request("POST", "/v1/chat/completions", json.dumps(UNENDING))
        answer = connection.getresponse()
        first_byte.set()
        while answer.read(1000):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_while_it_generates(start: Start, tiny_model: Path, number: signal.Signals):
    engine = start("-m", tiny_model, "--port", "0", "-c", "32768", "--context-shift").wait_until_serving()
    begun = [threading.Event() for _ in range(4)]
    readers = [threading.Thread(target=read_stream, args=(engine, event)) for event in begun]
    for reader in readers:
        reader.start()
    assert all(event.wait(START_S) for event in begun)
    assert psutil.Process(engine.process.pid).children() == []  # so nothing can be left over
    code, out, _ = engine.stop(number)
    for reader in readers:
        reader.join(STOP_S)
    assert (code, out) == (0, b"")
    assert not any(reader.is_alive() for reader in readers)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", engine.port))


def test_it_answers_503_while_it_loads_and_can_be_ended_then(start: Start, slow_model: Path):
    port = Ports().choose("127.0.0.1")
    engine = start("-m", slow_model, "--port", str(port), "-c", "32768")
    engine.port = port
    deadline = time.monotonic() + START_S
    answer: tuple[int, Any] | None = None
    while answer is None:
        assert time.monotonic() < deadline
        with contextlib.suppress(ConnectionRefusedError):
            answer = engine.call("/v1/models")
    error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
    assert answer == (503, {"error": error})
    code, out, err = engine.stop()
    assert (code, out) == (0, b"")
    assert b"model loaded" not in err


def test_the_log_is_written_by_lines(start: Start, tiny_model: Path):
    process = start("-m", tiny_model, "--port", "0", "-c", "512", "-lv", "4").process
    assert process.stderr is not None
    pieces: list[bytes] = []
    while b"listening on" not in b"".join(pieces):
        pieces.append(os.read(process.stderr.fileno(), 65536))
        assert pieces[-1].endswith(b"\n")
    assert b"KV buffer size = " in b"".join(pieces)


# The models


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, tiny_model: Path, tiny_model_b: Path):
    again = build_tiny_model(tmp_path / "again.gguf")
    assert again.read_bytes() == tiny_model.read_bytes()
    assert again.stat().st_size < 500_000
    assert tiny_model_b.read_bytes() != tiny_model.read_bytes()
