"""Train the demo model from its page and write it as a GGUF file."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time

import export
import jax
import jax.numpy as jnp
import network
import numpy as np
import page
import text

HERE = pathlib.Path(__file__).parent
OUT = HERE.parents[1] / "adapters/host/gatewright_host/data/demo.gguf"

SHAPE = network.Shape()
RECIPE = network.Recipe()
ROWS, LENGTH = 16, 256
EVERY_LONG, LONG_LENGTH = 20, 2048
"""Every so many steps there is one long conversation instead of rows of short ones."""

ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""With these glibc keeps the memory of a step for the next one, which halves the time of a step."""

Asked = list[tuple[page.Entry, str]]


def corpus(entries: list[page.Entry], fill: dict[str, list[str]], phrasing: page.Phrasing) -> list[str]:
    """What the tokens are made from: answers most of all, so that they become short."""
    questions = [question for entry in entries for question in entry.ask]
    words = [f" {word}" for some in fill.values() for word in some]
    roles = ["system\n", "user\n", "assistant\n"] * 20
    lower = [question.lower() for question in questions]
    return (
        [e.answer for e in entries] * 4
        + questions
        + lower
        + words
        + phrasing.systems
        + phrasing.before
        + roles
    )


def exact(weights: network.Weights, writer: text.Writer, asked: Asked) -> list[bool]:
    """Whether greedy decoding gives each answer word for word.

    It does exactly if every token of the answer is the likeliest one after the true tokens before it.
    """
    run = jax.jit(lambda tokens: network.logits(weights, SHAPE, tokens).argmax(-1))
    results = []
    for start in range(0, len(asked), 64):
        talks = []
        for entry, question in asked[start : start + 64]:
            talk = text.Talk()
            writer.turn(talk, entry, question)
            talks.append(talk)
        tokens = np.zeros((64, 192), np.int32)
        for row, talk in enumerate(talks):
            tokens[row, : len(talk.tokens)] = talk.tokens
        best = np.asarray(run(jnp.asarray(tokens)))
        for row, talk in enumerate(talks):
            wanted = [i for i, weight in enumerate(talk.weights) if weight == 1]
            results.append(all(best[row, i - 1] == talk.tokens[i] for i in wanted))
    return results


def report(weights: network.Weights, writer: text.Writer) -> None:
    """Print how many answers are right word for word."""
    *on_page, off_topic = writer.asker.entries
    for kind in ("ask", "held_out"):
        for name, entries in (("on the page", on_page), ("off topic", [off_topic])):
            asked = [(entry, question) for entry in entries for question in getattr(entry, kind)]
            right = exact(weights, writer, asked)
            print(
                f"  {kind:8} {name:11} {sum(right)}/{len(right)} = {sum(right) / len(right):.1%}", flush=True
            )


def train(writer: text.Writer, weights: network.Weights, key: jax.Array, steps: int) -> network.Weights:
    """Train for so many steps; the result is the running average of the weights."""
    state = network.start(weights)
    began = time.monotonic()
    losses: list[float] = []
    for at in range(steps):
        key, dropout = jax.random.split(key)
        is_long = at % EVERY_LONG == EVERY_LONG - 1
        batch = writer.rows(1, LONG_LENGTH) if is_long else writer.rows(ROWS, LENGTH)
        now, last = jnp.float32(at), jnp.float32(steps)
        state, answers = network.step(state, batch, now, last, dropout, shape=SHAPE, recipe=RECIPE)
        losses.append(float(answers))
        if at % 100 == 99:
            took = time.monotonic() - began
            print(
                f"step {at + 1}: loss of the answers {np.mean(losses[-100:]):.4f}, {took:.0f} s", flush=True
            )
    return state[3]


def main() -> None:
    """Train, report, write."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=pathlib.Path, default=OUT)
    p.add_argument("--f32", type=pathlib.Path, help="also write the weights as they are, to compare engines")
    p.add_argument("--steps", type=int, default=2800)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)

    key, first = jax.random.split(jax.random.key(a.seed))
    weights = network.init(SHAPE, len(page.load("")[0]), first)
    parameters = network.count(weights)
    entries, fill, phrasing = page.load(f"{parameters / 1e6:.1f} million")
    vocabulary = text.Vocabulary(corpus(entries, fill, phrasing), SHAPE.vocab)
    asker = page.Asker(entries, fill, phrasing, np.random.default_rng(a.seed))
    writer = text.Writer(vocabulary, asker)
    asked, held_out = (sum(len(getattr(e, kind)) for e in entries) for kind in ("ask", "held_out"))
    print(f"{parameters:,} parameters, {len(entries)} answers, {asked} phrasings, {held_out} held out")

    weights = train(writer, weights, key, a.steps)
    report(weights, writer)
    export.write(weights, SHAPE, vocabulary, a.out, kind="q8_0")
    if a.f32:
        export.write(weights, SHAPE, vocabulary, a.f32, kind="f32")
    print(f"{a.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
