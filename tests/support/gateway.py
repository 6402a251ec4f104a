"""A real gw-server on a configuration, as its users run it."""

import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from gatewright.fleet import EngineStatus
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_status import HostStatus
from gatewright_host.state_dir import StateDir

START_S = 30.0
STOP_S = 30.0
ENGINE = Path(sys.executable).with_name("gatewright-engine")
SERVER = Path(sys.executable).with_name("gw-server")


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Poll until a condition is truthy."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"timed out after {timeout_s} s: {what}")


def model_lua(
    name: str, gguf: Path, contexts: tuple[int, ...], *, slots: int = 1, extra: str = "", args: str = ""
) -> str:
    """A model of the configuration file, with one embedded engine for each context."""
    variants = ", ".join(
        f'{{ binary = "{ENGINE}", context = {context}, args = {{ "-m", "{gguf}", "-c", "{context * slots}", '
        f'"-np", "{slots}", "--port", "${{PORT}}", "--host", "127.0.0.1", "--jinja", "-t", "1" {args} }} }}'
        for context in contexts
    )
    return (
        f'{{ name = "{name}", engine = presets.engines.llamacpp, connect = "http://127.0.0.1:${{PORT}}", '
        f"answer_tokens = 64, variants = {{ {variants} }}, {extra} }}"
    )


class Gateway:
    """A running gw-server.

    Args:
        models: Members of `models`, in Lua.
        server: Members of `server` besides addresses and state directory, in Lua.
        listen: Members of `server` about addresses.
        more: Further globals, such as `routes`, in Lua.
    """

    def __init__(
        self,
        *models: str,
        server: str = "",
        listen: str | None = None,
        env: dict[str, str] | None = None,
        more: str = "",
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gwt-"))
        self.config = self.directory / "gatewright.lua"
        self.log_file = self.directory / "log"
        self._server = server
        self._more = more
        self._listen = listen or 'listen_v4 = "127.0.0.1:0", listen_v6 = "none"'
        self._env = {**os.environ, "XDG_RUNTIME_DIR": str(self.directory), **(env or {})}
        self.write_config(*models)
        self.port = 0
        self.log_at_end = ""
        self.process: subprocess.Popen[bytes] | None = None

    def write_config(self, *models: str, server: str | None = None) -> None:
        """Write the configuration file (again)."""
        if server is not None:
            self._server = server
        text = (
            f'server = {{ {self._listen}, state_dir = "{self.directory}/state", {self._server} }}\n'
            f"models = {{ {', '.join(models)} }}\n"
            f"{self._more}\n"
        )
        self.config.write_text(text)

    def start(self, *args: str) -> Self:
        """Start it and wait until it listens."""
        self._log_start = len(self.log)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [SERVER, "--config", self.config, *args],
                stderr=log,
                stdout=log,
                env=self._env,
                cwd=self.directory,
            )
        match = wait_until(self._listening, "gw-server listens", START_S)
        self.port = int(match.group(1))
        return self

    def _listening(self) -> re.Match[str] | None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"gw-server exited with {self.process.returncode}:\n{self.log}")
        return re.search(r"listening on http://\S+?:(\d+)[,;]", self.log[self._log_start :])

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def engines(self) -> list[psutil.Process]:
        """Engine processes of this gateway, whoever is their parent now."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            command = process.info["cmdline"] or []
            environ = process.info["environ"] or {}
            is_engine = any("gatewright-engine" in part or "fake_engine" in part for part in command)
            if is_engine and environ.get("XDG_RUNTIME_DIR") == str(self.directory):
                found.append(process)
        return found

    def processes(self) -> list[psutil.Process]:
        """Everything that was started for this gateway and still runs: servers, engine host, engines."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            environ = process.info["environ"] or {}
            is_ours = environ.get("XDG_RUNTIME_DIR") == str(self.directory)
            if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    @property
    def state(self) -> StateDir:
        """Its state directory."""
        return StateDir.at(self.directory / "state")

    def host_status(self) -> HostStatus:
        """What the engine host says of itself."""
        with BlockingHostClient.connect(self.state, start=False, watch=True) as host:
            return host.status()

    def engine_statuses(self, *models: str) -> list[EngineStatus]:
        """Engines of these models, as the engine host sees them."""
        found = [report.engine for report in self.host_status().engines]
        return [engine for engine in found if engine.model in models]

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict | list) else body
            all_headers = (
                {"Content-Type": "application/json", **(headers or {})} if data is not None else headers or {}
            )
            connection.request(method, path, data, all_headers)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def chat(self, model: str, text: str = "hi", **extra: Any) -> tuple[int, dict[str, str], Any]:
        """One chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **extra}
        status, headers, data = self.request("POST", "/v1/chat/completions", body)
        return status, headers, json.loads(data)

    def raw(self, data: bytes, *, timeout_s: float = 20.0, until_close: bool = True) -> bytes:
        """What comes back for these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as sock:
            sock.sendall(data)
            received = b""
            while True:
                ready, _, _ = select.select([sock], [], [], timeout_s if until_close else 1.0)
                if not ready:
                    assert not until_close, f"connection stayed open after {received!r}"
                    return received
                piece = sock.recv(65536)
                if not piece:
                    return received
                received += piece

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"gw-server did not stop:\n{self.log}") from None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            if self.process is not None and self.process.poll() is None:
                self.stop()
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self.process is not None:
                self.stop()
            self.log_at_end = self.log
            left = self.engines()
            for process in left:
                process.kill()
            if error is None:
                assert not left, f"engines left behind: {left}\n{self.log}"
                assert "Traceback" not in self.log, self.log
        finally:
            if error is not None:
                print(self.log[-8000:])
            shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def stream_lines(
    gateway: Gateway, body: dict[str, Any], path: str = "/v1/chat/completions"
) -> Iterator[http.client.HTTPResponse]:
    """An open streaming response; leaving closes the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.request(
        "POST", path, json.dumps({"stream": True, **body}), {"Content-Type": "application/json"}
    )
    try:
        # Of a server that closes after its answer, the response alone holds the socket.
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()
