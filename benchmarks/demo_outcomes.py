"""Real outcomes to measure estimators on, with nothing downloaded: the bundled demo model, and a coarser copy of it.

Usage: python benchmarks/demo_outcomes.py OUTCOMES.jsonl [--step 72] [--sample N]

Both answer the questions of the demo model's page (tools/demo_model), some of them behind a greeting, some with typing
errors, some behind pasted text. An answer is a success if it is word for word the right one. The coarse copy keeps fewer
levels of each weight, as a harder quantisation would.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from attrs import frozen

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "adapters" / "host" / "gatewright_host" / "data" / "demo.gguf"
PAGE = ROOT / "tools" / "demo_model"
PARAMETERS = "1.4 million"
BLOCK_BYTES = 34
SCALE_BYTES = 2
PASTED = ("agreement", "an", "and", "at", "by", "engine", "evening", "for", "function", "green", "in", "invoice", "light",
          "line", "notice", "of", "old", "on", "paper", "party", "patient", "quarter", "returns", "river", "sample", "section",
          "slowly", "the", "to", "token", "towards", "valley", "value", "walked", "with")  # fmt: skip
GREETINGS = ("", "", "Hello! ", "Quick question: ", "I would like to know: ", "Sorry, ", "Please tell me: ")


@frozen
class Question:
    """One prompt and its right answer."""

    task: str
    prompt: str
    answer: str


def read_page() -> Iterator[tuple[str, str, str]]:
    """Kind, question and answer of everything that the page has, in all its phrasings."""
    entries = tomllib.loads((PAGE / "questions.toml").read_text(encoding="utf-8"))["entry"]
    off = tomllib.loads((PAGE / "off_topic.toml").read_text(encoding="utf-8"))
    for entry, kind in (*((entry, "page") for entry in entries), (off, "off topic")):
        answer = entry["answer"].replace("{parameters}", PARAMETERS)
        for question in entry["ask"]:
            yield kind, question, answer
        for question in entry.get("held_out", ()):
            yield f"{kind}, never seen", question, answer


def vary(question: str, chance: random.Random) -> str:
    """The question as somebody may type it."""
    if chance.random() < 0.3:
        place = chance.randrange(len(question))
        question = question[:place] + chance.choice("aeinrst") + question[place + 1 :]
    question = chance.choice(GREETINGS) + question
    if chance.random() < 0.25:
        words = " ".join(chance.choice(PASTED) for _ in range(chance.randint(5, 60)))
        question = f"{words}\n\n{question}"
    return question


def coarse_copy(step: int, path: Path) -> None:
    """The demo model with every weight rounded to a multiple of `step` of its 255 levels."""
    shutil.copy(MODEL, path)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if tensor.tensor_type is gguf.GGMLQuantizationType.Q8_0:
            blocks = tensor.data.reshape(-1, BLOCK_BYTES)
            levels = blocks[:, SCALE_BYTES:].view(np.int8)
            levels[:] = np.clip(np.rint(levels / step) * step, -127, 127)
            tensor.data.flush()


def serve(path: Path) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity, params.port = (
        2048,
        1,
        1,
        0,
        0,
    )
    return xllamacpp.Server(params)


def ask(server: xllamacpp.Server, prompt: str) -> str:
    request = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 120, "temperature": 0}
    return str(server.handle_chat_completions(request)["choices"][0]["message"]["content"])


def run(questions: Sequence[Question], path: Path) -> list[float]:
    """Success of each answer."""
    server, began = serve(path), time.monotonic()
    scores = [float(ask(server, question.prompt) == question.answer) for question in questions]
    spent_s = time.monotonic() - began
    print(f"{path.name}: {np.mean(scores):.1%} right, {spent_s:.0f} s", file=sys.stderr)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUTCOMES.jsonl")
    parser.add_argument("--step", type=int, default=72, help="of the coarse copy's weights (default: 72)")
    parser.add_argument("--sample", type=int, metavar="N", help="ask N questions only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    questions = [Question(kind, vary(text, chance), answer) for kind, text, answer in read_page()]
    if options.sample:
        questions = chance.sample(questions, options.sample)
    with tempfile.TemporaryDirectory() as directory:
        coarse = Path(directory) / "coarse.gguf"
        coarse_copy(options.step, coarse)
        weak, strong = run(questions, coarse), run(questions, MODEL)
    with options.out.open("w", encoding="utf-8") as out:
        for question, failing, good in zip(questions, weak, strong, strict=True):
            outcomes = {"demo-coarse": {"score": failing}, "demo": {"score": good}}
            out.write(
                json.dumps({"prompt": question.prompt, "task": question.task, "outcomes": outcomes}) + "\n"
            )


if __name__ == "__main__":
    main()
