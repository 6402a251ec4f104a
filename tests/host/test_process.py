import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from gatewright.commands import StopSignal
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright_host import process as module
from gatewright_host.ports import Ports
from gatewright_host.process import MARKER, EngineProcess, SpawnError
from tests.host.conftest import Run
from tests.support.host import PATIENCE_S, fake_spec, is_running, until, until_blocking


def script(text: str, **process: object) -> EngineSpec:
    """An engine that is a line of Python."""
    spec = ProcessSpec(binary=sys.executable, args=("-S", "-E", "-c", text), **process)  # type: ignore[arg-type]
    return EngineSpec(model="m", context_tokens=8, connect="http://127.0.0.1:${PORT}", process=spec)


class Spawned:
    """A spawned engine and how it ended."""

    def __init__(self, spec: EngineSpec, ports: Ports | None = None) -> None:
        self.reasons: list[str] = []
        self.engine = EngineProcess.spawn(spec, ports or Ports(), None, "run/1", self.reasons.append)

    @property
    def lines(self) -> list[str]:
        return [text for _, text in self.engine.log.lines]

    async def end(self) -> str:
        await until(lambda: self.reasons)
        assert len(self.reasons) == 1
        assert not is_running(self.engine.pid)
        return self.reasons[0]


def test_its_end_tells_code_and_cause(run: Run) -> None:
    async def main() -> None:
        spawned = Spawned(fake_spec("exit"))
        assert await spawned.end() == "exit code 3: model: unable to allocate 9 GiB"

    run(main())


def test_a_signal_is_named(run: Run) -> None:
    async def main() -> None:
        spawned = Spawned(script("import os; os.kill(os.getpid(), 11)"))
        assert await spawned.end() == "killed by SIGSEGV"

    run(main())


def test_a_reason_is_one_short_line(run: Run) -> None:
    async def main() -> None:
        reason = await Spawned(script("import sys; sys.exit('error: ' + 'x ' * 5000)")).end()
        assert reason.startswith("exit code 1: error: x x")
        assert len(reason) <= 300

    run(main())


def test_all_output_is_heard_to_its_last_line(run: Run) -> None:
    async def main() -> None:
        text = "import os\nfor n in range(5000): os.write(1 + n % 2, b'line %d\\n' % n)\nos.write(2, b'rest')"
        spawned = Spawned(script(text))
        await spawned.end()
        assert spawned.lines == [f"line {number}" for number in range(4801, 5000)] + ["rest"]

    run(main())


def test_an_endless_talker_does_not_stop_the_loop(run: Run) -> None:
    async def main() -> None:
        spawned = Spawned(script("import os\nwhile True: os.write(1, b'x' * 60 + b'\\n')"))
        await until(lambda: len(spawned.lines) == 200)
        spawned.engine.send_signal(StopSignal.KILL)
        assert await spawned.end() == "killed by SIGKILL"

    run(main())


def test_it_hears_nothing_and_lives_in_its_own_session(run: Run) -> None:
    async def main() -> None:
        text = f"import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == os.getpid(), os.environ['{MARKER}'])"
        spawned = Spawned(script(text))
        await spawned.end()
        assert spawned.lines == ["'' True run/1"]

    run(main())


@pytest.mark.parametrize(
    ("model", "env", "alias"),
    [("qwen3", (), "qwen3"), ("qwen3", (("LLAMA_ARG_ALIAS", "own"),), "own"), ("a,b", (), None)],
)
def test_an_engine_is_told_its_models_name(
    run: Run, model: str, env: tuple[tuple[str, str], ...], alias: str | None
) -> None:
    async def main() -> None:
        text = "import os; print(os.environ.get('LLAMA_ARG_ALIAS'))"
        spawned = Spawned(evolve(script(text, env=env), model=model))
        await spawned.end()
        assert spawned.lines == [str(alias)]

    run(main())


def test_environment_and_directory_are_set(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        text = "import os; print(os.getcwd(), os.environ['WHERE'], os.environ['PATH'])"
        spawned = Spawned(script(text, env=(("WHERE", "port ${PORT}"),), work_dir=str(tmp_path)))
        await spawned.end()
        port = spawned.engine.base_url.rpartition(":")[2]
        assert spawned.lines == [f"{tmp_path} port {port} {os.environ['PATH']}"]

    run(main())


def test_it_inherits_no_files(run: Run) -> None:
    async def main() -> None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(descriptor, True)  # noqa: FBT003  # a positional-only argument
        spawned = Spawned(script("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"))
        await spawned.end()
        os.close(descriptor)
        assert spawned.lines == ["[0, 1, 2, 3]"]  # 3 lists the directory

    run(main())


@pytest.mark.parametrize("mode", ["family", "orphans"])
def test_its_end_is_the_end_of_its_whole_group(run: Run, tmp_path: Path, mode: str) -> None:
    async def main() -> None:
        file = tmp_path / "child"
        spawned = Spawned(fake_spec(mode, "--child-file", str(file)))
        await until(lambda: file.exists() and file.read_text())
        child = int(file.read_text())
        assert is_running(child)
        if mode == "orphans":
            await until(lambda: spawned.lines)
            _, writer = await asyncio.open_connection(
                "127.0.0.1", int(spawned.engine.base_url.rpartition(":")[2])
            )
            writer.write(b"GET /quit HTTP/1.1\r\n\r\n")
            assert (await spawned.end()).startswith("exit code 0")
            writer.close()
        else:
            spawned.engine.send_signal(StopSignal.TERMINATE)
            assert await spawned.end() == "killed by SIGTERM"
        assert not is_running(child)

    run(main())


def test_who_ignores_sigterm_is_killed(run: Run) -> None:
    async def main() -> None:
        spawned = Spawned(fake_spec("deaf"))
        await until(lambda: spawned.lines)
        spawned.engine.send_signal(StopSignal.TERMINATE)
        await asyncio.sleep(0.1)
        assert is_running(spawned.engine.pid)
        spawned.engine.send_signal(StopSignal.KILL)
        assert await spawned.end() == "killed by SIGKILL"
        spawned.engine.send_signal(StopSignal.KILL)  # its number may be somebody else's now

    run(main())


def test_it_works_without_pidfd(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")

    async def main() -> None:
        assert (await Spawned(fake_spec("exit")).end()).startswith("exit code 3")

    run(main())


def test_a_port_returns_when_its_engine_is_gone(run: Run) -> None:
    async def main() -> None:
        ports = Ports()
        spawned = Spawned(fake_spec("exit"), ports)
        assert ports._given
        await spawned.end()
        assert not ports._given

    run(main())


def test_what_cannot_be_started_is_said_in_one_line(run: Run, tmp_path: Path) -> None:
    plain, text, directory = tmp_path / "plain", tmp_path / "text", tmp_path / "absent"
    plain.write_text("#!/bin/sh\n")
    text.write_text("no program")
    text.chmod(0o755)
    fine = script("pass").process
    assert fine is not None
    cases = {
        f"{tmp_path}/missing: No such file or directory": evolve(fine, binary=f"{tmp_path}/missing"),
        "llama-sevrer is not on PATH": evolve(fine, binary="llama-sevrer"),
        f"{plain}: Permission denied": evolve(fine, binary=str(plain)),
        f"{text}: Exec format error": evolve(fine, binary=str(text)),
        f"work_dir {directory}: No such file or directory": evolve(fine, work_dir=str(directory)),
        "embedded null byte": evolve(fine, args=("\0",)),
    }

    async def main() -> None:
        ports = Ports()
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # only counted
        for expected, process in cases.items():
            with pytest.raises(SpawnError) as caught:
                Spawned(evolve(script("pass"), process=process), ports)
            assert str(caught.value) == expected
        assert not ports._given
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  # as above

    run(main())


def test_no_free_port_is_said_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(*_: object) -> int:
        raise OSError("no free port on x")

    monkeypatch.setattr(Ports, "choose", choose)

    async def main() -> None:
        with pytest.raises(SpawnError, match="no free port on x"):
            Spawned(fake_spec())

    run(main())


def test_the_last_resort_leaves_nothing(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "child"
        spawned = Spawned(fake_spec("family", "--child-file", str(file)))
        await until(lambda: file.exists() and file.read_text())
        spawned.engine.kill_and_forget()
        spawned.engine.kill_and_forget()
        assert not is_running(spawned.engine.pid)
        await until(lambda: not is_running(int(file.read_text())))
        assert spawned.reasons == []

    run(main())


PARENT = """
import asyncio, sys
from gatewright_host.process import EngineProcess
from gatewright_host.ports import Ports
from tests.support.host import fake_spec

async def main():
    engine = EngineProcess.spawn(fake_spec("deaf"), Ports(), None, "run/1", print)
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux only")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_dies_with_a_killed_parent(loop: str) -> None:
    command = [sys.executable, "-c", PARENT, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(PATIENCE_S)
    until_blocking(lambda: not is_running(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux only")
def test_a_child_whose_parent_died_early_ends_before_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1 << 30)
    prepare = module.die_with_parent()
    with subprocess.Popen([sys.executable, "-c", "print('ran')"], stdout=-1, preexec_fn=prepare) as child:  # noqa: PLW1509  # what is tested
        assert child.stdout is not None
        assert child.stdout.read() == b""
    assert child.returncode == 1
