"""What the transports cost: gw-server, and gunicorn with Gatewright's WSGI application, against a plain Flask echo.

Usage: python benchmarks/transports.py [--seconds 3] [--rounds 3]

Starts everything itself on loopback, measures in one run, and prints ratios to a Flask application that reads a JSON body
and answers with one of the same size under the same gunicorn: the floor of that stack, which calls nobody. The upstream
is nginx where it is installed, the load comes from `wrk` where that is. The rounds take turns, and medians are shown.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from overhead import BODY, GATEWRIGHT, REPLY, UPSTREAM, nginx, throughput, wait_for

from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost
from gatewright_host.ports import Ports
from gatewright_host.state_dir import StateDir

CONNECTIONS = (1, 32, 256)
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
ECHO, WSGI, ASYNC = "plain Flask echo", "gunicorn gthread", "gw-server"
NAMES = (ECHO, WSGI, ASYNC)


@contextlib.contextmanager
def servers(workers: int, threads: int) -> Iterator[dict[str, int]]:
    """Run the upstream and all that is measured; ports by name."""
    directory = Path(tempfile.mkdtemp(prefix="gw-bench-"))
    free = Ports()
    ports = {name: free.choose("127.0.0.1") for name in ("upstream", *NAMES)}
    shapes = {"gateway": ports[ASYNC], "upstream": ports["upstream"], "log_level": "warning"}
    for name in ("async", "wsgi"):
        # A state directory each: the one must not be the other's engine host.
        (directory / name).mkdir()
        (directory / f"{name}.lua").write_text(GATEWRIGHT.format(dir=directory / name, **shapes))
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(directory),
        "GATEWRIGHT_CONFIG": str(directory / "wsgi.lua"),
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    gunicorn = [
        BIN / "gunicorn",
        "--no-control-socket",
        "--worker-class",
        "gthread",
        "--log-level",
        "warning",
    ]
    gunicorn += ["--workers", str(workers), "--threads", str(threads), "--timeout", "0"]
    with (directory / "log").open("wb") as log:
        commands = (
            [*gunicorn, "--bind", f"127.0.0.1:{ports[ECHO]}", "flask_echo:create_app()"],
            [*gunicorn, "--bind", f"127.0.0.1:{ports[WSGI]}", "gatewright_wsgi:create_app()"],
            [BIN / "gw-server", "--config", directory / "async.lua"],
        )
        started = [start_upstream(directory, ports["upstream"])]
        started += [
            subprocess.Popen(command, stderr=log, env=environment, cwd=directory) for command in commands
        ]
        try:
            for port in ports.values():
                wait_for(port)
            yield ports
        except BaseException:
            print((directory / "log").read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(20)
            stop_engine_host(directory / "wsgi" / "state")
            shutil.rmtree(directory)


def start_upstream(directory: Path, port: int) -> subprocess.Popen[bytes]:
    if shutil.which("nginx") is None:
        return subprocess.Popen([sys.executable, HERE / "quick_upstream.py", str(port)])
    for folder in ("body", "fastcgi", "uwsgi", "scgi"):
        (directory / folder).mkdir()
    directory.chmod(0o755)
    return nginx(directory, "upstream", UPSTREAM.format(dir=directory, reply=REPLY, upstream=port))


def stop_engine_host(state: Path) -> None:
    """End the engine host that the workers started; it would do so itself, ten seconds later."""
    with (
        contextlib.suppress(HostLost),
        BlockingHostClient.connect(StateDir.at(state), start=False, watch=True) as client,
    ):
        client.shutdown(force=True)


Figures = dict[tuple[str, int], tuple[float, float, float]]
"""Requests a second, and median and 99th percentile in seconds, by server and connections."""


def measure(ports: dict[str, int], names: tuple[str, ...], seconds: float, rounds: int) -> Figures:
    for name in names:
        throughput(ports[name], 1, 32)  # everything is imported, connected and learnt
    taken: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for connections in CONNECTIONS:
            for name in names:
                taken.setdefault((name, connections), []).append(
                    throughput(ports[name], seconds, connections)
                )
                time.sleep(0.2)
    return {key: medians(values) for key, values in taken.items()}


def medians(values: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    rates, halves, slow = zip(*values, strict=True)
    return statistics.median(rates), statistics.median(halves), statistics.median(slow)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of gunicorn")
    parser.add_argument("--threads", type=int, default=8, help="of each worker")
    arguments = parser.parse_args()
    for program, place in (("nginx", "the upstream is Python"), ("wrk", "this script limits the load")):
        if shutil.which(program) is None:
            print(f"{program} is not installed: {place}\n")
    with servers(arguments.workers, arguments.threads) as ports:
        figures = measure(ports, ("upstream", *NAMES), arguments.seconds, arguments.rounds)
    print(
        f"{arguments.workers} workers of {arguments.threads} threads; request {len(BODY)}, answer {len(REPLY)} bytes\n"
    )
    print(
        "| | connections | requests/s | p50 (ms) | p99 (ms) | requests/s / Flask | p50 / Flask | p99 / Flask |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in ("upstream", *NAMES):
        for connections in CONNECTIONS:
            rate, median_s, slow_s = figures[name, connections]
            floor = figures[ECHO, connections]
            ratios = (rate / floor[0], median_s / floor[1], slow_s / floor[2])
            shown = "direct" if name == "upstream" else name
            print(
                f"| {shown} | {connections} | {rate:,.0f} | {median_s * 1e3:.2f} | {slow_s * 1e3:.2f} | "
                f"{' | '.join(f'{ratio:.2f}' for ratio in ratios)} |"
            )


if __name__ == "__main__":
    main()
