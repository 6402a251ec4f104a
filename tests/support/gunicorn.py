"""The same gateway behind a real gunicorn: workers share one engine host, which outlives them for a while."""

import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost
from tests.support.gateway import START_S, Gateway, wait_until

GUNICORN = Path(sys.executable).with_name("gunicorn")
APP = "gatewright_wsgi:create_app()"


class GunicornGateway(Gateway):
    """A running gunicorn that serves `gatewright_wsgi`; used as `Gateway` is.

    Args:
        models: Members of `models`, in Lua.
        worker_class: gunicorn's, such as "sync" or "gthread".
        workers: Worker processes.
        threads: Threads of each gthread worker.
        args: Further words of gunicorn's command line.
        host_linger_s: Run an engine host that stays this long without engines and clients, where the usual ten
            seconds are too long; workers start their own otherwise.
        others: As of `Gateway`.
    """

    def __init__(
        self,
        *models: str,
        worker_class: str = "gthread",
        workers: int = 2,
        threads: int = 8,
        args: tuple[str, ...] = (),
        host_linger_s: float | None = None,
        **others: Any,
    ) -> None:
        super().__init__(*models, **others)
        self._env["GATEWRIGHT_CONFIG"] = str(self.config)
        self._workers = workers
        self._host_linger_s = host_linger_s
        self._command = [str(GUNICORN), "--bind", "127.0.0.1:0", "--no-control-socket"]
        self._command += ["--worker-class", worker_class, "--workers", str(workers)]
        if worker_class == "gthread":
            self._command += ["--threads", str(threads)]
        # A sync worker says nothing while it serves a request, and would be killed for it after 30 s.
        self._command += ["--timeout", "0", *args, APP]

    def start(self, *args: str) -> Self:
        """Start it and wait until it serves."""
        if self._host_linger_s is not None:
            self._start_host(self._host_linger_s)
        self._log_start = len(self.log)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, *args], stderr=log, stdout=log, env=self._env, cwd=self.directory
            )
        match = wait_until(self._listening, "gunicorn listens", START_S)
        self.port = int(match.group(1))
        wait_until(self._is_up, "the workers serve", START_S)
        return self

    def _start_host(self, linger_s: float) -> None:
        command = [sys.executable, "-m", "gatewright_host.host_main", "--detach"]
        command += ["--state-dir", str(self.state.path), "--linger", f"{linger_s:g}"]
        with self.log_file.open("ab") as log:
            subprocess.run(command, env=self._env, stdout=log, stderr=log, check=True)
        wait_until(self.host, "the engine host runs")

    def _listening(self) -> re.Match[str] | None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"gunicorn exited with {self.process.returncode}:\n{self.log}")
        return re.search(r"Listening at: http://\S+?:(\d+)[ ,]", self.log[self._log_start :])

    def _is_up(self) -> bool:
        self._listening()
        booted = self.log[self._log_start :].count("Booting worker")
        try:
            return booted >= self._workers and self.request("GET", "/health", timeout_s=START_S)[0] == 200
        except OSError:  # it ends: the next look tells why
            return False

    def workers(self) -> list[psutil.Process]:
        """The worker processes, oldest first."""
        found = psutil.Process(self.pid).children()
        return sorted(found, key=lambda process: process.create_time())

    def host(self) -> psutil.Process | None:
        """The engine host's process, if one runs."""
        try:
            with BlockingHostClient.connect(self.state, start=False, watch=True) as client:
                return psutil.Process(client.host_pid)
        except (HostLost, psutil.NoSuchProcess):
            return None

    def stop_host(self) -> None:
        """Have the engine host end with its engines, if one runs, and wait for it."""
        with (
            suppress(HostLost),
            BlockingHostClient.connect(self.state, start=False, watch=True) as client,
        ):
            client.shutdown(force=True)
        wait_until(lambda: self.host() is None, "the engine host ends")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self.process is not None:
                self.stop()
            self.log_at_end = self.log
            self.stop_host()
            if error is None:
                wait_until(lambda: not self.processes(), f"nothing is left of {self.directory}")
                assert "Traceback" not in self.log, self.log
        finally:
            for process in self.processes():
                process.kill()
            if error is not None:
                print(self.log[-8000:])
            shutil.rmtree(self.directory, ignore_errors=True)
