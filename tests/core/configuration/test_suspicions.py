from typing import Any

import pytest

from tests.support.configs import (
    PORT_ARGS,
    local_model,
    remote_model,
    variant,
    warnings,
)


def test_a_sound_configuration_has_no_warnings():
    args = [*PORT_ARGS, "-c", "8192", "-np", "2", "--host", "127.0.0.1"]
    assert warnings(local_model(variants=[variant(args=args)]), remote_model(api_key_env="K")) == ()


@pytest.mark.parametrize(
    ("args", "is_suspicious"),
    [
        (["-c", "4096"], False),
        (["-c", "4000"], False),  # padded to 4096
        (["-c", "2048"], True),
        (["-c", "0"], False),
        (["-c", "4096", "-np", "4"], True),
        (["--ctx-size", "16384", "--parallel", "4"], False),
        (["-c", "4096", "-np", "4", "-kvu"], False),
        (["-c", "4096", "-np", "4", "--kv-unified", "--no-kv-unified"], True),
    ],
)
def test_contexts_that_the_arguments_do_not_give(args, is_suspicious):
    found = warnings(local_model(variants=[variant(args=[*PORT_ARGS, *args])]))
    assert [text for text in found if "args give one slot" in text] == (list(found) if is_suspicious else [])
    assert len(found) == is_suspicious


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (local_model(margin=0), "qwen: margin 0: a prompt that is estimated too small"),
        (
            local_model(answer_tokens=4000),
            "qwen: answer_tokens and margin reserve 4512 tokens, and the largest",
        ),
        (
            local_model(variants=[variant(args=[*PORT_ARGS, "-np", "2"], parallel=8)]),
            "qwen@4096: parallel is 8, but args give the engine 2 slots (-np)",
        ),
        (
            local_model(variants=[variant(args=[*PORT_ARGS, "--host", "0.0.0.0"])]),
            "qwen@4096: --host 0.0.0.0 lets other machines use the engine",
        ),
        (
            local_model(variants=[variant(args=[*PORT_ARGS, "--api-key", "k"])]),
            "qwen@4096: args demand an API key of the engine, which is sent none: leave --api-key out",
        ),
        (
            local_model(variants=[variant(args=["--port", "8081"], connect="http://127.0.0.1:8082")]),
            "qwen@4096: args say --port 8081, but connect says 8082",
        ),
        (
            local_model(variants=[variant(args=[], connect="http://127.0.0.1:8080")]),
            "qwen@4096: port 8080 is the one this server listens on",
        ),
        (
            remote_model(connect="http://gpu.lan:8000", api_key_env="K"),
            "gpt@1048576: the key in K is sent to gpu.lan without encryption (http)",
        ),
        (
            remote_model(timeouts={"first_token": 90, "total": 60.5}),
            "gpt: timeouts.first_token is 90 s, but timeouts.total ends every request after 60.5 s",
        ),
        (remote_model(timeouts={"head": 3600}), "gpt: timeouts.head is 3600 s, but timeouts.total ends"),
        (
            local_model(timeouts={"first_token": 29}),
            "qwen: timeouts.first_token is 29 s: it may cut an engine that reads a long prompt",
        ),
        (local_model(timeouts={"between_chunks": 5}), "qwen: timeouts.between_chunks is 5 s: it may cut"),
        (local_model(timeouts={"head": 5}), "qwen: timeouts.head is 5 s: it may cut"),
    ],
)
def test_warnings(model, text):
    (warning,) = warnings(model)
    assert warning.startswith(text)


@pytest.mark.parametrize(
    "model",
    [
        remote_model(timeouts={"first_token": 5, "between_chunks": 5}),
        remote_model(timeouts={"total": 20}),  # shorter than what was not given
        remote_model(timeouts={"first_token": 3600, "total": False}),
        local_model(timeouts={"connect": 1, "first_token": 30, "between_chunks": 60, "total": 10_000}),
        remote_model(retries=0, fallbacks={}, max_attempts=1),
        remote_model(prefill=True),
    ],
)
def test_limits_that_are_not_suspicious(model):
    assert warnings(model) == ()


def test_fallbacks_that_no_call_is_left_for():
    assert warnings(remote_model(fallbacks=["qwen"], max_attempts=1), local_model()) == (
        "gpt: max_attempts 1: fallbacks are asked where nobody could be called, but not after a call that failed",
    )
    assert warnings(remote_model(fallbacks=["qwen"], max_attempts=2), local_model()) == ()


def test_fallbacks_beside_each_other_or_smaller_are_not_suspicious():
    a, b = local_model(name="a", fallbacks=["b"]), local_model(name="b", variants=[variant(context=2048)])
    assert warnings(a, b | {"answer_tokens": 0}) == ()


def test_a_fixed_port_for_two_engines_that_may_run_together():
    def model(name: str, engine: str) -> dict[str, Any]:
        return local_model(
            name=name,
            engine=engine,
            variants=[variant(args=[], connect="http://127.0.0.1:9", context=c) for c in (1, 2)],
        ) | {"answer_tokens": 0, "margin": {"tokens": 0}}

    assert warnings(model("a", "llama.cpp"), model("b", "llama.cpp")) == ()
    assert warnings(model("a", "llama.cpp.secondary"), model("b", "llama.cpp.secondary")) == (
        "b@1: port 9 is also used by a@1, and both may run at the same time",
    )
    assert len(warnings(model("a", "llama.cpp"), model("b", "llama.cpp.secondary"))) == 1


def test_dumps_without_a_directory():
    assert warnings(clear_dumps_on_start=True) == (
        "server.clear_dumps_on_start: has no effect without dumps_dir",
    )
