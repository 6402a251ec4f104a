"""`gw-cli verify`: against good gateways, bad ones, and none."""

import json
import re
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewright_cli.verification.catalogue import CHECKS, select_checks
from gatewright_cli.verification.check import Group
from gatewright_cli.verification.client import Answer
from gatewright_cli.verification.outcome import Failed, expect, shown
from gatewright_cli.verification.raw_answers import read_answer, read_answers
from gatewright_cli.verification.target import Target
from tests.cli.conftest import InProcess
from tests.support.gateway import Gateway, model_lua
from tests.support.tiny_models import build_tiny_model
from tests.support.upstream import STREAM_HEAD, Upstream, chunked, reply

KEY = "sk-verify-1"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def gateway(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    vectors = build_tiny_model(tmp_path_factory.mktemp("models") / "embed.gguf", name="embed", embedding=True)
    embedder = model_lua("embedder", vectors, (512,), args=', "--embeddings"').replace(
        "presets.engines.llamacpp", "presets.engines.llamacpp_secondary"
    )
    directory = Path(tempfile.mkdtemp(prefix="gwv-"))
    listen = f'listen_v4 = "127.0.0.1:0", listen_v6 = "none", listen_unix = "{directory}/s"'
    qwen = model_lua("qwen", tiny_model, (1024, 4096), slots=4)
    routes = 'routes = { auto = { candidates = { "qwen" } }, later = { tags = { "registered-later" } } }'
    with Gateway(embedder, qwen, listen=listen, server=f'api_keys = {{ "{KEY}" }}', more=routes) as running:
        yield running
    shutil.rmtree(directory)


def socket_of(gateway: Gateway) -> str:
    found = re.search(r"unix:\S+?(?=[,;])", gateway.log)
    assert found is not None
    return found[0]


def outcomes(report: str) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in json.loads(report)["checks"]}


def rows(table: str) -> dict[str, str]:
    """Result of each check."""
    heads, *lines = table.splitlines()
    assert heads.split() == ["RESULT", "CHECK", "WHAT"]
    return {line.split()[1]: line.split()[0] for line in lines}


# --- a good one


@pytest.mark.engine
def test_a_good_gateway_passes(quick: InProcess, gateway: Gateway) -> None:
    done = quick.run("verify", gateway.url, "--api-key", KEY)
    assert done.code == 0, done.out
    found = rows(done.out)
    assert list(found) == [check.name for check in CHECKS]
    # This model is too quick for anybody to see whether its pieces are held back.
    assert {name for name, result in found.items() if result != "pass"} <= {"stream-flows"}
    assert re.fullmatch(rf"{gateway.url}: \d+ passed, 0 failed, [01] skipped\n", done.err)


@pytest.mark.engine
def test_a_route_passes_in_the_place_of_a_model(quick: InProcess, gateway: Gateway) -> None:
    done = quick.run("verify", gateway.url, "--api-key", KEY, "-m", "auto")
    assert done.code == 0, done.out
    found = rows(done.out)
    assert {name for name, result in found.items() if result != "pass"} <= {"stream-flows"}


@pytest.mark.engine
def test_over_a_socket_and_as_json(quick: InProcess, gateway: Gateway) -> None:
    done = quick.run(
        "verify", socket_of(gateway), "--json", "--only", "chat", "--only", "gw-h*", OPENAI_API_KEY=KEY
    )
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert (report["model"], report["embedding_model"]) == ("qwen", "embedder")
    assert (report["passed"], report["failed"], report["skipped"]) == (3, 0, 1)
    assert outcomes(done.out) == {
        "chat": "passed",
        "gw-health": "passed",
        "gw-headers": "passed",
        "gw-host": "skipped",
    }
    skipped = report["checks"][-1]
    assert skipped["group"] == "gatewright"
    assert "Unix socket" in skipped["detail"]
    assert skipped["seconds"] >= 0


@pytest.mark.engine
def test_names_of_models_and_forms_of_urls(quick: InProcess, gateway: Gateway) -> None:
    key = ("--api-key", KEY, "--only", "chat", "--json")
    for url in (f"{gateway.url}/", f"{gateway.url}/v1", f"{gateway.url}/v1/"):
        assert quick.run("verify", url, *key).code == 0
    done = quick.run("verify", gateway.url, *key, "-m", "nobody", "--embedding-model", "other")
    assert done.code == 1
    report = json.loads(done.out)
    assert (report["model"], report["embedding_model"]) == ("nobody", "other")
    assert "404" in report["checks"][0]["detail"]


@pytest.mark.engine
def test_a_wrong_key_and_none(quick: InProcess, gateway: Gateway) -> None:
    done = quick.run("verify", gateway.url, "--api-key", "sk-wrong")
    assert done.code == 1
    found = rows(done.out)
    assert {name for name, result in found.items() if result == "fail"} == {"models"}
    assert found["gw-health"] == "pass"
    assert found["chat"] == "skip"
    assert "the key is refused" in done.out
    done = quick.run("verify", gateway.url)
    assert done.code == 1
    assert "a key is needed" in done.out
    assert "401" in done.out


@pytest.mark.engine
def test_the_key_is_shown_nowhere(quick: InProcess, gateway: Gateway) -> None:
    done = quick.run("verify", gateway.url, "-v", "-m", "nobody", "--api-key", KEY)
    assert done.code == 1
    assert "POST /v1/chat/completions" in done.out, "the last exchange of what failed"
    assert re.search(r"^fail +chat +\d+\.\d\d s  expected 200", done.out, re.MULTILINE)
    assert KEY not in done.out + done.err
    assert KEY not in gateway.log


@pytest.mark.engine
def test_without_a_url_it_is_the_server_of_the_configuration(quick: InProcess, gateway: Gateway) -> None:
    listen = f'listen_v4 = "0.0.0.0:{gateway.port}", listen_v6 = "none"'
    far = '{ name = "far", engine = presets.engines.openai, connect = "http://127.0.0.1:1" }'
    quick.write_config(far, server=f'{listen}, api_keys = {{ "{KEY}" }}')
    done = quick.run("verify", "--only", "chat")
    assert (done.code, done.err) == (0, f"{gateway.url}: 1 passed, 0 failed, 0 skipped\n")
    unix = socket_of(gateway).removeprefix("unix:")
    none = 'listen_v4 = "none", listen_v6 = "none"'
    quick.write_config(far, server=f'{none}, listen_unix = "{unix}", api_keys = {{ "{KEY}" }}')
    assert quick.run("verify", "--only", "chat").code == 0
    quick.write_config(far, server='listen_v4 = "127.0.0.1:0", listen_v6 = "none"')
    done = quick.run("verify")
    assert (done.code, done.out) == (2, "")
    assert "name the URL" in done.err


# --- bad ones

Behaviour = Callable[[str, dict[str, Any]], bytes]

MODELS = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
GOOD = {
    "id": "c1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
CHUNK = b'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
END = b'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def stream_of(*events: bytes) -> bytes:
    return STREAM_HEAD + b"".join(chunked(event) for event in events) + b"0\r\n\r\n"


class Impostor(Upstream):
    """Answers as a gateway should, but for one thing."""

    def __init__(self, **wrong: bytes) -> None:
        super().__init__(self._answer)
        self.wrong = wrong

    def _answer(self, connection: socket.socket, head: bytes, body: bytes) -> None:
        try:
            document = json.loads(body or b"{}")
        except ValueError:
            document = {}
        if head.startswith(b"GET /v1/models "):
            answer = self.wrong.get("models", reply(MODELS))
        elif document.get("stream"):
            answer = self.wrong.get("stream", stream_of(CHUNK, END, DONE))
        else:
            answer = self.wrong.get("chat", reply(json.dumps(GOOD).encode()))
        connection.sendall(answer)
        if b"Connection: close" in head:
            connection.shutdown(socket.SHUT_RDWR)


def chat_with(**changes: Any) -> bytes:
    return reply(json.dumps({**GOOD, **changes}).encode())


@pytest.mark.parametrize("check", ["models", "chat", "usage", "stream", "framing", "keep-alive"])
def test_the_impostor_passes_where_it_is_not_told_to_be_wrong(quick: InProcess, check: str) -> None:
    with Impostor() as impostor:
        done = quick.run("verify", impostor.url, "--only", check)
        assert done.code == 0, done.out


@pytest.mark.parametrize(
    ("check", "wrong", "complaint"),
    [
        ("models", {"models": reply(b"<html>", headers=b"")}, "expected a JSON object in UTF-8, got '<html>'"),
        ("models", {"models": reply(b'{"data": {}}')}, 'expected a list of objects as "data"'),
        ("models", {"models": reply(b'{"data": []}')}, "expected one model at least, got []"),
        ("models", {"models": reply(b"oops", b"500 Oops")}, "expected 200 and a list of models, got 500 'oops'"),
        ("chat", {"chat": chat_with(object="text")}, "expected the object chat.completion, got 'text'"),
        ("chat", {"chat": chat_with(choices=[])}, "expected one choice"),
        ("usage", {"chat": chat_with(usage=None)}, "expected usage, got null"),
        (
            "usage",
            {"chat": chat_with(usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 9})},
            "expected a total of 4 tokens, got 9",
        ),
        ("stream", {"stream": stream_of(CHUNK, END)}, "expected [DONE] at the end"),
        ("stream", {"stream": stream_of(CHUNK, DONE)}, "expected one finish_reason, got []"),
        ("stream", {"stream": stream_of(b"data: {oops\n\n", DONE)}, "expected a JSON object"),
        ("stream", {"stream": stream_of(b'data: {"error":"oops"}\n\n', DONE)}, "expected no error in the stream"),
        ("stream", {"stream": chat_with()}, "expected content-type text/event-stream"),
        ("stream", {"stream": STREAM_HEAD + b"5\r\nhe"}, "expected an answer"),
        ("unknown-model", {}, "expected a status of 4xx, got 200"),
        ("stream-refused", {}, "expected a status of 4xx, got 200"),
        ("bad-json", {}, "expected 400 and an error, got 200"),
        ("json-schema", {"chat": chat_with(choices=[{"message": {"content": "no"}, "finish_reason": "stop"}])},
         "expected a JSON object"),
        ("tools", {"chat": chat_with(choices=[{"message": {"content": "no"}, "finish_reason": "tool_calls"}])},
         "expected tool_calls"),
        ("unicode", {"chat": reply(b"\xff")}, "expected a JSON object in UTF-8"),
        (
            "framing",
            {"chat": chat_with().replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n", 1)},
            "expected one content-length",
        ),
        ("framing", {"stream": stream_of(DONE).replace(b"\r\n0\r\n", b"0\r\n")}, "expected a line end behind a chunk"),
        ("framing", {"stream": stream_of(DONE) + b"more"}, "expected nothing behind the last answer, got 'more'"),
        ("head", {}, "expected nothing behind the last answer"),
        ("gw-health", {"chat": reply(b"{}", b"404 No")}, "expected 200 for /health, got 404"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(
    quick: InProcess, check: str, wrong: dict[str, bytes], complaint: str
) -> None:
    with Impostor(**wrong) as impostor:
        done = quick.run("verify", impostor.url, "--only", check, "-m", "m", "--timeout", "1")
    assert done.code == 1
    _, line = done.out.splitlines()
    assert line.startswith(f"fail    {check}  ")
    assert complaint in line


def tokens_of(connection: socket.socket, body: bytes) -> int:
    """How many are asked for; the list of models is sent where nothing is."""
    if body:
        return int(json.loads(body)["max_tokens"])
    connection.sendall(reply(MODELS))
    return 0


def test_a_stream_that_is_held_back_is_noticed(quick: InProcess) -> None:
    def held_back(connection: socket.socket, _: bytes, body: bytes) -> None:
        if tokens := tokens_of(connection, body):
            time.sleep(tokens * 0.005)
            connection.sendall(stream_of(CHUNK * tokens, END, DONE))

    with Upstream(held_back) as upstream:
        done = quick.run("verify", upstream.url, "--only", "stream-flows")
    assert done.code == 1
    assert "at the end" in done.out


def test_a_stream_that_flows_is_not_complained_of(quick: InProcess) -> None:
    def flowing(connection: socket.socket, _: bytes, body: bytes) -> None:
        if tokens := tokens_of(connection, body):
            connection.sendall(STREAM_HEAD)
            for _number in range(tokens):
                connection.sendall(chunked(CHUNK))
                time.sleep(0.005)
            connection.sendall(chunked(END) + chunked(DONE) + b"0\r\n\r\n")

    with Upstream(flowing) as upstream:
        done = quick.run("verify", upstream.url, "--only", "stream-flows")
    assert (done.code, rows(done.out)) == (0, {"stream-flows": "pass"})


def test_silence_is_a_failure_after_the_timeout(quick: InProcess) -> None:
    def silent(connection: socket.socket, head: bytes, _: bytes) -> None:
        if head.startswith(b"GET"):
            connection.sendall(reply(MODELS))
        else:
            time.sleep(1)

    with Upstream(silent) as upstream:
        done = quick.run("verify", upstream.url, "--only", "chat", "--timeout", "0.3")
    assert done.code == 1
    assert "expected an answer within 0.3 s, got none" in done.out


def test_what_cannot_be_checked_is_skipped_with_the_reason(quick: InProcess) -> None:
    with Impostor(models=reply(b'{"object":"list","data":[]}')) as impostor:
        done = quick.run("verify", impostor.url, "--only", "chat", "--only", "embed*", "--only", "no-key")
    assert done.code == 0
    assert set(rows(done.out).values()) == {"skip"}
    for reason in ("--model", "--embedding-model", "no key was given"):
        assert reason in done.out


def test_an_open_gateway_makes_checks_of_keys_needless(quick: InProcess) -> None:
    with Impostor() as impostor:
        done = quick.run("verify", impostor.url, "--only", "*key", "--only", "gw-keys", "--api-key", "k")
    assert done.code == 0
    assert done.out.count("the gateway answers without a key") == 3


def test_a_gateway_that_shows_the_key_is_told_so_without_showing_it(quick: InProcess) -> None:
    with Impostor(models=reply(b'{"data":[{"id":"m","debug":"Bearer sk-hidden-1"}]}')) as impostor:
        done = quick.run("verify", impostor.url, "--only", "key-hidden", "-v", "--api-key", "sk-hidden-1")
    assert done.code == 1
    assert "got it in the body" in done.out
    assert "sk-hidden-1" not in done.out + done.err


# --- nobody, and wrong use


def test_nobody_listens(quick: InProcess, tmp_path: Path) -> None:
    with Upstream(lambda *_: None) as upstream:
        url = upstream.url
    done = quick.run("verify", url)
    assert (done.code, done.out, done.err) == (2, "", f"gw-cli: {url}: Connection refused\n")
    done = quick.run("verify", f"unix:{tmp_path}/none")
    assert (done.code, done.err) == (2, f"gw-cli: unix:{tmp_path}/none: No such file or directory\n")
    done = quick.run("verify", "http://nowhere.invalid:1")
    assert done.code == 2
    assert done.err.startswith("gw-cli: http://nowhere.invalid:1: ")


def test_somebody_who_does_not_speak_http(quick: InProcess) -> None:
    def other(connection: socket.socket, _: bytes, __: bytes) -> None:
        connection.sendall(b"+OK ready\r\n")
        connection.close()

    with Upstream(other) as upstream:
        done = quick.run("verify", upstream.url)
        assert done.code == 2
        assert "no HTTP server" in done.err
        done = quick.run("verify", upstream.url.replace("http:", "https:"), "--timeout", "0.5")
        assert done.code == 2
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["localhost:8080"], "a URL begins with http://, https:// or unix:/"),
        (["ftp://localhost"], "a URL begins with http://, https:// or unix:/"),
        (["http://"], "there is no host in it"),
        (["http://localhost:many"], "Port could not be cast"),
        (["http://user:secret@localhost"], "use --api-key"),
        (["http://localhost/v1?x=1"], "without query"),
        (["unix:relative.sock"], "by its whole path"),
        (["http://localhost", "--only", "nothing"], "there is no check 'nothing'"),
        (["http://localhost", "--only", "gw-health", "--standard-only"], "there is no check 'gw-health'"),
        (["http://localhost", "--timeout", "0"], "--timeout"),
        (["http://localhost", "--api-key", "a\nb"], "printable ASCII"),
        ([], "name the URL of a gateway"),
    ],
)
def test_wrong_use(quick: InProcess, args: list[str], complaint: str) -> None:
    done = quick.run("verify", *args)
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert "secret" not in done.err


# --- pieces


def test_targets() -> None:
    assert Target.parse("http://h:1/v1") == Target(url="http://h:1/v1", host="h", port=1)
    assert Target.parse("https://h/llm/v1/").root == "/llm"
    assert Target.parse("https://h").port == 443
    assert Target.parse("https://h:443").host_header == "h"
    assert Target.parse("http://[::1]:8080").host_header == "[::1]:8080"
    assert Target.parse("unix:///run/s").socket_path == "/run/s"
    assert Target.parse("unix:/run/s").host_header == "localhost"


def test_standard_only() -> None:
    left = select_checks((), standard_only=True)
    assert left
    assert {check.group for check in left} == {Group.STANDARD}
    assert not any(check.name.startswith("gw-") for check in left)
    assert all(check.name.startswith("gw-") == (check.group is Group.GATEWRIGHT) for check in CHECKS)


def test_answers_are_taken_apart_strictly() -> None:
    whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nContent-Length: 2\r\n\r\nhi"
    answer = read_answer(whole, "GET")
    assert answer == Answer(200, (("a", "1"), ("a", "2"), ("content-length", "2")), b"hi")
    assert answer.values("a") == ["1", "2"]
    assert [each.body for each in read_answers(whole + whole, "GET", "GET")] == [b"hi", b"hi"]
    chunks = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n"
    )
    assert read_answer(chunks, "GET").body == b"hi!"
    assert read_answer(b"HTTP/1.0 200 OK\r\n\r\nto the end", "GET").body == b"to the end"
    assert read_answer(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET").body == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSpace : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Type: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ],
)
def test_answers_that_are_none(data: bytes) -> None:
    with pytest.raises(Failed):
        read_answer(data, "GET")


def test_values_are_shown_in_one_short_line() -> None:
    assert shown(b"a\nb\xff") == r"'a\nb\ufffd'"
    assert shown({"a": None}) == '{"a": null}'
    assert len(shown("x" * 1000)) < 130
    with pytest.raises(Failed, match="expected this, got 'that'"):
        expect(False, "this", "that")  # noqa: FBT003  # the condition itself


# --- the documentation


def commands(document: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("gw-cli verify")]


@pytest.mark.engine
@pytest.mark.parametrize("document", ["cli.md", "operations.md"])
def test_documented_commands_run(quick: InProcess, gateway: Gateway, document: str) -> None:
    assert commands(document)
    far = '{ name = "far", engine = presets.engines.openai, connect = "http://127.0.0.1:1" }'
    quick.write_config(far, server=f'listen_v4 = "127.0.0.1:{gateway.port}", listen_v6 = "none"')
    for command in commands(document):
        here = command.replace("http://127.0.0.1:8080", gateway.url).replace(
            "unix:/run/gatewright.sock", socket_of(gateway)
        )
        done = quick.run(*shlex.split(here)[1:], GATEWRIGHT_API_KEY=KEY)
        assert done.code == 0, (command, done.out, done.err)


def test_the_table_in_the_documentation_shows_what_is_printed() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    table = text.partition("RESULT  CHECK")[2].partition("```")[0]
    promises = {check.name: check.promise for check in CHECKS}
    passed = re.findall(r"^pass +(\S+) +(.*)$", table, re.MULTILINE)
    assert len(passed) >= 3
    assert all(promises[name] == promise for name, promise in passed)
    for name in re.findall(r"^(?:fail|skip) +(\S+)", table, re.MULTILINE):
        assert name in promises
