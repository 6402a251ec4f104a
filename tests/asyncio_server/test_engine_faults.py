"""Engines that die, hang or lie under real requests."""

import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.gateway import ENGINE, Gateway, model_lua, stream_lines, wait_until

pytestmark = pytest.mark.engine

LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 3000}


def engine_of(gateway: Gateway) -> psutil.Process:
    return wait_until(lambda: next(iter(gateway.engines()), None), "an engine runs")


def is_called(gateway: Gateway) -> bool:
    """Whether a request has its engine."""
    return any(engine.leases for engine in gateway.engine_statuses("slow"))


def text_of(stream: bytes) -> str:
    events = [
        event.removeprefix(b"data: ") for event in stream.split(b"\n\n") if event.startswith(b"data: {")
    ]
    deltas = [choice["delta"] for event in events for choice in json.loads(event).get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_kill_9_in_mid_stream_goes_unnoticed(slow_model: Path) -> None:
    body = {"model": "slow", **LONG, "max_tokens": 150, "temperature": 0}
    longer = {**body, "max_tokens": 600}
    with Gateway(model_lua("slow", slow_model, (4096,))) as gateway:
        with stream_lines(gateway, body) as response:
            whole = text_of(response.read())
        with stream_lines(gateway, longer) as response:
            first = response.read(64)
            engine_of(gateway).kill()
            broken = first + response.read()
        assert text_of(broken).startswith(whole[: len(whole) // 2]), "it goes on where it broke off"
        assert broken.endswith(b"data: [DONE]\n\n")
        assert b'"error"' not in broken
        ids = set(re.findall(rb'"id":"([^"]+)"', broken))
        assert len(ids) == 1, "to the client it is one answer"
        wait_until(lambda: "attempts 2" in gateway.log, "the record is logged")


def test_kill_9_in_mid_stream_ends_with_an_error_event_where_nothing_can_be_continued(
    slow_model: Path,
) -> None:
    with Gateway(model_lua("slow", slow_model, (4096,), extra="prefill = false")) as gateway:
        with stream_lines(gateway, {"model": "slow", **LONG, "temperature": 1.5}) as response:
            told = b""
            # A word or two may come again by chance, and be taken for the same answer.
            while len(text_of(told)) < 20:
                told += response.readline()
            engine_of(gateway).kill()
            told += response.read()
        assert response.status == 200
        last = [event for event in told.split(b"\n\n") if event][-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] in {
            "engine_crashed",
            "upstream_broke",
        }
        assert b"[DONE]" not in told
        assert gateway.chat("slow")[0] == 200, "the engine is restarted for the next request"


def test_kill_9_in_mid_body_closes_the_connection(slow_model: Path) -> None:
    with Gateway(model_lua("slow", slow_model, (4096,))) as gateway:
        gateway.chat("slow")
        results: list[Any] = []

        def ask() -> None:
            try:
                results.append(gateway.chat("slow", max_tokens=150))
            except OSError as error:
                results.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: is_called(gateway), "it is asked")
        engine_of(gateway).kill()
        thread.join(60)
        # No byte of the body was out, so it was repeated on a restarted engine.
        status, headers, _ = results[0]
        assert (status, headers["x-gw-attempts"]) == (200, "2")


def test_kill_9_before_the_first_byte_is_repeated_unseen(slow_model: Path) -> None:
    with Gateway(model_lua("slow", slow_model, (8192,))) as gateway:
        gateway.chat("slow")
        results: list[bytes] = []
        headers: list[str | None] = []

        def ask() -> None:
            body = {
                "model": "slow",
                "messages": [{"role": "user", "content": "word " * 4000}],
                "max_tokens": 4,
            }
            with stream_lines(gateway, body) as response:
                headers.append(response.getheader("x-gw-attempts"))
                results.append(response.read())

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: is_called(gateway), "it is asked")
        engine_of(gateway).kill()
        thread.join(100)
        assert results[0].rstrip().endswith(b"data: [DONE]")
        assert headers == ["2"]


def test_a_hung_engine_is_found_out_and_replaced(slow_model: Path) -> None:
    with Gateway(model_lua("slow", slow_model, (4096,), extra="health_check_timeout = 1")) as gateway:
        with stream_lines(gateway, {"model": "slow", **LONG, "max_tokens": 100}) as response:
            response.read(64)
            engine_of(gateway).send_signal(signal.SIGSTOP)
            rest = response.read()
        assert b'"error"' not in rest, "the answer goes on"
        assert rest.endswith(b"data: [DONE]\n\n")
        wait_until(lambda: "hung" in gateway.log, "the operator is told")
        assert gateway.chat("slow")[0] == 200


def test_an_engine_that_cannot_start_says_why_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.gguf"
    nonsense.write_bytes(b"this is no model")
    bad = model_lua("bad", nonsense, (512,))
    missing = model_lua("missing", tiny_model, (512,)).replace(str(ENGINE), "/nowhere/llama-server")
    with Gateway(bad, missing, model_lua("good", tiny_model, (512,))) as gateway:
        status, headers, reply = gateway.chat("bad")
        assert status == 503
        assert reply["error"]["code"] == "engine_start_failed"
        assert "nonsense.gguf" in reply["error"]["message"]
        assert "\n" not in reply["error"]["message"]
        assert int(headers["retry-after"]) >= 1
        status, _, reply = gateway.chat("missing")
        assert status == 503
        assert "/nowhere/llama-server" in reply["error"]["message"]
        assert gateway.chat("good")[0] == 200
        assert gateway.chat("missing")[0] == 503


def test_a_context_smaller_than_configured_heals_itself(tiny_model: Path) -> None:
    lying = model_lua("tiny", tiny_model, (1024, 4096), extra="margin = 1").replace(
        '"-c", "1024"', '"-c", "512"'
    )
    with Gateway(lying) as gateway:
        status, headers, _ = gateway.chat("tiny", "word " * 600)
        assert (status, headers["x-gw-variant"]) == (200, "4096")
        assert headers["x-gw-attempts"] == "2"
        assert "gives a slot only 512 tokens" in gateway.log


def test_a_model_waits_its_turn_and_is_not_starved(tiny_model: Path, tiny_model_b: Path) -> None:
    models = (model_lua("a", tiny_model, (1024,), slots=2), model_lua("b", tiny_model_b, (1024,)))
    with Gateway(*models, server="max_wait_s = 1") as gateway:
        stop = threading.Event()
        served = {"a": 0}

        def keep_busy() -> None:
            while not stop.is_set():
                assert gateway.chat("a", max_tokens=60)[0] == 200
                served["a"] += 1

        threads = [threading.Thread(target=keep_busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: served["a"] > 8, "model a is busy")
            status, headers, _ = gateway.chat("b")
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert (status, headers["x-gw-model"]) == (200, "b")
        assert int(headers["x-gw-wait-ms"]) < 20_000


def test_a_full_queue_refuses_at_once(slow_model: Path) -> None:
    with Gateway(model_lua("slow", slow_model, (4096,)), server="max_waiting = 1") as gateway:
        gateway.chat("slow")
        with stream_lines(gateway, {"model": "slow", **LONG}) as running:
            running.read(16)
            waiting = threading.Thread(target=gateway.chat, args=("slow",))
            waiting.start()
            wait_until(lambda: gateway.engine_statuses("slow")[0].waiting, "one waits")
            status, headers, reply = gateway.chat("slow")
        waiting.join(60)
        assert status == 429
        assert reply["error"]["code"] == "rate_limit_exceeded"
        assert int(headers["retry-after"]) >= 1


def test_an_idle_engine_stops(tiny_model: Path) -> None:
    with Gateway(model_lua("tiny", tiny_model, (512,), extra="engine_idle_timeout = 1")) as gateway:
        assert gateway.chat("tiny")[0] == 200
        assert gateway.engines()
        wait_until(lambda: not gateway.engines(), "the idle engine stops")
        assert gateway.chat("tiny")[0] == 200


def test_a_tokenizer_that_fails_leaves_it_to_the_length(tiny_model: Path) -> None:
    tokenization = 'tokenization = { binary = "/bin/false" }, margin = 16'
    with Gateway(model_lua("tiny", tiny_model, (512, 2048), extra=tokenization)) as gateway:
        status, headers, _ = gateway.chat("tiny", "word " * 700)
        assert (status, headers["x-gw-variant"]) == (200, "2048")
        assert "was not counted" in gateway.log
        assert "exit code 1" in gateway.log
