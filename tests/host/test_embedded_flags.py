import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gatewright_host.embedded import main as engine_main
from gatewright_host.embedded.flags import FALSE, TRUE, Flag, UsageError, parse
from gatewright_host.embedded.kinds import Grammar, Lora, Member
from gatewright_host.embedded.params import build
from gatewright_host.embedded.table import DEFAULTS, FLAGS, SECTIONS

xllamacpp: Any = pytest.importorskip("xllamacpp")


def settings_of(*argv: str, **environ: str) -> dict[str, object]:
    return parse(FLAGS, argv, environ)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-m", "a.gguf"], {"model.path": "a.gguf"}),
        (["-c", "2048"], {"n_ctx": 2048}),
        (["--ctx_size", "2048"], {"n_ctx": 2048}),
        (["-c", "0"], {"n_ctx": 0, "fit_params_min_ctx": -1}),
        (["-np", "3", "-kvu"], {"n_parallel": 3, "kv_unified": True}),
        (["-kvu", "--no-kv-unified"], {"kv_unified": False}),
        (["-ngl", "all"], {"n_gpu_layers": -2}),
        (["--gpu-layers", "12"], {"n_gpu_layers": 12}),
        (["-t", "0"], {"cpuparams.n_threads": os.cpu_count()}),
        (["-tb", "3"], {"cpuparams_batch.n_threads": 3}),
        (["--host", "127.0.0.1,::1", "--port", "0"], {"hostnames": ["127.0.0.1", "::1"], "port": 0}),
        (["-a", "one,two"], {"model_alias": ["one", "two"]}),
        (["--embeddings"], {"embedding": True}),
        (
            ["--rerank"],
            {"embedding": True, "pooling_type": Member("llama_pooling_type", "LLAMA_POOLING_TYPE_RANK")},
        ),
        (["-n", "-1"], {"n_predict": -1}),
        (
            ["-fa", "off"],
            {"flash_attn_type": Member("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_DISABLED")},
        ),
        (["-ctk", "q8_0"], {"cache_type_k": Member("ggml_type", "GGML_TYPE_Q8_0")}),
        (["--no-mmap"], {"load_mode": Member("llama_load_mode", "LLAMA_LOAD_MODE_NONE")}),
        (["--mlock"], {"load_mode": Member("llama_load_mode", "LLAMA_LOAD_MODE_MMAP_MLOCK")}),
        (["--mlock", "--no-mmap"], {"load_mode": Member("llama_load_mode", "LLAMA_LOAD_MODE_MLOCK")}),
        (["--no-webui"], {"ui": False}),
        (["--api-key", "a,b"], {"api_keys": ["a", "b"]}),
        (["-to", "60"], {"timeout_read": 60, "timeout_write": 60}),
        (["--seed", "-1"], {"sampling.seed": 2**32 - 1}),
        (["--rope-scale", "4"], {"rope_freq_scale": 0.25}),
        (
            ["--temp", "-1", "--top-k", "5"],
            {
                "sampling.temp": 0.0,
                "sampling.top_k": 5,
                "sampling.user_sampling_config": frozenset(
                    {"COMMON_PARAMS_SAMPLING_CONFIG_TEMP", "COMMON_PARAMS_SAMPLING_CONFIG_TOP_K"}
                ),
            },
        ),
        (["--sampler-seq", "kt"], {"sampling.samplers": "top_k;temperature"}),
        (["--lora-scaled", "a:0.5,b:1"], {"lora_adapters": [Lora("a", 0.5), Lora("b", 1.0)]}),
        (["--grammar", "root ::= [0-9]"], {"sampling.grammar": Grammar("root ::= [0-9]", is_schema=False)}),
        (
            ["--reasoning", "off", "--chat-template-kwargs", '{"x": [1]}'],
            {"enable_reasoning": 0, "default_template_kwargs": {"enable_thinking": "false", "x": "[1]"}},
        ),
        (["-r", "-stop", "-r", "end"], {"antiprompt": ["-stop", "end"]}),
        (["--port", "1", "--port", "2"], {"port": 2}),
        (["--no-perf"], {"no_perf": True, "sampling.no_perf": True}),
    ],
)
def test_flags_set_what_llama_server_sets(argv: list[str], expected: dict[str, object]):
    assert settings_of(*argv) == expected


def test_environment_counts_where_the_command_line_is_silent():
    assert settings_of(LLAMA_ARG_CTX_SIZE="512", LLAMA_ARG_ENDPOINT_METRICS="1") == {
        "n_ctx": 512,
        "endpoint_metrics": True,
    }
    assert settings_of("-c", "1024", LLAMA_ARG_CTX_SIZE="512") == {"n_ctx": 1024}
    assert settings_of(LLAMA_ARG_JINJA="off") == {"use_jinja": False}
    assert settings_of(LLAMA_ARG_NO_JINJA="1") == {"use_jinja": False}
    assert settings_of(LLAMA_ARG_ENDPOINT_METRICS="0") == {}
    assert settings_of(LLAMA_API_KEY="k") == {"api_keys": ["k"]}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ctx-sise", "1"], "unknown flag --ctx-sise; did you mean --ctx-size?"),
        (["-nx"], "unknown flag -nx; did you mean "),
        (["--zzzzzz"], "unknown flag --zzzzzz; see --help"),
        (["--port=8080"], "unknown flag --port=8080; did you mean --port?"),
        (["model.gguf"], "unexpected argument 'model.gguf'; every value follows its flag"),
        (["-m"], "-m needs a value: -m, --model FNAME"),
        (["-c", "4k"], "-c: '4k' is not allowed; it takes an integer of at least 0"),
        (["-c", str(2**40)], "is not allowed; it takes an integer of at least 0"),
        (["--port", "65536"], "--port: '65536' is not allowed; it takes an integer from 0 to 65535"),
        (["-np", "0"], "-np: '0' is not allowed; it takes at least 1, or -1 for automatic"),
        (["-ctv", "q3"], "-ctv: 'q3' is not allowed; it takes one of f32, f16, bf16, q8_0"),
        (["--fit", "auto"], "--fit: 'auto' is not allowed; it takes one of on, "),
        (["--slot-save-path", "/nowhere"], "it takes an existing folder"),
        (["--chat-template-file", "/nowhere"], "it takes a readable text file (No such file or directory)"),
        (["--chat-template-kwargs", "[]"], "it takes a JSON object"),
        (["--temp", "warm"], "--temp: 'warm' is not allowed; it takes a number"),
        (["--device", "none"], "--device is a flag of llama-server that the embedded engine does not have"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(argv: list[str], message: str):
    with pytest.raises(UsageError) as raised:
        settings_of(*argv)
    assert message in str(raised.value)


def test_a_wrong_environment_variable_is_named():
    with pytest.raises(UsageError, match="LLAMA_ARG_PORT: 'x' is not allowed"):
        settings_of(LLAMA_ARG_PORT="x")
    with pytest.raises(UsageError, match="LLAMA_ARG_JINJA: 'maybe' is not allowed"):
        settings_of(LLAMA_ARG_JINJA="maybe")


def test_no_spelling_means_two_flags():
    spellings = [name for flag in FLAGS for name in (*flag.names, *flag.off)]
    assert len(spellings) == len(set(spellings))
    variables = [flag.env for flag in FLAGS if flag.env]
    assert len(variables) == len(set(variables))


def sample_value(flag: Flag, folder: Path, file: Path) -> list[str]:
    """An argument that the flag takes."""
    candidates = (
        "1",
        "mean",
        "linear",
        "layer",
        "mmap",
        "f16",
        "distribute",
        "deepseek",
        "kt",
        '{"type": "boolean"}',
    )
    for value in (*candidates, *TRUE, *FALSE, "a:1", "top_k", str(folder), str(file)):
        if flag.reader is None:
            return []
        with contextlib.suppress(ValueError):
            flag.reader(value)
            return [value]
    raise AssertionError(flag)


@pytest.mark.parametrize(
    "flag", [flag for flag in FLAGS if not flag.refusal], ids=lambda flag: flag.names[-1]
)
def test_every_flag_reaches_llama_cpp(flag: Flag, tmp_path: Path):
    file = tmp_path / "grammar.json"
    file.write_text('{"type": "boolean"}')
    value = sample_value(flag, tmp_path, file)
    if flag.names[0] in ("--samplers", "--override-tensor", "-ot"):
        value = ["top_k;temperature"] if flag.names[0] == "--samplers" else ["blk.*=CPU"]
    for name in flag.names:
        build(xllamacpp, settings_of(name, *value))
    for name in flag.off:
        build(xllamacpp, settings_of(name))


def test_values_arrive_in_llama_cpp():
    argv = (
        "-ngl 7 -fa on --temp 0.5 --top-p 0.25 -t 3 -ts 3,1 -fitt 512 -ncmoe 2 --lora a.gguf -a x --no-slots"
    )
    params = build(xllamacpp, DEFAULTS | settings_of(*argv.split(), "-j", '{"type": "boolean"}'))
    assert (params.n_parallel, params.port, params.n_gpu_layers, params.endpoint_slots) == (
        -1,
        8080,
        7,
        False,
    )
    assert params.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert (params.sampling.temp, params.sampling.top_p, params.cpuparams.n_threads) == (0.5, 0.25, 3)
    config = xllamacpp.common_params_sampling_config
    assert params.sampling.user_sampling_config == (
        config.COMMON_PARAMS_SAMPLING_CONFIG_TEMP | config.COMMON_PARAMS_SAMPLING_CONFIG_TOP_P
    )
    assert params.tensor_split[:3] == [3.0, 1.0, 0.0]
    assert set(params.fit_params_target) == {512 * 1024 * 1024}
    assert params.tensor_buft_overrides.count("=CPU") == 2
    assert [adapter.path for adapter in params.lora_adapters] == ["a.gguf"]
    assert params.model_alias == {"x"}
    assert "boolean" in params.sampling.grammar.grammar


def test_a_value_that_llama_cpp_refuses_is_a_usage_error():
    with pytest.raises(ValueError, match="tensor_buft_overrides"):
        build(xllamacpp, settings_of("-ot", "nonsense"))


# The command line, without an engine


def run_main(*argv: str, **environ: str) -> int:
    return engine_main.main(list(argv), environ)


def test_help_lists_every_flag(capsys: pytest.CaptureFixture[str]):
    assert run_main("--help") == 0
    shown = capsys.readouterr().out
    for flags in SECTIONS.values():
        for flag in flags:
            assert f"  {flag.spelling}\n" in shown
            assert flag.env in shown


def test_version_names_llama_cpps(capsys: pytest.CaptureFixture[str]):
    assert run_main("--version") == 0
    assert f"xllamacpp {xllamacpp.__version__}" in capsys.readouterr().out


def test_mistakes_end_with_code_2_and_one_line(capsys: pytest.CaptureFixture[str]):
    assert run_main("--ctx-sise", "1") == 2
    assert (
        capsys.readouterr().err
        == "gatewright-engine: error: unknown flag --ctx-sise; did you mean --ctx-size?\n"
    )
    assert run_main() == 2
    assert (
        capsys.readouterr().err
        == "gatewright-engine: error: no model given; name a GGUF file with -m FNAME\n"
    )


def test_without_xllamacpp_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert run_main("--version") == 1
    assert capsys.readouterr().err.endswith("[engine]'\n")
