"""One engine process: started in a group of its own, heard, signalled, and reported gone with its whole group."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gatewright.commands import StopSignal
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright_host.engine_log import EngineLog, EnginesLogFile, LineSplitter
from gatewright_host.ports import Ports
from gatewright_host.process_group import kill_group, living_members

MARKER: Final = "GATEWRIGHT_ENGINE"
"""Environment variable by which a sweep recognises an engine's processes after their leader is gone."""

_READ_BYTES: Final = 16_384
"""At a time: a chatty engine must not keep the loop from everything else for longer than a millisecond or two."""
_FIRST_GROUP_CHECK_S: Final = 0.005
_LONGEST_GROUP_CHECK_S: Final = 0.25
_LAST_WAIT_S: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1
_SIGNALS: Final = {StopSignal.TERMINATE: signal.SIGTERM, StopSignal.KILL: signal.SIGKILL}


class SpawnError(Exception):
    """An engine could not be started; the message is one line for people."""


def die_with_parent() -> Callable[[], None] | None:
    """What a child does before exec so that the kernel kills it when we die; None where there is no such thing.

    The kernel watches the *thread* that forks, so engines are spawned in the event loop's thread and not in a
    thread of a pool, which may end earlier.

    Python warns of `preexec_fn` because the child of a process with threads may find locks held that nobody
    will release. This one takes none: everything that it needs is looked up here, in the parent, and between
    fork and exec it makes two system calls (glibc itself puts malloc's locks right after a fork).
    """
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415  # clients wait for hosts to come up, and no engine runs yet then

    prctl, getppid, exit_now = ctypes.CDLL(None).prctl, os.getppid, os._exit  # its public name
    request, number, parent = ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL), os.getpid()

    def prepare() -> None:
        prctl(request, number)
        if getppid() != parent:  # it died before the request was made
            exit_now(1)

    return prepare


class EngineProcess:
    """A running engine. Made by `EngineProcess.spawn`; everything happens in the thread of its event loop.

    Attributes:
        label: Its name for people, such as `qwen3@8192`.
        pid: Process id, which is also its process group and session.
        base_url: Where it will listen.
        log: What it prints.
    """

    def __init__(
        self, label: str, base_url: str, log: EngineLog, spawned: "subprocess.Popen[bytes]", output: int
    ) -> None:
        self.label = label
        self.pid = spawned.pid
        self.base_url = base_url
        self.log = log
        self._spawned = spawned
        self._output: int | None = output
        self._lines = LineSplitter()
        self._loop = asyncio.get_running_loop()
        self._leader: int | None = None
        self._check: asyncio.TimerHandle | None = None
        self._on_exit: Callable[[str], None] | None = None
        self._was_signalled = False

    @classmethod
    def spawn(
        cls,
        spec: EngineSpec,
        ports: Ports,
        file: EnginesLogFile | None,
        marker: str,
        on_exit: Callable[[str], None],
    ) -> "EngineProcess":
        """Start it.

        Args:
            spec: What to run.
            ports: Where its port comes from and returns to.
            file: Where its lines go.
            marker: Value of `MARKER` in its environment.
            on_exit: Called once, when the last process of its group has ended, with the reason.

        Raises:
            SpawnError: It cannot be started.
        """
        try:
            filled = ports.fill(spec)
        except OSError as error:
            raise SpawnError(f"no free port: {error}") from error

        def exited(reason: str) -> None:
            ports.give_back(filled.port)
            on_exit(reason)

        try:
            spawned, output = _popen(filled.process, _environment(spec, filled.process, marker))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            ports.give_back(filled.port)
            raise SpawnError(_explain(filled.process, error)) from error
        log = EngineLog(spec.label, file)
        log.pid = spawned.pid
        engine = cls(spec.label, filled.base_url, log, spawned, output)
        engine._watch(exited)  # its own class
        return engine

    def send_signal(self, which: StopSignal) -> None:
        """Signal the whole group."""
        if self._on_exit is not None:
            self._was_signalled = True
            kill_group(self.pid, _SIGNALS[which])

    def kill_and_forget(self) -> None:
        """Last resort of a host that ends at once: kill the group, wait for its leader, report nothing."""
        if self._on_exit is None:
            return
        self._on_exit = None
        kill_group(self.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._spawned.wait(_LAST_WAIT_S)
        self._close()

    # --- its end

    def _watch(self, on_exit: Callable[[str], None]) -> None:
        self._on_exit = on_exit
        assert self._output is not None
        self._loop.add_reader(self._output, self._read)
        try:
            self._leader = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # no such system call here
            threading.Thread(target=self._wait_in_thread, name=f"engine-{self.pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._leader, self._leader_ended)

    def _wait_in_thread(self) -> None:
        self._spawned.wait()
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._leader_ended)

    def _leader_ended(self) -> None:
        """The leader has ended. Not reaped yet, it keeps the group's number from being given to others."""
        if self._leader is not None:
            self._loop.remove_reader(self._leader)
            os.close(self._leader)
            self._leader = None
        self._check_group(_FIRST_GROUP_CHECK_S)

    def _check_group(self, next_check_s: float) -> None:
        if self._on_exit is None:
            return
        kill_group(self.pid, signal.SIGKILL)  # wrapper scripts leave nothing behind
        if living_members(self.pid):
            longer = min(next_check_s * 2, _LONGEST_GROUP_CHECK_S)
            self._check = self._loop.call_later(next_check_s, self._check_group, longer)
            return
        on_exit, self._on_exit = self._on_exit, None
        while self._output is not None and self._read():
            pass  # nobody is left to write: what the pipe holds is all
        status = self._spawned.wait()
        self._close()
        on_exit(self._reason(status))

    def _reason(self, status: int) -> str:
        how = f"exit code {status}"
        if status < 0:
            try:
                how = f"killed by {signal.Signals(-status).name}"
            except ValueError:
                how = f"killed by signal {-status}"
        # What it said last is no reason where it was told to end.
        last = "" if self._was_signalled else self.log.telling_line()
        return f"{how}: {last}" if last else how

    def _close(self) -> None:
        self._close_output()
        if self._check is not None:
            self._check.cancel()
        if self._leader is not None:
            self._loop.remove_reader(self._leader)
            os.close(self._leader)
            self._leader = None

    # --- its output

    def _read(self) -> bool:
        """Take in what is there, up to a limit; False once there is nothing."""
        assert self._output is not None
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.log.add(self._lines.feed(data))
        if not data:
            self._close_output()
        return bool(data)

    def _close_output(self) -> None:
        if self._output is None:
            return
        self._loop.remove_reader(self._output)
        os.close(self._output)
        self._output = None
        self.log.add(self._lines.flush())


def _environment(spec: EngineSpec, process: ProcessSpec, marker: str) -> dict[str, str]:
    """An engine calls itself by its model's name, unless the user names it: otherwise answers show a path of the machine.

    The variable is llama-server's, which takes a comma for the end of a name; other engines do not know it.
    """
    named = {} if "," in spec.model else {"LLAMA_ARG_ALIAS": spec.model}
    return {**named, **os.environ, **dict(process.env), MARKER: marker}


def _popen(process: ProcessSpec, environment: dict[str, str]) -> "tuple[subprocess.Popen[bytes], int]":
    """The process and the end of the pipe that it writes to."""
    output, its_end = os.pipe()
    try:
        os.set_blocking(output, False)
        with warnings.catch_warnings():
            # Python 3.12 and later: what `die_with_parent` says.
            warnings.simplefilter("ignore", DeprecationWarning)
            spawned = subprocess.Popen(  # noqa: S603  # running what the user configured is what we are for
                [process.binary, *process.args],
                stdin=subprocess.DEVNULL,
                stdout=its_end,
                stderr=its_end,
                cwd=process.work_dir,
                env=environment,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  # see there
            )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(its_end)
    return spawned, output


def _explain(process: ProcessSpec, error: Exception) -> str:
    if not isinstance(error, OSError):
        return " ".join(str(error).split())
    if process.work_dir is not None and error.filename == process.work_dir:
        return f"work_dir {process.work_dir}: {error.strerror}"
    if isinstance(error, FileNotFoundError) and os.sep not in process.binary:
        return f"{process.binary} is not on PATH"
    return f"{process.binary}: {error.strerror or error}"
