"""One file for all: workers, a script and the engine host that they share."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gatewright.tracing.projection import project
from gatewright.tracing.replay import replay
from gatewright.tracing.trace import read_line
from gatewright_host.driving import make_chance
from tests.parity.scenario import local_model
from tests.support.gateway import wait_until
from tests.support.gunicorn import GunicornGateway

CLI = Path(sys.executable).with_name("gw-cli")
REQUESTS = 24


def test_whoever_writes_to_it_can_be_told_apart(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    gateway = GunicornGateway(local_model("local", 4096), workers=2, env={"GATEWRIGHT_TRACE": str(trace)})
    with gateway, ThreadPoolExecutor(8) as pool:
        asked = [CLI, "ask", "--config", gateway.config, "plain"]
        script = subprocess.Popen(asked, env=gateway._env, stdout=subprocess.PIPE, text=True)
        answers = list(pool.map(lambda _: gateway.chat("local", "plain")[0], range(REQUESTS)))
        assert script.communicate(timeout=30)[0] == "one two\n"
        assert answers == [200] * REQUESTS
        wait_until(lambda: trace.read_bytes().count(b"RecordRequest") == REQUESTS + 1, "all is recorded")
    lines = [read_line(line) for line in trace.read_bytes().splitlines()]
    steps = list(replay(lines, make_chance))
    assert [step for step in steps if step.differs or step.raised] == []
    runs = {step.run for step in steps}
    gateways = [run for run in runs if run.machine == "gateway"]
    assert 2 <= len(gateways) <= 3  # a worker may have had nothing to do
    assert len([run for run in runs if run.machine == "fleet"]) == 1
    assert all(run.again is not None for run in runs)
    assert len(project(lines)) == REQUESTS + 1
