"""Without any configuration: the demo model that comes with the engine."""

from importlib.resources import files

import pytest

from tests.cli.conftest import Cli

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not (files("gatewright_host") / "data" / "demo.gguf").is_file(),
        reason="the demo model is not built yet",
    ),
]


def test_the_demo_answers_and_says_that_it_is_one(cli: Cli) -> None:
    done = cli.run("ask", "What is Gatewright?")
    assert done.code == 0
    assert "gatewright" in done.out.lower()
    assert done.err.startswith("gw-cli: this is the bundled demo model")
    assert "--model FILE.gguf" in done.err
    assert done.err.count("\n") == 1


def test_the_demo_is_what_the_other_commands_mean_too(cli: Cli) -> None:
    assert "gatewright-demo" in cli.run("models").out
    assert "gatewright-demo" in cli.run("explain", "What is Gatewright?").out
