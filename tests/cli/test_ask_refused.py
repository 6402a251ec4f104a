"""`gw-cli ask` where a provider refuses: who said what is told."""

import json
import socket

import pytest

from tests.cli.conftest import Cli
from tests.support.upstream import STREAM_HEAD, Serve, Upstream, chunked, reply


def refusing(status: bytes, message: str = "boom") -> Serve:
    def serve(connection: socket.socket, _head: bytes, _body: bytes) -> None:
        connection.sendall(reply(json.dumps({"error": {"message": message}}).encode(), status))

    return serve


@pytest.mark.parametrize("status", [b"500 Oops", b"400 Bad"], ids=["after retries", "passed on as it came"])
def test_a_refusal_names_model_provider_and_status(cli: Cli, status: bytes) -> None:
    with Upstream(refusing(status)) as upstream:
        cli.write_config(upstream.lua("big"))
        done = cli.run("ask", "-m", "big", "hi")
    number = status.partition(b" ")[0].decode()
    assert (done.code, done.out, done.err) == (
        1,
        "",
        f"gw-cli: big ({upstream.url}) answered {number}: boom\n",
    )


def test_the_first_of_a_chain_is_the_one_that_is_named(cli: Cli) -> None:
    with Upstream(refusing(b"500 Oops")) as first, Upstream(refusing(b"503 No", "busy")) as second:
        cli.write_config(first.lua("big", 'fallbacks = { "small" }, retries = 0'), second.lua("small"))
        done = cli.run("ask", "-v", "-m", "big", "hi")
    lines = done.err.splitlines()
    assert lines[-1] == f"gw-cli: big ({first.url}) answered 500: boom"
    assert "gw-cli: in vain: small (503): busy" in lines


def test_an_error_in_a_stream_is_the_models_too(cli: Cli) -> None:
    def serve(connection: socket.socket, _head: bytes, _body: bytes) -> None:
        event = b'data: {"error":{"message":"boom","code":500}}\n\n'
        connection.sendall(STREAM_HEAD + chunked(event) + b"0\r\n\r\n")

    with Upstream(serve) as upstream:
        cli.write_config(upstream.lua("big"))
        done = cli.run("ask", "-m", "big", "hi")
    assert done.err == f"gw-cli: big ({upstream.url}) answered 500: boom\n"


def test_a_key_that_is_not_set_is_the_likeliest_reason(cli: Cli) -> None:
    with Upstream(refusing(b"401 No", "who are you?")) as upstream:
        cli.write_config(upstream.lua("big", 'api_key_env = "BIG_KEY"'))
        done = cli.run("ask", "-m", "big", "hi")
        known = cli.run("ask", "-m", "big", "hi", BIG_KEY="sk-1")
    said = f"gw-cli: big ({upstream.url}) answered 401: who are you?"
    assert done.err == f"{said} (the environment variable BIG_KEY is not set)\n"
    assert known.err == f"{said}\n"
