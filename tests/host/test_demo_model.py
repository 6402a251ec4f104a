"""The bundled demo model: what its page promises, and what a real engine makes of it."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from gatewright_host.gguf_header import read_header

MODEL = Path(str(files("gatewright_host") / "data" / "demo.gguf"))
TOOLS = Path(__file__).parents[2] / "tools" / "demo_model"
PAGE = tomllib.loads((TOOLS / "questions.toml").read_text(encoding="utf-8"))["entry"]
OFF_TOPIC = tomllib.loads((TOOLS / "off_topic.toml").read_text(encoding="utf-8"))
ENTRIES = [*PAGE, OFF_TOPIC]

Ask = Callable[..., str]


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split()) or text


def test_the_page_has_no_question_twice() -> None:
    questions = [plain(question) for entry in ENTRIES for question in (*entry["ask"], *entry["held_out"])]

    assert [question for question, times in Counter(questions).items() if times > 1] == []


def test_the_page_has_no_id_or_answer_twice() -> None:
    assert len({entry["id"] for entry in PAGE}) == len(PAGE)
    assert len({entry["answer"] for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", PAGE, ids=lambda entry: entry["id"])
def test_an_entry_is_asked_for_in_several_ways_and_answered_briefly(entry: dict[str, Any]) -> None:
    assert len(entry["ask"]) >= 8
    assert entry["held_out"]
    assert 1 <= len(re.findall(r"[.!?](?=\s|$)", entry["answer"])) <= 3


def test_every_gap_of_a_template_has_words() -> None:
    gaps = {
        gap
        for entry in ENTRIES
        for template in entry.get("templates", ())
        for gap in re.findall(r"\{(\w+)\}", template)
    }

    assert gaps <= {*OFF_TOPIC["fill"], "noise", "number"}


def test_the_file_is_small() -> None:
    assert MODEL.stat().st_size <= 3_000_000


def test_the_file_says_what_it_is() -> None:
    stated = read_header(MODEL)

    assert stated["general.architecture"] == "llama"
    assert stated["general.name"] == "gatewright-demo"
    assert stated["general.license"] == "MIT"
    assert stated["llama.context_length"] == 4096
    assert "<|im_start|>" in str(stated["tokenizer.chat_template"])


@pytest.fixture(scope="module")
def ask() -> Ask:
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(MODEL)
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.port = 0
    server = xllamacpp.Server(params)

    def once(*texts: str, **options: object) -> str:
        roles = ["user", "assistant"] * len(texts)
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
        reply = server.handle_chat_completions({"messages": messages, "max_tokens": 100, **options})
        assert reply["choices"][0]["finish_reason"] == "stop"
        return str(reply["choices"][0]["message"]["content"])

    return once


@pytest.mark.engine
@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is Gatewright?", ("gateway", "own hardware", "variant")),
        ("what is a variant", ("same weights", "context")),
        ("How do I use my own GGUF?", ("gw-server --model FILE.gguf",)),
        ("What happens when a prompt is too long?", ("more context", "error")),
        ("Who are you?", ("demo model", "million parameters")),
        ("Which licence does it have?", ("MIT",)),
        ("Write a poem about the sea.", ("only", "demo model")),
    ],
)
def test_it_answers(ask: Ask, question: str, words: tuple[str, ...]) -> None:
    for options in ({"temperature": 0}, {"seed": 1}, {"temperature": 0.8, "seed": 2}):
        answer = ask(question, **options)

        assert [word for word in words if word not in answer] == []


@pytest.mark.engine
def test_it_answers_a_second_question(ask: Ask) -> None:
    first = ask("What is a lease?", temperature=0)

    assert "GGUF" in ask("What is a lease?", first, "What is GGUF?", temperature=0)


@pytest.mark.engine
def test_it_names_its_true_size(ask: Ask) -> None:
    gguf = pytest.importorskip("gguf")
    parameters = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(MODEL).tensors)

    assert f"{parameters / 1e6:.1f} million parameters" in ask("How big are you?", temperature=0)
