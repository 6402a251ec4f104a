"""The examples of docs/api.md and README.md, run as they stand against a real server."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewright import errors
from gatewright_host.lua_config import load_lua
from tests.support.gateway import Gateway, model_lua

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def gateway(tiny_model: Path) -> Iterator[Gateway]:
    routes = """
        routes = {
            auto = {
                experiment = {
                    name = "tone",
                    arms = { { name = "plain", share = 0.5 }, { name = "formal", share = 0.5 } },
                },
            },
        }
        budgets = { { name = "monthly", limit = 50 } }
    """
    with Gateway(model_lua("qwen", tiny_model, (1024,), slots=2), more=routes) as running:
        yield running


@pytest.mark.engine
@pytest.mark.parametrize("command", blocks(API, "sh"))
def test_commands(gateway: Gateway, command: str) -> None:
    here = command.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.port}")
    done = subprocess.run(["sh", "-ec", here], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert ("data: [DONE]" in done.stdout) == ('"stream": true' in command)


@pytest.mark.engine
@pytest.mark.parametrize("program", [*blocks(API, "python"), *blocks(README, "python")])
def test_programs(gateway: Gateway, program: str) -> None:
    here = program.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.port}")
    done = subprocess.run(
        [sys.executable, "-c", here], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("text", blocks(README, "lua"))
def test_the_readme_s_configuration_is_valid_and_raises_no_suspicion(tmp_path: Path, text: str) -> None:
    from gatewright.configuration.schema import config_warnings, read_config  # noqa: PLC0415  # beside their one use

    path = tmp_path / "gatewright.lua"
    path.write_text(text)
    config = read_config(load_lua(path))
    assert config.models
    assert list(config_warnings(config)) == []


def test_every_error_code_is_documented() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {
        kind.code
        for kind in classes
        if issubclass(kind, errors.GatewrightError) and isinstance(kind.code, str)
    }
    # Never sent to a client: a count that finds no engine goes on without one.
    assert {code for code in codes - {"engine_not_ready"} if f"`{code}`" not in API} == set()
