"""`gw-cli ask` with a route: the model is chosen, and what it came to is told and kept."""

import json
import socket

import pytest

from tests.cli.conftest import Cli
from tests.support.upstream import Upstream, reply

ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Blue."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}


def serve(connection: socket.socket, _head: bytes, _body: bytes) -> None:
    connection.sendall(reply(json.dumps(ANSWER).encode()))


def configure(cli: Cli, upstream: Upstream) -> None:
    common = "context = 32768, input_per_million"
    path = cli.write_config(
        upstream.lua("small", f'{common} = 1, quality = 0.6, capabilities = {{ "chat" }}'),
        upstream.lua("large", f'{common} = 100, quality = 0.9, capabilities = {{ "chat", "code" }}'),
    )
    path.write_text(path.read_text() + "routes = { auto = {} }\n")


@pytest.mark.parametrize(
    ("wishes", "model"),
    [(("--prefer", "cost"), "small"), (("--capability", "code", "--task", "review"), "large")],
)
def test_the_model_is_chosen_by_what_is_wished(cli: Cli, wishes: tuple[str, ...], model: str) -> None:
    with Upstream(serve) as upstream:
        configure(cli, upstream)
        done = cli.run("ask", "-v", "--no-stream", "-m", "auto", *wishes, "Why is the sky blue?")
        assert (done.code, done.out) == (0, "Blue.\n"), done.err
        ((_, body),) = [each for each in upstream.requests if each[1]]
    assert json.loads(body)["model"] == model
    assert "gatewright" not in json.loads(body), "what is said about the choice is not for the provider"
    told = {line.removeprefix("gw-cli: ") for line in done.err.splitlines()}
    assert any(line.startswith(f"auto: {model}: best of ") for line in told), told
    assert any(line.startswith("complexity ") for line in told)
    assert any(line.startswith("chain: " + model) for line in told)
    cost = {"small": "$0.0010", "large": "$0.1000"}[model]
    assert any(line.startswith(f"cost {cost}, estimated $") for line in told), told

    (row,) = json.loads(cli.run("usage", "--json").out)
    assert (row["model"], row["requests"], row["prompt_tokens"]) == (model, 1, 1000)
    (request_id,) = [line.removeprefix("request ") for line in told if line.startswith("request ")]
    assert cli.run("feedback", request_id, "--failure").code == 0
    (ranked,) = json.loads(cli.run("ranking", "--json").out)
    assert (ranked["model"], ranked["success_rate"], ranked["rated"]) == (model, 0.0, 1)
    assert f"auto: {model}: best of 2" in cli.run("explain", "--request", request_id).out


def test_nothing_is_judged_by_a_program_that_ends(cli: Cli) -> None:
    with Upstream(serve) as upstream:
        configure(cli, upstream)
        judged = 'routes = { auto = { judge = { model = "large", sample = 1 } } }'
        path = cli.directory / "gatewright.lua"
        path.write_text(path.read_text().replace("routes = { auto = {} }", judged))
        done = cli.run("ask", "-v", "--no-stream", "-m", "auto", "hi")
        assert (done.code, done.out) == (0, "Blue.\n"), done.err
        assert len([body for _, body in upstream.requests if body]) == 1
    assert "judge" not in done.err


def test_nobody_who_fits_is_a_failure_in_a_line(cli: Cli) -> None:
    with Upstream(serve) as upstream:
        configure(cli, upstream)
        done = cli.run("ask", "-m", "auto", "--min-quality", "1", "hi")
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert "no model of 2 fits" in done.err


@pytest.mark.parametrize(
    "wish", [("--max-cost", "-1"), ("--min-quality", "2"), ("--capability", "singing"), ("--prefer", "me")]
)
def test_a_wish_that_makes_no_sense_is_refused(cli: Cli, wish: tuple[str, ...]) -> None:
    done = cli.run("ask", "-m", "auto", *wish, "hi")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
