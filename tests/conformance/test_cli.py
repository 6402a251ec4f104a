"""`gw-cli ask` as a transport: what there is of all this where no HTTP is spoken."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pytest

from tests.cli.conftest import PATIENCE_S, Cli, same_logging
from tests.conformance.scripted import KEY_VARIABLE, PROVIDER_KEY, Provider
from tests.conformance.test_engines import LONG_TOKENS, SCHEMA
from tests.conformance.test_relay import UNICODE
from tests.conformance.transports import Models

pytestmark = pytest.mark.engine

__all__ = ["same_logging"]  # a fixture that runs by itself


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture(scope="module")
def cli(models: Models, provider: Provider) -> Iterator[Cli]:
    runner = Cli()
    runner.env[KEY_VARIABLE] = PROVIDER_KEY
    runner.write_config(*models.lua(), *provider.models())
    yield runner
    runner.close()


def test_an_answer(cli: Cli) -> None:
    done = cli.run("ask", "-m", "gpt-4o", "--max-tokens", "8", "hi")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip()


@pytest.mark.parametrize("extra", [(), ("--no-stream",)])
def test_unicode_there_and_back(cli: Cli, extra: tuple[str, ...]) -> None:
    done = cli.run("ask", "-m", "echo", *extra, UNICODE)
    assert (done.code, done.out, done.err) == (0, f"{UNICODE}\n", "")


def test_an_unknown_model(cli: Cli) -> None:
    done = cli.run("ask", "-m", "nobody", "hi")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("gw-cli: Model 'nobody' not found in configuration")


def test_a_schema_is_obeyed(cli: Cli) -> None:
    (cli.directory / "schema.json").write_text(json.dumps(SCHEMA))
    done = cli.run("ask", "-m", "tiny", "--schema", "schema.json", "--max-tokens", "100", "weather?")
    assert done.code == 0, done.err
    assert json.loads(done.out).keys() == SCHEMA["properties"].keys()


def test_two_models_take_turns_in_one_place(cli: Cli) -> None:
    for name in ("tiny", "other", "tiny"):
        assert cli.run("ask", "-m", name, "--max-tokens", "1", "hi").code == 0
        models = {engine["model"] for engine in cli.engines()} & {"tiny", "other"}
        assert models == {name}


def test_an_overflow_in_the_engine_is_healed_unseen(cli: Cli) -> None:
    done = cli.run("ask", "-m", "liar", "--max-tokens", "8", stdin="word " * 600)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip()
    assert {engine["context_tokens"] for engine in cli.engines() if engine["model"] == "liar"} >= {4096}


def test_a_megabyte_is_too_much_for_a_small_model_and_said_so(cli: Cli) -> None:
    done = cli.run("ask", "-m", "tiny", stdin="word " * 210_000)
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith("gw-cli: Request requires ")
    assert line.endswith("tokens, but largest variant only supports 2048")


def test_a_megabyte_arrives_where_there_is_room(cli: Cli, provider: Provider) -> None:
    text = "Wört " * 180_000
    done = cli.run("ask", "-m", "deaf", "--no-stream", stdin=text)
    assert (done.code, done.out) == (0, "taken\n")
    assert json.loads(provider.last()[1])["messages"][-1]["content"].strip() == text.strip()


def test_an_interrupt_stops_the_engines_work(cli: Cli) -> None:
    asking = cli.start("ask", "-m", "slow", "--max-tokens", str(LONG_TOKENS), "go on")
    assert cast("IO[bytes]", asking.stdout).read(1)
    asking.send_signal(signal.SIGINT)
    _, err = asking.communicate(timeout=PATIENCE_S)
    assert (asking.returncode, err) == (130, b"")
    cli.wait_leases(0)
    assert cli.run("ask", "-m", "slow", "--max-tokens", "1", "--timeout", "4", "hi").code == 0


def test_an_answer_that_breaks_off_is_no_success(cli: Cli) -> None:
    done = cli.run("ask", "-m", "short", "hi")
    assert (done.code, done.out) == (1, "word \n")
    assert "broke off" in done.err


def test_errors_of_a_provider_and_its_key(cli: Cli, provider: Provider) -> None:
    done = cli.run("ask", "-m", "refuses", "hi")
    assert (done.code, done.out) == (1, "")
    assert PROVIDER_KEY.encode() in provider.last()[0]
    for shown in (done.err, cli.run("ask", "-v", "-m", "deaf", "hi").err):
        assert PROVIDER_KEY not in shown


def test_a_configuration_that_is_not_valid(cli: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "bad.lua"
    bad.write_text('server = { max_waiting = "many" }\nmodels = { { nam = "x" } }\n')
    done = cli.run("ask", "--config", bad, "hi")
    assert (done.code, done.out) == (2, "")
    assert "server.max_waiting" in done.err
    assert "models[1]" in done.err
