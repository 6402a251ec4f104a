import os
import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.config import Config, Margin, ServerConfig
from gatewright.configuration.schema import config_warnings
from gatewright.engines.spec import EngineTimeouts
from gatewright.errors import ConfigError
from gatewright_host import gguf_config
from gatewright_host.gguf_config import config_for_gguf, demo_config
from gatewright_host.gguf_header import BadGguf, read_header


def write_gguf(path: Path, architecture: str = "llama", *, name: str | None = "Tiny", **keys: Any) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    if name is not None:
        writer.add_name(name)
    for key, value in keys.items():
        dotted = key.replace("__", ".")
        match value:
            case str():
                writer.add_string(dotted, value)
            case list():
                writer.add_array(dotted, value)
            case float():
                writer.add_float32(dotted, value)
            case _:
                writer.add_uint32(dotted, value)
    for number in range(3):
        writer.add_tensor(f"blk.{number}.weight", np.ones((8, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def contexts(config: Config) -> list[int]:
    return [spec.context_tokens for spec in config.models[0].variants]


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config_for_gguf(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


# --- the configuration ---


def test_a_model_of_one_s_own(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", name="Qwen3 8B Instruct", llama__context_length=40960)
    config = config_for_gguf(path)
    (model,) = config.models
    assert (model.name, model.aliases) == ("qwen3-8b-instruct", ())
    assert (model.answer_tokens, model.margin) == (1024, Margin())
    assert contexts(config) == [4096, 16384, 40960]
    spec = model.variants[1]
    assert (spec.connect, spec.place, spec.parallel) == ("http://127.0.0.1:${PORT}", "primary", 4)
    assert spec.process is not None
    args = spec.process.args[spec.process.args.index("-m") :]
    assert " ".join(args) == (
        f"-m {path} -c 16384 -np 4 -kvu --host 127.0.0.1 --port ${{PORT}} "
        "--jinja --metrics --no-webui --alias qwen3-8b-instruct --cors-origins http://127.0.0.1"
    )
    assert config_warnings(config) == ()


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        (131072, [4096, 16384, 65536]),
        (65536, [4096, 16384, 65536]),
        (32768, [4096, 16384, 32768]),
        (16384, [4096, 16384]),
        (8192, [4096, 8192]),
        (6000, [5888]),
        (2048, [2048]),
        (100, [256]),
        (0, [4096]),
        (None, [4096]),
        ("many", [4096]),
    ],
)
def test_contexts(tmp_path, trained, expected):
    keys = {} if trained is None else {"llama__context_length": trained}
    config = config_for_gguf(write_gguf(tmp_path / "x.gguf", **keys))
    assert contexts(config) == expected
    assert config_warnings(config) == ()


@pytest.mark.parametrize(
    ("name", "stem", "expected"),
    [
        ("Qwen3 8B", "x", "qwen3-8b"),
        ("org/Model: v1.5 (chat)", "x", "org-model-v1.5-chat"),
        ("Éire & Co", "x", "eire-co"),
        ("日本", "file_Q4_K_M", "file_q4_k_m"),
        (None, "My Model.Q8_0", "my-model.q8_0"),
        (None, "日本", "model"),
        ("x" * 300, "x", "x" * 80),
    ],
)
def test_names(tmp_path, name, stem, expected):
    (model,) = config_for_gguf(write_gguf(tmp_path / f"{stem}.gguf", name=name)).models
    assert model.name == expected


def test_alias_and_server_settings(tmp_path):
    server = ServerConfig(max_waiting=7, timeouts=EngineTimeouts(idle_s=1.0))
    path = write_gguf(tmp_path / "x.gguf")
    config = config_for_gguf(path, server=server, alias="chat")
    assert config.server is server
    assert config.find_model("chat") is config.find_model("tiny")
    assert config.models[0].variants[0].timeouts.idle_s == 1.0
    assert config_for_gguf(path, alias="tiny").models[0].aliases == ()


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [
        ("nomic-bert", {"nomic-bert__context_length": 2048}),
        ("bert", {"bert__context_length": 2048, "bert__pooling_type": 2}),
        ("qwen3", {"qwen3__context_length": 2048, "qwen3__pooling_type": 3}),
    ],
)
def test_embedding_models(tmp_path, architecture, keys):
    config = config_for_gguf(write_gguf(tmp_path / "x.gguf", architecture, **keys))
    assert contexts(config) == [2048]
    (model,) = config.models
    assert model.answer_tokens == 0
    assert model.variants[0].process is not None
    assert model.variants[0].process.args[-5:] == ("--embeddings", "-b", "2048", "-ub", "2048")


def test_models_that_pool_nothing_are_no_embedding_models(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", "qwen3", qwen3__context_length=8192, qwen3__pooling_type=0)
    assert contexts(config_for_gguf(path)) == [4096, 8192]


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    write_gguf(tmp_path / "x.gguf")
    monkeypatch.chdir(tmp_path)
    process = config_for_gguf(Path("x.gguf")).models[0].variants[0].process
    assert process is not None
    assert str(tmp_path / "x.gguf") in process.args


def test_the_engine_s_program(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "x.gguf")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    process = config_for_gguf(path).models[0].variants[0].process
    assert process is not None
    assert process.binary == str(tmp_path / "python3")
    assert process.args[:3] == ("-m", "gatewright_host.embedded.main", "-m")
    script = tmp_path / "gatewright-engine"
    script.touch(mode=0o755)
    process = config_for_gguf(path).models[0].variants[0].process
    assert process is not None
    assert process.binary == str(script)
    assert process.args[0] == "-m"


# --- the demo ---


@pytest.mark.parametrize(
    ("trained", "expected"), [(8192, [1024, 2048]), (2048, [1024, 2048]), (1024, [512, 1024]), (256, [256])]
)
def test_the_demo_s_contexts(tmp_path, monkeypatch, trained, expected):
    (tmp_path / "data").mkdir()
    write_gguf(tmp_path / "data" / "demo.gguf", llama__context_length=trained)
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    config = demo_config()
    assert config.models[0].name == "gatewright-demo"
    assert contexts(config) == expected
    assert config.models[0].answer_tokens == expected[0] // 4
    assert config_warnings(config) == ()


def test_a_demo_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with pytest.raises(ConfigError, match=r"demo\.gguf: no such file"):
        demo_config()


def test_the_installed_demo():
    demo = Path(gguf_config.__file__).parent / "data" / "demo.gguf"
    if not demo.exists():
        pytest.skip("made by tools/demo_model")
    assert len(demo_config().models[0].variants) == 2


# --- files that are no model ---


def test_what_is_no_model(tmp_path):
    path = tmp_path / "x.gguf"
    assert problem(path) == "no such file or directory"
    assert problem(tmp_path) == "is a directory"
    for content in (b"", b"GG", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        assert problem(path) == "not a GGUF file"
    assert problem(write_gguf(path, general__type="adapter")) == "is of type 'adapter', not a model"
    assert problem(write_gguf(path, "clip")) == "is a projector for images or sound, not a model"
    assert problem(write_gguf(path, split__no=1)).startswith("is not the first part of its model")
    assert config_for_gguf(write_gguf(path, general__type="model", split__no=0))


def test_files_that_may_not_be_read(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = write_gguf(tmp_path / "x.gguf")
    path.chmod(0)
    assert problem(path) == "permission denied"


def header(version: int = 3, tensors: int = 0, fields: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + rest


def field(kind: int, value: bytes, key: bytes = b"k") -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GGUF", "cut off within its header"),
        (header(version=1), "has version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is for machines of the other byte order"),
        (header(), "has no tensors"),
        (header(tensors=2**63), "is damaged: it claims more entries"),
        (header(fields=2**63), "is damaged: it claims more entries"),
        (header(fields=1), "cut off within its header"),
        (header(fields=1, rest=field(99, b"")), "is damaged: no value has type 99"),
        (header(fields=1, rest=field(8, struct.pack("<Q", 2**62))), "is damaged: a text in its header"),
        (header(fields=1, rest=field(8, struct.pack("<Q", 100))), "cut off within its header"),
        (header(fields=1, rest=field(9, struct.pack("<IQ", 8, 2**62))), "has an array of"),
        (header(fields=1, rest=field(9, struct.pack("<IQ", 9, 1))), "has an array of 1 items of type 9"),
        (header(fields=2, rest=field(9, struct.pack("<IQ", 4, 2**63))), "cut off within its header"),
        (header(fields=1, rest=field(9, struct.pack("<IQQ", 8, 2, 2**64 - 1))), "cut off within its header"),
        (header(tensors=1, rest=struct.pack("<QcI", 1, b"t", 200) + bytes(64)), "is damaged: a tensor has"),
    ],
)
def test_damaged_headers(tmp_path, content, reason):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    assert problem(path).startswith(reason)


def test_cut_anywhere_it_is_an_error_or_a_whole_header(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", llama__context_length=4096, tokens=["a", "b"], scores=[0.5, 1.5])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        # The tensors' sizes are not looked at: the last one's start has to be there.
        if length <= len(whole) - 8 * 8 * 4:
            with pytest.raises(BadGguf):
                read_header(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_anywhere_raises_nothing_else(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    content = bytearray(write_gguf(path, llama__context_length=4096, tokens=["a", "b"]).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, 250))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        config_for_gguf(path)
    except ConfigError as error:
        assert len(error.problems) == 1  # noqa: PT017  # any outcome but another exception is right


def test_the_header_agrees_with_the_gguf_package(tmp_path):
    path = write_gguf(
        tmp_path / "x.gguf",
        llama__context_length=4096,
        llama__rope__freq_base=1e6,
        tokens=["a", "b"],
        ids=[1, 2],
    )
    fields = gguf.GGUFReader(path).fields
    own = read_header(path)
    assert own == {
        key: found.contents()
        for key, found in fields.items()
        if not key.startswith("GGUF.") and found.types[0] is not gguf.GGUFValueType.ARRAY
    }
    assert own["llama.context_length"] == 4096
