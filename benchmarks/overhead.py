"""What the gateway adds to a request: gw-server against nginx as a proxy, before the same nginx upstream.

Usage: python benchmarks/overhead.py [--seconds 4]

Starts everything itself on loopback, measures in one run, and prints ratios to nginx's proxy and to a relay of nothing but
anyio and h11 (`bare_relay.py`). The load comes from
this script: one blocking socket for latency, `wrk` for throughput where it is installed, else a thread pool of
sockets that cannot drive nginx to its limit (it says so).
"""

import argparse
import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gatewright_host.ports import Ports

BODY = b'{"model":"bench","messages":[{"role":"user","content":"How much does a gateway cost a request? Count it."}]}'
REPLY = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":'
    '{"role":"assistant","content":"Not much."},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,'
    '"completion_tokens":4,"total_tokens":24}}'
)
EVENT = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,'
    '"delta":{"content":"word"},"finish_reason":null}]}\n\n'
)
EVENTS = 20_000

NGINX = """
daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  keepalive_requests 100000000; keepalive_timeout 600s; client_body_buffer_size 1m;
  {servers}
}}
"""
UPSTREAM = """
  server {{
    listen 127.0.0.1:{upstream} backlog=1024;
    location = /v1/chat/completions {{ default_type application/json; return 200 '{reply}'; }}
    location = /v1/completions {{ root {dir}; default_type text/event-stream; error_page 405 =200 /v1/completions; }}
    location = /v1/short {{ root {dir}; default_type text/event-stream; error_page 405 =200 /v1/short; }}
  }}
"""
PROXY = """
  upstream backend {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{proxy} backlog=1024;
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
"""

GATEWRIGHT = """
server = {{ listen_v4 = "127.0.0.1:{gateway}", listen_v6 = "none", log_level = "{log_level}", state_dir = "{dir}/state" }}
models = {{ {{ name = "bench", engine = presets.engines.openai, connect = "http://127.0.0.1:{upstream}" }} }}
"""


@contextlib.contextmanager
def servers(log_level: str) -> Iterator[dict[str, int]]:
    """Run nginx as upstream and as proxy, and gw-server; ports by name."""
    directory = Path(tempfile.mkdtemp(prefix="gw-bench-"))
    free = Ports()
    ports = {name: free.choose("127.0.0.1") for name in ("upstream", "proxy", "bare", "gateway")}
    (directory / "v1").mkdir()
    (directory / "v1" / "completions").write_text(EVENT * EVENTS + "data: [DONE]\n\n")
    (directory / "v1" / "short").write_text(EVENT + "data: [DONE]\n\n")
    for folder in ("body", "fastcgi", "uwsgi", "scgi"):
        (directory / folder).mkdir()
    directory.chmod(0o755)
    (directory / "gatewright.lua").write_text(GATEWRIGHT.format(dir=directory, log_level=log_level, **ports))
    gateway = Path(sys.executable).with_name("gw-server")
    with (directory / "gateway.log").open("wb") as log:
        started = [
            nginx(directory, "upstream", UPSTREAM.format(dir=directory, reply=REPLY, **ports)),
            nginx(directory, "proxy", PROXY.format(**ports)),
            subprocess.Popen(
                [
                    sys.executable,
                    Path(__file__).with_name("bare_relay.py"),
                    str(ports["bare"]),
                    str(ports["upstream"]),
                ],
                stderr=log,
            ),
            subprocess.Popen([gateway, "--config", directory / "gatewright.lua"], stderr=log),
        ]
        try:
            for port in ports.values():
                wait_for(port)
            yield ports
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(20)
            shutil.rmtree(directory)


def nginx(directory: Path, name: str, servers: str) -> subprocess.Popen[bytes]:
    """Start an nginx of its own: a proxy in its upstream's process would be spared the way between two processes."""
    config = directory / f"{name}.conf"
    config.write_text(NGINX.format(dir=directory, name=name, servers=servers))
    return subprocess.Popen(["nginx", "-e", directory / "error.log", "-p", directory, "-c", config])


def wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}")


def request_bytes(path: str, body: bytes = BODY) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def exchange(sock: socket.socket, request: bytes) -> None:
    """One request with an answer of known length."""
    sock.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(rest) < length:
        rest += sock.recv(65536)


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def latencies(port: int, seconds: float) -> list[float]:
    """Seconds of each request on one connection."""
    request, taken = request_bytes("/v1/chat/completions"), []
    with connected(port) as sock:
        for _ in range(200):
            exchange(sock, request)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            exchange(sock, request)
            taken.append(time.perf_counter() - began)
    return taken


def throughput(port: int, seconds: float, connections: int) -> tuple[float, float, float]:
    """Requests a second, and median and 99th percentile of their latency in seconds."""
    taken: list[float] = []

    def load() -> None:
        mine = []
        request = request_bytes("/v1/chat/completions")
        with connected(port) as sock:
            while (began := time.perf_counter()) < end:
                exchange(sock, request)
                mine.append(time.perf_counter() - began)
        taken.extend(mine)

    if shutil.which("wrk"):
        return throughput_by_wrk(port, seconds, connections)
    end = time.perf_counter() + seconds
    threads = [threading.Thread(target=load) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.sort()
    return len(taken) / seconds, taken[len(taken) // 2], taken[int(len(taken) * 0.99)]


def throughput_by_wrk(port: int, seconds: float, connections: int) -> tuple[float, float, float]:
    script = (
        f'wrk.method = "POST"\nwrk.body = [[{BODY.decode()}]]\nwrk.headers["Content-Type"] = "application/json"\n'
        "done = function(summary, latency)\n"
        '  io.write(string.format("RESULT %f %f %f %d\\n", summary.requests / summary.duration * 1e6, '
        "latency:percentile(50), latency:percentile(99), summary.errors.status))\nend\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", file.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = next(line for line in output.splitlines() if line.startswith("RESULT")).split()
    assert result[4] == "0", f"{result[4]} requests failed"
    return float(result[1]), float(result[2]) / 1e6, float(result[3]) / 1e6


def stream(port: int, path: str) -> tuple[float, float]:
    """Seconds to the first byte of a stream's body, and to its end."""
    request = request_bytes(path, b'{"model":"bench","prompt":"Count.","stream":true}')
    with connected(port) as sock:
        exchange(sock, request_bytes("/v1/chat/completions"))
        began = time.perf_counter()
        sock.sendall(request)
        data = sock.recv(65536)
        while b"\r\n\r\ndata" not in data and b"\ndata: " not in data:
            data += sock.recv(65536)
        first = time.perf_counter() - began
        while b"[DONE]" not in data:
            piece = sock.recv(262144)
            assert piece, "the stream broke off"
            data = data[-16:] + piece
        return first, time.perf_counter() - began


def measure(ports: dict[str, int], seconds: float) -> dict[str, dict[str, float]]:
    """All figures of all three ways to the upstream."""
    results: dict[str, dict[str, float]] = {}
    for name in ("upstream", "proxy", "bare", "gateway"):
        taken = sorted(latencies(ports[name], seconds))
        rate, median_s, slow_s = throughput(ports[name], seconds, 32)
        short = [stream(ports[name], "/v1/short") for _ in range(50)]
        long = [stream(ports[name], "/v1/completions") for _ in range(9)]
        results[name] = {
            "p50, 1 connection (us)": statistics.median(taken) * 1e6,
            "p99, 1 connection (us)": taken[int(len(taken) * 0.99)] * 1e6,
            "requests/s, 1 connection": len(taken) / seconds,
            "p50, 32 connections (us)": median_s * 1e6,
            "p99, 32 connections (us)": slow_s * 1e6,
            "requests/s, 32 connections": rate,
            "stream: first byte (us)": statistics.median(first for first, _ in short) * 1e6,
            "stream: events/s": EVENTS / statistics.median(end for _, end in long),
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--log-level", default="warning", help="log level of gw-server")
    arguments = parser.parse_args()
    if shutil.which("nginx") is None:
        print("nginx is not installed: nothing to compare with (Debian: apt install nginx-light wrk)")
        return
    if shutil.which("wrk") is None:
        print("wrk is not installed: the figures at 32 connections are limited by this script\n")
    with servers(arguments.log_level) as ports:
        results = measure(ports, arguments.seconds)
    print("| | direct | nginx proxy | bare anyio + h11 | gw-server | gw-server / nginx | gw-server / bare |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for figure, proxy in results["proxy"].items():
        direct, bare, gateway = (results[name][figure] for name in ("upstream", "bare", "gateway"))
        cells = [f"{number:,.0f}" for number in (direct, proxy, bare, gateway)]
        print(f"| {figure} | {' | '.join(cells)} | {gateway / proxy:.2f} | {gateway / bare:.2f} |")


if __name__ == "__main__":
    main()
