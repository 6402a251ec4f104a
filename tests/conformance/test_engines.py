"""Choosing variants, changing models, queueing and giving up, with real engines."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest

from gatewright_cli.verification.check import CHAT
from gatewright_cli.verification.client import Answer
from tests.conformance.transports import World
from tests.support.gateway import wait_until

pytestmark = pytest.mark.engine

LONG_TOKENS = 3000
"""Some ten seconds of the slow model."""
QUEUED_S = 8.0
"""Until a request that was sent waits in the queue."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}


def test_the_smallest_variant_that_fits_answers_and_a_larger_one_that_is_loaded_too(world: World) -> None:
    world.chat("other")  # so that nothing of tiny is loaded
    first = world.chat("tiny")
    assert (first.status, first.get("x-gw-variant")) == (200, "512")
    large = world.chat("tiny", "word " * 600)
    assert (large.status, large.get("x-gw-variant")) == (200, "2048")
    assert world.chat("tiny").get("x-gw-variant") == "2048"


def test_two_models_take_turns_in_one_place(world: World) -> None:
    for name in ("tiny", "other", "tiny", "other"):
        answer = world.chat(name)
        assert (answer.status, answer.get("x-gw-model")) == (200, name)
        loaded = [
            engine for engine in world.engines("tiny", "other") if engine.state not in {"stopped", "stopping"}
        ]
        assert [engine.model for engine in loaded] == [name]


def test_other_places_are_left_alone_by_that(world: World) -> None:
    world.client.post("/v1/embeddings", {"model": "embedder", "input": "one"})
    world.chat("other")
    world.chat("tiny")
    assert "ready" in {engine.state for engine in world.engines("embedder")}


@pytest.mark.parametrize(("model", "stream"), [("liar", False), ("liar-stream", True)])
def test_an_overflow_in_the_engine_is_healed_unseen(world: World, model: str, stream: bool) -> None:
    body = world.body(model, "word " * 600, stream=stream)
    answer = world.client.post(CHAT, body)
    assert (answer.status, answer.get("x-gw-variant"), answer.get("x-gw-attempts")) == (200, "4096", "2")
    assert b"error" not in answer.body
    assert (b"[DONE]" in answer.body) == stream


def test_a_schema_is_obeyed(world: World) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
    for stream in (False, True):
        answer = world.client.post(
            CHAT, world.body("tiny", "weather?", max_tokens=100, response_format=wanted, stream=stream)
        )
        assert answer.status == 200
        document = json.loads(_text_of(answer, stream=stream))
        assert document["city"] in {"Rome", "Oslo"}
        assert isinstance(document["sunny"], bool)
        assert document.keys() == SCHEMA["properties"].keys()


def _text_of(answer: Answer, *, stream: bool) -> str:
    if not stream:
        return str(json.loads(answer.body)["choices"][0]["message"]["content"])
    data = [line[6:] for line in answer.body.split(b"\n") if line.startswith(b"data: {")]
    return "".join(json.loads(each)["choices"][0]["delta"].get("content") or "" for each in data)


# --- queueing


class Holder:
    """Keeps the only slot of the slow model busy until it is left."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._body = world.body("slow", "go on", max_tokens=LONG_TOKENS)

    def __enter__(self) -> Self:
        self._stream = self._world.client.stream(CHAT, self._body)
        opened = self._stream.__enter__()
        assert opened.status == 200
        next(opened.events())
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Leave it."""
        self._stream.__exit__(None, None, None)


def waiting(world: World) -> int:
    """Requests that wait for the slow model."""
    return sum(engine.waiting for engine in world.engines("slow"))


def test_requests_wait_for_a_slot_and_are_served_in_order(world: World) -> None:
    done: list[int] = []

    def ask(number: int) -> Answer:
        answer = world.chat("slow", max_tokens=20)
        done.append(number)
        return answer

    with ThreadPoolExecutor(2) as pool:
        with Holder(world) as holder:
            asked = []
            for number in range(2):
                asked.append(pool.submit(ask, number))
                wait_until(lambda number=number: waiting(world) == number + 1, f"{number + 1} wait", QUEUED_S)
            time.sleep(0.2)
            assert done == []
            holder.release()
        answers = [future.result(60) for future in asked]
    assert [answer.status for answer in answers] == [200, 200]
    assert done == [0, 1]
    assert int(answers[1].get("x-gw-wait-ms") or 0) >= 200


def test_one_request_waits_while_another_runs(world: World) -> None:
    with ThreadPoolExecutor(1) as pool:
        with Holder(world):
            asked = pool.submit(world.chat, "slow")
            wait_until(lambda: waiting(world) == 1, "it waits")
            assert not asked.done()
        assert asked.result(60).status == 200


def test_three_requests_for_one_slot_are_all_served(world: World) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: world.chat("slow", max_tokens=20), range(3)))
    assert [answer.status for answer in answers] == [200, 200, 200]


def test_a_full_queue_refuses_at_once(world: World) -> None:
    with ThreadPoolExecutor(2) as pool:
        with Holder(world):
            asked = [pool.submit(world.chat, "slow") for _ in range(2)]
            wait_until(lambda: waiting(world) == 2, "two wait", QUEUED_S)
            began_at_s = time.monotonic()
            refusals = [
                world.client.post(CHAT, world.body("slow", stream=stream)) for stream in (False, True)
            ]
            assert time.monotonic() - began_at_s < 5
        for answer in refusals:
            assert answer.status == 429
            assert json.loads(answer.body)["error"]["code"] == "rate_limit_exceeded"
            assert int(answer.get("retry-after") or 0) >= 1
        assert [future.result(60).status for future in asked] == [200, 200]


# --- clients that go away


def test_a_client_that_leaves_in_mid_stream_stops_the_engine_at_once(world: World) -> None:
    with Holder(world):
        pass
    began_at_s = time.monotonic()
    assert world.chat("slow").status == 200
    assert time.monotonic() - began_at_s < 8, "its only slot was free again"


def test_a_client_that_leaves_while_it_waits_leaves_the_queue(world: World) -> None:
    with Holder(world):
        body = json.dumps(world.body("slow")).encode()
        with world.client.connect() as connection:
            connection.sendall(world.client.request_bytes("POST", CHAT, body))
            wait_until(lambda: waiting(world) == 1, "it waits")
        wait_until(lambda: waiting(world) == 0, "nobody waits", QUEUED_S)


def test_a_client_that_leaves_in_mid_stream_ends_the_call_of_the_provider(world: World) -> None:
    world.provider.left.clear()
    with world.client.stream(CHAT, world.body("drip")) as stream:
        next(stream.events())
    assert world.provider.left.wait(10)


def test_a_client_that_leaves_before_the_answer_ends_the_call_of_the_provider(world: World) -> None:
    world.provider.left.clear()
    asked = len(world.provider.requests)
    body = json.dumps(world.body("silent")).encode()
    with world.client.connect() as connection:
        connection.sendall(world.client.request_bytes("POST", CHAT, body))
        wait_until(lambda: len(world.provider.requests) > asked, "the provider has it")
    assert world.provider.left.wait(10)


def test_streams_run_side_by_side(world: World) -> None:
    gate = threading.Barrier(2)

    def ask() -> list[str]:
        with world.client.stream(CHAT, world.body("tiny", max_tokens=40)) as stream:
            events = stream.events()
            first = next(events).data
            gate.wait(30)  # both have begun, and neither has ended for its client
            return [first, *(event.data for event in events)]

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(ask) for _ in range(2)]:
            assert future.result(60)[-1] == "[DONE]"
