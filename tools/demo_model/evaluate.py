"""Ask the finished model every question of its page, through llama.cpp, and count the right answers.

Needs xllamacpp, which Gatewright's `engine` extra installs.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import random
import typing

import gguf
import page
import xllamacpp

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parents[1] / "adapters/host/gatewright_host/data/demo.gguf"

PASTED = """
the of and to in a is that it was for on with as his they at be this from have or by one had not but what all were when we there
engine paper green valley says 42 old invoice shall party agreement hereby notice patient sample section appendix quarter revenue
river walked slowly towards evening light door opened nobody answered function returns value error line token context prompt
"""


def serve(model: pathlib.Path, context: int) -> xllamacpp.Server:
    """An engine in this process."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = context
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    params.port = 0
    return xllamacpp.Server(params)


def ask(server: xllamacpp.Server, messages: list[dict[str, str]], **options: typing.Any) -> str:
    """The answer to a conversation."""
    reply = server.handle_chat_completions({"messages": messages, "max_tokens": 120, **options})
    return str(reply["choices"][0]["message"]["content"])


class Score:
    """Counts right answers, answers of the page to another question, and answers that are none."""

    def __init__(self, server: xllamacpp.Server, entries: list[page.Entry]) -> None:
        self.server = server
        self.entries = entries
        self.known = {entry.answer for entry in entries}
        self.wrong: list[tuple[str, str, str]] = []

    def run(
        self, name: str, asked: list[tuple[page.Entry, list[dict[str, str]]]], **options: typing.Any
    ) -> None:
        """Ask and print one line."""
        counts: collections.Counter[str] = collections.Counter()
        for entry, messages in asked:
            answer = ask(self.server, messages, **options)
            kind = "right" if answer == entry.answer else "other" if answer in self.known else "none"
            counts[kind] += 1
            if kind != "right":
                self.wrong.append((entry.id, messages[-1]["content"][-90:], answer))
        share = counts["right"] / max(1, len(asked))
        print(
            f"{name:52} {counts['right']:5}/{len(asked):<5} {share:6.1%}   "
            f"another answer {counts['other']}, no answer of the page {counts['none']}",
            flush=True,
        )


def user(text: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def pasted(rng: random.Random, words: int) -> str:
    """Text of no meaning, of words that are mostly not on the page."""
    known = PASTED.split()
    some = rng.sample(known, rng.choice([1, 5, len(known)]))
    return " ".join(rng.choice(some) for _ in range(words))


def main() -> None:
    """Print the table of the README."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", type=pathlib.Path, default=MODEL)
    p.add_argument("--show", action="store_true", help="print every wrong answer")
    a = p.parse_args()
    parameters = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(a.model).tensors)
    entries = page.load(f"{parameters / 1e6:.1f} million")[0]
    server = serve(a.model, 4096)
    score = Score(server, entries)
    rng = random.Random(1)
    on_page, off_topic = entries[:-1], entries[-1]
    trained = [(e, q) for e in on_page for q in e.ask]
    held = [(e, q) for e in on_page for q in e.held_out]
    off = [(off_topic, q) for q in off_topic.ask]
    off_held = [(off_topic, q) for q in off_topic.held_out]

    def bare(text: str) -> str:
        return text.lower().rstrip("?.!") or text

    for title, asked in (
        ("trained", trained),
        ("held out", held),
        ("off topic, trained", off),
        ("off topic, held out", off_held),
    ):
        first = len(score.wrong)
        score.run(f"{title}, temperature 0", [(e, user(q)) for e, q in asked], temperature=0)
        if a.show:
            for row in score.wrong[first:]:
                print("    ", *row, sep=" | ")
        score.run(f"{title}, no temperature set", [(e, user(q)) for e, q in asked], seed=1)
        score.run(f"{title}, temperature 0.8", [(e, user(q)) for e, q in asked], temperature=0.8, seed=1)
        score.run(f"{title}, bare small letters", [(e, user(bare(q))) for e, q in asked], temperature=0)
        system = {"role": "system", "content": "You are a helpful assistant."}
        score.run(
            f"{title}, with a system message", [(e, [system, *user(q)]) for e, q in asked], temperature=0
        )
        unseen = {"role": "system", "content": "You are a wise owl who lives in a library and likes tea."}
        score.run(
            f"{title}, with an unseen system message",
            [(e, [unseen, *user(q)]) for e, q in asked],
            temperature=0,
        )
        talks = []
        for e, q in asked:
            before, question = rng.choice(trained)
            talks.append((e, [*user(question), {"role": "assistant", "content": before.answer}, *user(q)]))
        score.run(f"{title}, second question", talks, temperature=0)
    for words in (30, 100, 300, 1000):
        some = rng.sample(trained, 30)
        score.run(
            f"trained, behind {words} pasted words",
            [(e, user(f"{pasted(rng, words)}\n\n{q}")) for e, q in some],
            temperature=0,
        )
        only = [(off_topic, user(pasted(rng, words))) for _ in range(10)]
        score.run(f"only {words} pasted words", only, temperature=0)


if __name__ == "__main__":
    main()
