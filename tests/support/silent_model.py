"""A gateway that asks a model on its own behalf which says nothing: a judge, or an estimator."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

from tests.support.gateway import Gateway
from tests.support.upstream import Upstream, reply

MODELS = ("far", "silent")
ROUTES = (
    'routes = { judged = { candidates = { "far" }, judge = { model = "silent", sample = 1 } }, '
    'auto = { candidates = { "far" }, estimator = { kind = "model", model = "silent", timeout = 60 } } }'
)
AT_ONCE_S = 5.0
"""How long an end may take that waits for nobody; other processes use the same machine."""


class SilentModel:
    """An upstream with the two models."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._end = threading.Event()

    def serve(self, sock: socket.socket, head: bytes, body: bytes) -> None:  # noqa: ARG002  # an upstream's
        if json.loads(body)["model"] == "silent":
            self.asked.set()
            self._end.wait(90)
        else:
            message = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            sock.sendall(reply(json.dumps({"choices": [message]}).encode()))

    @contextlib.contextmanager
    def running(self) -> Iterator[list[str]]:
        """Gives the models of a configuration."""
        with Upstream(self.serve) as upstream:
            try:
                yield [upstream.lua(name) for name in MODELS]
            finally:
                self._end.set()

    def end_while_judged(self, gateway: Gateway) -> float:
        """Seconds that the gateway takes to end while a judge is being asked."""
        assert gateway.chat("judged")[0] == 200
        return self._end_while_asked(gateway)

    def end_while_estimated(self, gateway: Gateway) -> tuple[int, float]:
        """Status of a request whose estimator was being asked as the gateway was told to end, and seconds."""
        statuses: list[int] = []
        client = threading.Thread(target=lambda: statuses.append(gateway.chat("auto")[0]))
        client.start()
        seconds = self._end_while_asked(gateway)
        client.join(10)
        return statuses[0], seconds

    def _end_while_asked(self, gateway: Gateway) -> float:
        assert self.asked.wait(20)
        start = time.monotonic()
        assert gateway.stop() == 0
        return time.monotonic() - start
