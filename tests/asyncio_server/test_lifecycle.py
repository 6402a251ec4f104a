"""gw-server from start to end: signals, drains, reloads, and what a kill leaves behind."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import SERVER, Gateway, model_lua, stream_lines, wait_until

pytestmark = pytest.mark.engine

LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "go on"}]}


def refuses_connections(gateway: Gateway) -> bool:
    try:
        gateway.request("GET", "/health", timeout_s=2)
    except OSError as error:  # who was let in may not be answered any more
        return isinstance(error, ConnectionRefusedError)
    return False


def test_sigterm_lets_a_stream_finish_and_leaves_nothing(slow_model: Path) -> None:
    with Gateway(model_lua("slow", slow_model, (4096,))) as gateway:
        gateway.chat("slow")
        with stream_lines(gateway, {"model": "slow", "max_tokens": 300, **LONG}) as response:
            response.read(16)
            os.kill(gateway.pid, signal.SIGTERM)
            wait_until(lambda: refuses_connections(gateway), "nobody new is let in")
            rest = response.read()
        assert rest.rstrip().endswith(b"data: [DONE]")
        assert gateway.stop() == 0
        assert not gateway.engines()


def test_a_second_signal_cuts_at_once(slow_model: Path) -> None:
    with Gateway(model_lua("slow", slow_model, (4096,))) as gateway:
        with stream_lines(gateway, {"model": "slow", "max_tokens": 3000, **LONG}) as response:
            response.read(16)
            os.kill(gateway.pid, signal.SIGINT)
            wait_until(lambda: "a second signal cuts" in gateway.log, "the drain begins")
            os.kill(gateway.pid, signal.SIGINT)
            rest = response.read()
        assert b"shutting_down" in rest
        assert b"[DONE]" not in rest
        assert gateway.stop() == 0


def test_the_shutdown_timeout_cuts(slow_model: Path) -> None:
    with Gateway(model_lua("slow", slow_model, (4096,)), server="shutdown_timeout = 1") as gateway:
        with stream_lines(gateway, {"model": "slow", "max_tokens": 3500, **LONG}) as response:
            response.read(16)
            os.kill(gateway.pid, signal.SIGTERM)
            rest = response.read()
        assert b"shutting_down" in rest or rest.rstrip().endswith(b"[DONE]")
        assert gateway.stop() == 0


def test_kill_9_of_the_server_takes_its_engines_along(tiny_model: Path) -> None:
    with Gateway(model_lua("tiny", tiny_model, (512,))) as gateway:
        gateway.chat("tiny")
        assert gateway.engines()
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.stop()
        wait_until(lambda: not gateway.engines(), "the engine goes with its host")
        gateway.start()
        assert gateway.chat("tiny")[0] == 200


def test_a_reload_touches_only_what_changed(tiny_model: Path, tiny_model_b: Path) -> None:
    one = model_lua("one", tiny_model, (512,))
    side = model_lua("side", tiny_model_b, (512,)).replace("llamacpp,", "llamacpp_secondary,")
    with Gateway(one, side) as gateway:
        gateway.chat("one")
        gateway.chat("side")
        before = {process.pid: process for process in gateway.engines()}
        assert len(before) == 2
        changed = side.replace('"--jinja"', '"--jinja", "--metrics"')
        gateway.write_config(one, changed, model_lua("new", tiny_model, (1024,)))
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: "configuration replaced" in gateway.log, "the reload")
        wait_until(lambda: len(gateway.engines()) == 1, "the changed engine stops")
        assert gateway.engines()[0].pid in before
        assert gateway.chat("side")[0] == 200
        assert gateway.chat("new")[0] == 200


def test_a_bad_file_changes_nothing(tiny_model: Path) -> None:
    good = model_lua("tiny", tiny_model, (512,))
    with Gateway(good) as gateway:
        gateway.chat("tiny")
        engine = gateway.engines()[0].pid
        gateway.config.write_text("server = {")
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: "configuration not replaced" in gateway.log, "the refusal")
        assert gateway.chat("tiny")[0] == 200
        assert gateway.engines()[0].pid == engine


def test_two_servers_share_one_set_of_engines(tiny_model: Path) -> None:
    model = model_lua("tiny", tiny_model, (512,), slots=2)
    with Gateway(model) as first:
        second = Gateway(model, env={"XDG_RUNTIME_DIR": str(first.directory)})
        second.config.write_text(first.config.read_text())
        try:
            second.start()
            assert first.chat("tiny")[0] == 200
            assert second.chat("tiny")[0] == 200
            assert len(first.engines()) == 1
            first.stop()
            wait_until(lambda: second.chat("tiny")[0] == 200, "the second server takes over")
        finally:
            assert second.stop() == 0
            shutil.rmtree(second.directory)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server = {", "gatewright.lua:"),
        ("models = { { name = 1 } }", "models[1].name"),
        ('server = { listen_v4 = "0.0.0.0:8080" }\nmodels = {}', "api_keys"),
    ],
)
def test_a_bad_configuration_exits_with_2_and_starts_nothing(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "gatewright.lua").write_text(text)
    done = subprocess.run([SERVER], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_no_configuration_says_what_to_do(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [SERVER], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False, env=env
    )
    assert done.returncode == 2
    assert "--model FILE.gguf" in done.stderr


def test_a_taken_port_is_one_line(tiny_model: Path) -> None:
    with Gateway(model_lua("tiny", tiny_model, (512,))) as gateway:
        command = [SERVER, "--config", gateway.config, "--listen", f"127.0.0.1:{gateway.port}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, env=gateway._env
        )
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{gateway.port}" in done.stderr
        assert "Traceback" not in done.stderr


def test_clients_that_wait_long_hear_of_it(tiny_model: Path, slow_model: Path) -> None:
    models = (model_lua("slow", slow_model, (4096,)), model_lua("tiny", tiny_model, (512,)))
    with Gateway(*models) as gateway:
        with contextlib.ExitStack() as stack:
            holding = stack.enter_context(
                stream_lines(gateway, {"model": "slow", "max_tokens": 3900, **LONG})
            )
            holding.read(16)
            holder = stack.pop_all()
            body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
            with stream_lines(gateway, body) as waiting:
                first = waiting.readline()
                holder.close()
                rest = waiting.read()
        assert first.startswith(b": gatewright: tiny@512 waiting for slow@4096")
        assert b"position 1" in first
        assert rest.rstrip().endswith(b"data: [DONE]")
