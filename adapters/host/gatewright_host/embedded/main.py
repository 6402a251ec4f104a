"""``gatewright-engine``: llama-server's flags, llama.cpp's own HTTP server, one Python process.

What the caller can count on, beside what llama-server documents:

- **Loading.** The port is open from the start; until the model is loaded every route answers 503 with llama-server's
  ``{"error": {"message": "Loading model", ...}}``. Once it is loaded, ``listening on ADDRESS`` is printed to stdout,
  which is how to learn the port behind ``--port 0``. Nothing else goes to stdout; llama.cpp logs to stderr by lines
  (memory taken, ``... buffer size = N MiB``, from ``--verbosity 4`` on).
- **Stopping.** SIGTERM and SIGINT end the process at once with exit code 0, while it loads or generates too; clients
  see their connection close. Save slots before. Only in the first moments, while Python itself starts, does a signal
  kill it the ordinary way.
- **Exit codes.** 0 after a signal, ``--help`` or ``--version``; 1 if the engine cannot start; 2 for a wrong command
  line. Either comes with one line ``gatewright-engine: error: ...`` as the last one on stderr.

xllamacpp's module is imported as late as possible: ``--help`` and mistakes cost no more than Python's own start.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from gatewright_host.embedded import logs, preflight, stopping
from gatewright_host.embedded.flags import ACTION, LOG_DISABLE, Settings, UsageError, parse
from gatewright_host.embedded.kinds import Lora
from gatewright_host.embedded.params import build
from gatewright_host.embedded.table import DEFAULTS, FLAGS, SECTIONS
from gatewright_host.extras import how_to_install

_NAME = "gatewright-engine"


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the engine until a signal ends the process.

    Args:
        argv: The arguments, without the program's name; by default the process's own.
        environ: The environment to read ``LLAMA_ARG_*`` from; by default the process's own.

    Returns:
        The exit code, if it does not come to serving.
    """
    try:
        return _run(
            parse(FLAGS, sys.argv[1:] if argv is None else argv, os.environ if environ is None else environ)
        )
    except UsageError as error:
        return _fail(error, 2)
    except preflight.Unusable as error:
        return _fail(error, 1)


def _run(given: Settings) -> int:
    match given.get(ACTION):
        case "help":
            return _say(_help())
        case "version":
            return _say(_version(_engine()))
        case "list-devices":
            return _say(_devices(_engine()))
        case _ if "model.path" not in given:
            raise UsageError("no model given; name a GGUF file with -m FNAME")
        case _:
            return _serve(DEFAULTS | given)


def _serve(settings: Settings) -> int:
    by_libc = stopping.end_on_signals()
    _check(settings)
    engine = _engine()
    try:
        params = build(engine, settings)
    except ValueError as error:
        raise UsageError(str(error)) from error
    logs.write_by_lines()
    if settings.get(LOG_DISABLE):
        logs.silence()
    start = _Start(engine, params)
    start.start()
    start.join()
    if start.server is None:
        _check(settings)  # somebody may have taken the port meanwhile
        raise preflight.Unusable(f"llama.cpp could not start with {params.model.path}; its log says why")
    if not by_libc:
        stopping.end_on_signals_when_serving()
    _say(f"listening on {start.server.listening_address}")
    while True:
        signal.pause()


class _Start(threading.Thread):
    """Starts the server; its constructor returns once the model is loaded, and llama.cpp's own threads serve it."""

    def __init__(self, engine: Any, params: Any) -> None:
        super().__init__(name="start", daemon=True)
        self._engine = engine
        self._params = params
        self.server: Any = None

    def run(self) -> None:
        """Load the model; without a server afterwards, it could not be."""
        # llama.cpp's threads inherit this; the signals stay with the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
        try:
            self.server = self._engine.Server(self._params)
        except RuntimeError:
            return  # says no more than the log


def _check(settings: Settings) -> None:
    preflight.check_gguf(str(settings["model.path"]), "model")
    if "mmproj.path" in settings:
        preflight.check_gguf(str(settings["mmproj.path"]), "projector")
    adapters = settings.get("lora_adapters")
    for adapter in adapters if isinstance(adapters, list) else ():
        if isinstance(adapter, Lora):
            preflight.check_gguf(adapter.path, "LoRA adapter")
    hosts, port = settings.get("hostnames", ["127.0.0.1"]), settings["port"]
    if isinstance(hosts, list) and isinstance(port, int) and not settings.get("reuse_port"):
        preflight.check_listen(hosts, port)


def _engine() -> Any:
    try:
        import xllamacpp  # noqa: PLC0415 -- an optional dependency, and most of the start-up time
    except ModuleNotFoundError as error:
        if error.name != "xllamacpp":
            raise
        raise preflight.Unusable(f"xllamacpp is not installed: {how_to_install('engine')}") from None
    return xllamacpp


def _help() -> str:
    lines = [
        f"usage: {_NAME} -m FNAME [flag ...]",
        "",
        "Serve a model with llama.cpp's HTTP server. Flags and environment variables are llama-server's.",
    ]
    for title, flags in SECTIONS.items():
        lines += ["", f"{title}:"]
        for flag in flags:
            lines.append(f"  {flag.spelling}")
            lines.append(f"      {flag.help}" + (f" [{flag.env}]" if flag.env else ""))
    return "\n".join(lines)


def _version(engine: Any) -> str:
    from importlib.metadata import version  # noqa: PLC0415 -- slow to import

    build_info = engine.BUILD_INFO
    return (
        f"{_NAME} {version('gatewright')}, xllamacpp {engine.__version__}"
        f" (built with {build_info['compiler']} for {build_info['build_target']})"
    )


def _devices(engine: Any) -> str:
    cpu = engine.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    mib = 1024 * 1024
    found = [
        f"  {device['name']}: {device['description']} "
        f"({device['memory_total'] // mib} MiB, {device['memory_free'] // mib} MiB free)"
        for device in engine.get_device_info()
        if device["type"] != cpu
    ]
    return "\n".join(["Available devices:", *(found or ["  none besides the processor"])])


def _say(text: str) -> int:
    with contextlib.suppress(BrokenPipeError):  # nobody reads; that is no reason to stop serving
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return 0


def _fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"{_NAME}: error: {error}\n")
    sys.stderr.flush()
    return code
