"""A server's trace replays into fresh machines with equal commands."""

from pathlib import Path

import pytest

from gatewright.config import Config
from gatewright.fleet import Fleet
from gatewright.gateway import Gateway as GatewayMachine
from gatewright.trace import read_line, replay
from tests.support.gateway import Gateway, model_lua


@pytest.mark.engine
def test_a_recorded_trace_replays_equal(tiny_model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    settings = 'api_keys = { "sk-secret" }'
    with Gateway(
        model_lua("tiny", tiny_model, (512, 2048)), server=settings, env={"GATEWRIGHT_TRACE": str(trace)}
    ) as gateway:
        keyed = {"Authorization": "Bearer sk-secret"}
        for text in ("hi", "a secret question " * 60, "hi again"):
            body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
            assert gateway.request("POST", "/v1/chat/completions", body, keyed)[0] == 200
        gateway.request("POST", "/v1/chat/completions", {**body, "model": "nobody"}, keyed)
    recorded = trace.read_bytes()
    assert b"secret" not in recorded
    lines = [read_line(line) for line in recorded.splitlines()]
    assert {line.machine for line in lines} == {"gateway", "fleet"}
    first = next(line.now for line in lines if line.machine == "fleet")
    assert (
        replay((line for line in lines if line.machine == "gateway"), GatewayMachine(Config(models=()))) == []
    )
    assert replay((line for line in lines if line.machine == "fleet"), Fleet(now=first)) == []
