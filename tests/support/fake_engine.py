"""An engine for tests: speaks `/health` and `/props` over real HTTP, and misbehaves on request.

A program with nothing but the standard library, so that `python -S -E` starts it in some milliseconds.
Its specification is made by `tests.support.host.fake_spec`.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

MODES = {
    "ready": "answers at once",
    "loading": "says 503 for --seconds, then answers",
    "never": "says 503 for ever",
    "exit": "prints an error and exits with code 3",
    "deaf": "ignores SIGTERM",
    "family": "has a child that ignores SIGTERM and SIGHUP and holds the output open",
    "orphans": "leaves such a child and exits with code 0 once it was asked for /quit",
    "hangs": "answers until it was asked for /hang",
}
CHILD = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)\n"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=MODES, default="ready")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--child-file", default="")
    options = parser.parse_args()
    if options.mode == "exit":
        sys.stderr.write("0.00.001.000 I srv: loading\n0.00.002.000 E model: unable to allocate 9 GiB\n")
        sys.stderr.write("0.00.003.000 E srv: exiting due to model loading error\n")
        sys.exit(3)
    if options.mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.mode in {"family", "orphans"}:
        subprocess.Popen([sys.executable, "-S", "-E", "-c", CHILD, options.child_file])
        while not (os.path.exists(options.child_file) and os.path.getsize(options.child_file)):  # noqa: PTH110, PTH202  # pathlib takes long to load
            time.sleep(0.005)
    serve(options)


def serve(options: argparse.Namespace) -> None:
    ready_at = time.monotonic() + (options.seconds if options.mode == "loading" else 0)
    hanging = threading.Event()
    listener = socket.create_server(("127.0.0.1", options.port))
    sys.stderr.write(f"0.00.001.000 I srv: listening on {options.port}\n")
    sys.stderr.flush()

    def answer(connection: socket.socket) -> None:
        with connection:
            path = connection.recv(65_536).split(b" ")[1].decode()
            if hanging.is_set():
                time.sleep(600)
            if path == "/quit":
                os._exit(0)
            if path == "/hang":
                hanging.set()
            is_ready = options.mode != "never" and time.monotonic() >= ready_at
            body: dict[str, object] = (
                {"status": "ok"} if is_ready else {"error": {"message": "Loading model"}}
            )
            if is_ready and path == "/props":
                body = {
                    "default_generation_settings": {"n_ctx": options.context},
                    "total_slots": options.slots,
                }
            content = json.dumps(body).encode()
            status = b"200 OK" if is_ready else b"503 Service Unavailable"
            head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(content))
            connection.sendall(head + content)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
