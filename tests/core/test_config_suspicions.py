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
    ],
)
def test_warnings(model, text):
    (warning,) = warnings(model)
    assert warning.startswith(text)


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
