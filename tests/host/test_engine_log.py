import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.commands import Severity
from gatewright_host import engine_log
from gatewright_host.engine_log import (
    LONGEST_LINE,
    EngineLog,
    EnginesLogFile,
    LineSplitter,
    clean,
    read_severity,
)


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("0.00.008.773 E gguf_init_from_file: failed to open GGUF file", Severity.ERROR),
        ("0.00.004.641 W srv          init: security: no API key is set", Severity.WARNING),
        ("0.00.008.258 I srv          init: no error so far", Severity.INFO),
        ("1.22.333.444 D cmn  something: failed", Severity.DEBUG),
        ("E llama_model_load: error loading model", Severity.ERROR),
        ("W llama: n_ctx_seq < n_ctx_train", Severity.WARNING),
        (
            "0.00.559.516 W slot   operator(): id  3 | task 9 | need to evaluate at least 1 token for",
            Severity.INFO,
        ),
        ("0.00.559.517 W slot   operator(): id  3 | task 9 | n_past was set to 15", Severity.INFO),
        ("0.00.559.517 W slot   operator(): id  3 | task 9 | input truncated", Severity.WARNING),
        ("error: unknown argument: --foo", Severity.ERROR),
        ("ggml_backend_alloc: cudaMalloc failed: out of memory", Severity.ERROR),
        ("terminate called after throwing an instance of 'std::bad_alloc'", Severity.ERROR),
        ("Traceback (most recent call last):", Severity.ERROR),
        ("ModuleNotFoundError: No module named 'vllm'", Severity.ERROR),
        ("torch.OutOfMemoryError: CUDA out of memory", Severity.ERROR),
        ("FATAL: kernel too old", Severity.ERROR),
        ("WARN: falling back", Severity.WARNING),
        ("DeprecationWarning: deprecated", Severity.WARNING),
        ("main: server is listening on http://127.0.0.1:8080", Severity.INFO),
        ("Everything is fine", Severity.INFO),
    ],
)
def test_severity_is_read_from_the_line(line: str, severity: Severity) -> None:
    assert read_severity(line) is severity


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        (b"\x1b[31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        (b"caf\xc3\xa9 \xff!", "café \ufffd!"),
        (b"a\tb\x00\x07c\x7f", "a bc"),
        ("\x9b31m".encode(), "31m"),
    ],
)
def test_lines_are_cleaned(line: bytes, cleaned: str) -> None:
    assert clean(line) == cleaned


def test_a_long_line_is_cut_and_the_next_is_whole() -> None:
    lines = LineSplitter()
    found = []
    for _ in range(100):
        found += lines.feed(b"x" * 1000)
    found += lines.feed(b"\nnext\n")
    assert [len(found[0]), found[1]] == [LONGEST_LINE, "next"]


def test_progress_bars_are_lines() -> None:
    assert LineSplitter().feed(b"10 %\r20 %\r\n\n") == ["10 %", "20 %"]


@given(st.lists(st.binary(max_size=40)))
def test_lines_do_not_depend_on_how_bytes_arrive(parts: list[bytes]) -> None:
    whole, split = LineSplitter(), LineSplitter()
    expected = whole.feed(b"".join(parts)) + whole.flush()
    assert [line for part in parts for line in split.feed(part)] + split.flush() == expected


def test_the_telling_line_names_the_cause() -> None:
    log = EngineLog("m@1")
    for line in (
        "0.00.1.2 I srv: loading model",
        "0.00.001.002 E gguf_init_from_file: failed to open GGUF file 'x' (No such file or directory)",
        "0.00.001.003 E srv load_model: failed to load model, 'x'",
        "0.00.001.004 I srv: cleaning up before exit...",
        "0.00.001.005 E srv: exiting due to model loading error",
    ):
        log.add([line])
    assert (
        log.telling_line() == "gguf_init_from_file: failed to open GGUF file 'x' (No such file or directory)"
    )


def test_the_end_of_a_traceback_tells() -> None:
    log = EngineLog("m@1")
    for line in (
        "Traceback (most recent call last):",
        'File "x.py", line 1',
        "ValueError: no such thing",
        "bye",
    ):
        log.add([line])
    assert log.telling_line() == "ValueError: no such thing"


def test_without_errors_the_last_line_tells() -> None:
    log = EngineLog("m@1")
    assert log.telling_line() == ""
    log.add(["one"])
    log.add(["two   " + "x" * 1000])
    assert log.telling_line().startswith("two xxx")
    assert len(log.telling_line()) == engine_log.LONGEST_TELLING


def test_only_the_last_lines_are_kept() -> None:
    log = EngineLog("m@1")
    for number in range(1000):
        log.add([f"line {number}"])
    assert len(log.lines) == engine_log.LINES_KEPT
    assert log.lines[0] == (Severity.INFO, "line 800")


def test_lines_go_to_logging_with_the_engines_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gatewright.engine")
    log = EngineLog("m@1")
    log.add(["I all is well"])
    log.add(["E all is lost"])
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", "m@1: I all is well"),
        ("ERROR", "m@1: E all is lost"),
    ]


def test_the_file_has_all_lines_and_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_log, "FILE_BYTES", 10_000)
    file = EnginesLogFile(tmp_path / "engines.log")
    log = EngineLog("m@1", file)
    log.pid = 77
    for number in range(1000):
        log.add([f"E line {number}"])
    file.close()
    log.add(["too late"])
    file.close()
    text = (tmp_path / "engines.log").read_text()
    assert text.endswith(" m@1[77] E E line 999\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "engines.log",
        "engines.log.1",
        "engines.log.2",
    ]
    assert all(path.stat().st_size <= 10_000 for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


def test_lines_that_come_together_are_lines_in_the_file(tmp_path: Path) -> None:
    file = EnginesLogFile(tmp_path / "engines.log")
    EngineLog("m@1", file).add(["one", "W two \U0001f600"])
    file.close()
    first, second = (tmp_path / "engines.log").read_text("utf-8").splitlines()
    assert first.endswith(" m@1[0] I one")
    assert second.endswith(" m@1[0] W W two \U0001f600")


def test_a_file_that_cannot_be_written_loses_lines_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = EnginesLogFile(tmp_path / "absent" / "engines.log")
    EngineLog("m@1", file).add(["hello"])
    file.close()
    assert capsys.readouterr().err == ""
