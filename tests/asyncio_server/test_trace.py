"""A server's trace replays into fresh machines with equal commands."""

import os
import signal
from pathlib import Path

import pytest

from gatewright.config import Config
from gatewright.events import ConfigReplaced, FleetStarted, GatewayStarted
from gatewright.tracing.replay import replay
from gatewright.tracing.trace import TraceLine, read_line
from gatewright_host.driving import make_chance
from tests.support.gateway import Gateway, model_lua, wait_until


def lines_of(trace: Path) -> list[TraceLine]:
    return [read_line(line) for line in trace.read_bytes().splitlines()]


@pytest.mark.engine
def test_a_recorded_trace_replays_equal_and_holds_no_text(tiny_model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    settings = 'api_keys = { "sk-secret" }'
    model = model_lua("tiny", tiny_model, (512, 2048))
    with Gateway(model, server=settings, env={"GATEWRIGHT_TRACE": str(trace)}) as gateway:
        keyed = {"Authorization": "Bearer sk-secret"}
        for text in ("hi", "a secret question " * 60, "hi again"):
            body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
            assert gateway.request("POST", "/v1/chat/completions", body, keyed)[0] == 200
        body |= {"messages": [{"role": "system", "content": "secret"}], "user": "secret", "stop": ["secret"]}
        body |= {"tools": [{"type": "function", "function": {"name": "secret_f", "parameters": {}}}]}
        gateway.request("POST", "/v1/chat/completions?key=secret", body, keyed)
        gateway.request("POST", "/v1/chat/completions", {**body, "model": "nobody"}, keyed)
        gateway.write_config(model.replace("answer_tokens = 64", "answer_tokens = 32"))
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: "configuration replaced" in gateway.log, "the configuration is replaced")
        gateway.request("POST", "/v1/chat/completions", body, keyed)
    assert b"secret" not in trace.read_bytes()
    lines = lines_of(trace)
    started = [line.event for line in lines if isinstance(line.event, GatewayStarted | FleetStarted)]
    assert len(started) == 2
    (replaced,) = [line.event for line in lines if isinstance(line.event, ConfigReplaced)]
    assert isinstance(replaced.config, Config)
    steps = list(replay(lines, make_chance))
    assert len(steps) == len(lines) - 2 > 30
    assert [step for step in steps if step.differs] == []
    assert {step.run.machine for step in steps} == {"gateway", "fleet"}
    assert len({step.run.source for step in steps}) == 1


def test_two_servers_may_write_to_one_file(tmp_path: Path) -> None:
    """Each with a state directory, and so with engines, of its own."""
    trace = tmp_path / "trace.jsonl"
    nowhere = '{ name = "far", engine = presets.engines.openai, connect = "http://127.0.0.1:1" }'
    env = {"GATEWRIGHT_TRACE": str(trace)}
    with Gateway(nowhere, env=env) as one, Gateway(nowhere, env=env) as other:
        for gateway in (one, other):
            assert gateway.chat("far")[0] == 502
    steps = list(replay(lines_of(trace), make_chance))
    assert {step.run.source for step in steps} == {str(one.pid), str(other.pid)}
    assert [step for step in steps if step.differs] == []


def test_a_trace_that_cannot_be_written_is_reported_at_once() -> None:
    gateway = Gateway("", env={"GATEWRIGHT_TRACE": "/nowhere/trace.jsonl"})
    gateway.write_config('{ name = "far", engine = presets.engines.openai, connect = "http://127.0.0.1:1" }')
    with (
        pytest.raises(AssertionError, match=r"exited with 1:\ngw-server: .*/nowhere/trace.jsonl"),
        gateway,
    ):
        pass
