"""Whoever waits in a thread keeps nobody else from being served."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.support.gateway import Gateway
from tests.support.upstream import Upstream, reply

MANY = 36
"""More than an event loop has threads of its own, on any machine."""
AUTO = (
    'routes = { auto = { candidates = { "far" }, estimator = { kind = "model", model = "judge", timeout = 30 } } } '
    "budgets = { all = { limit = 100 } }"
)
PRICE = "input_per_million = 1, output_per_million = 1"


def answer(text: str) -> bytes:
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return reply(json.dumps({"choices": [message]}).encode())


def test_many_requests_whose_estimator_is_a_model_do_not_wait_for_each_other():
    all_are_there = threading.Barrier(MANY)

    def serve(sock: socket.socket, head: bytes, body: bytes) -> None:
        if json.loads(body)["model"] == "judge":
            all_are_there.wait(20)
            sock.sendall(answer("simple"))
        else:
            sock.sendall(answer("hello"))

    with Upstream(serve) as upstream:
        by_name = [upstream.lua(name, PRICE).replace("127.0.0.1", "localhost") for name in ("far", "judge")]
        with Gateway(*by_name, more=AUTO) as gateway, ThreadPoolExecutor(MANY) as clients:
            answers = list(clients.map(lambda number: gateway.chat("auto", f"number {number}"), range(MANY)))
            assert {status for status, _, _ in answers} == {200}
            assert "by the heuristic" not in gateway.log
