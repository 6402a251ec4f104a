"""Train the demo model from its page and write it as a GGUF file."""

from __future__ import annotations

import argparse
import pathlib
import time

import gguf
import jax
import jax.numpy as jnp
import network
import numpy as np
import page
import text

HERE = pathlib.Path(__file__).parent
OUT = HERE.parents[1] / "adapters/host/gatewright_host/data/demo.gguf"
CONTEXT = 32768


def exact(weights: network.Weights, shape: network.Shape, writer: text.Writer, pairs: list[tuple[page.Entry, str]]) -> list[bool]:
    """Whether greedy decoding gives each answer word for word.

    It does exactly if every token of the answer is the most likely one after the true tokens before it.
    """
    run = jax.jit(lambda tokens: network.logits(weights, shape, tokens).argmax(-1))
    results = []
    for start in range(0, len(pairs), 64):
        talks = []
        for entry, question in pairs[start : start + 64]:
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


def report(weights: network.Weights, shape: network.Shape, writer: text.Writer, *, show: bool) -> None:
    """Print how many answers are right word for word."""
    for name in ("ask", "held_out"):
        for kind, chosen in (
            ("on the page", lambda i: i != page.OFF_TOPIC),
            ("off topic", lambda i: i == page.OFF_TOPIC),
        ):
            pairs = [(e, q) for e in writer.asker.entries if chosen(e.id) for q in getattr(e, name)]
            for case in ("", ", small letters and no question mark"):
                asked = [(e, q.lower().rstrip("?.") or q) for e, q in pairs] if case else pairs
                right = exact(weights, shape, writer, asked)
                print(f"  {name:8} {kind:11}{case}: {sum(right)}/{len(right)} = {sum(right) / len(right):.1%}")
                if show and name == "held_out" and not case:
                    for (entry, question), good in zip(asked, right, strict=True):
                        if not good:
                            print(f"      {entry.id}: {question}")


def export(weights: network.Weights, shape: network.Shape, vocabulary: text.Vocabulary, path: pathlib.Path, sharpen: float, kind: str) -> None:
    """Write the GGUF file: matrices in Q8_0, gains in F32."""
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_name("gatewright-demo")
    out.add_description("A tiny model that knows one page of questions and answers about Gatewright, and nothing else.")
    out.add_author("The Gatewright authors")
    out.add_license("MIT")
    out.add_languages(["en"])
    out.add_size_label(f"{network.count(weights) / 1e6:.1f}M")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(shape.embedding)
    out.add_block_count(shape.blocks)
    out.add_feed_forward_length(shape.feed_forward)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.heads)
    out.add_rope_dimension_count(shape.head)
    out.add_rope_freq_base(shape.rope_base)
    out.add_layer_norm_rms_eps(network.EPS)
    out.add_vocab_size(shape.vocab)
    out.add_file_type({"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "f32": gguf.LlamaFileType.ALL_F32}[kind])
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(vocabulary.tokens)
    out.add_token_types([gguf.TokenType.CONTROL if t in text.SPECIAL else gguf.TokenType.NORMAL for t in vocabulary.tokens])
    out.add_token_merges([" ".join(merge) for merge in vocabulary.merges])
    out.add_bos_token_id(vocabulary.ids[text.END_OF_TEXT])
    out.add_eos_token_id(vocabulary.ids[text.END])
    out.add_eot_token_id(vocabulary.ids[text.END])
    out.add_pad_token_id(vocabulary.ids[text.END_OF_TEXT])
    out.add_add_bos_token(False)
    out.add_add_eos_token(False)
    out.add_chat_template(text.CHAT_TEMPLATE)

    def matrix(name: str, value: np.ndarray) -> None:
        value = np.ascontiguousarray(value, np.float32)
        if kind == "q8_0":
            packed = gguf.quants.quantize(value, gguf.GGMLQuantizationType.Q8_0)
            out.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            out.add_tensor(name, value)

    w = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    matrix("token_embd.weight", w["token_embd"])
    out.add_tensor("output_norm.weight", w["output_norm"] * np.float32(sharpen))
    for i in range(shape.blocks):
        for name in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"blk.{i}.{name}.weight", w[name][i])
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            matrix(f"blk.{i}.{name}.weight", w[name][i].T)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main() -> None:
    """Train, report, write."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=pathlib.Path, default=OUT)
    p.add_argument("--kind", choices=["q8_0", "f32"], default="q8_0")
    p.add_argument("--steps", type=int, default=2400)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--vocab", type=int, default=1024)
    p.add_argument("--embedding", type=int, default=160)
    p.add_argument("--blocks", type=int, default=4)
    p.add_argument("--heads", type=int, default=5)
    p.add_argument("--ff", type=int, default=448)
    p.add_argument("--rate", type=float, default=3e-3)
    p.add_argument("--decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--intent", type=float, default=0.3)
    p.add_argument("--skip", type=float, default=0.1)
    p.add_argument("--listen", type=float, default=0.1)
    p.add_argument("--sharpen", type=float, default=3.0)
    p.add_argument("--long", type=int, default=25)
    p.add_argument("--every", type=int, default=500)
    p.add_argument("--paste", type=float, default=0.12)
    p.add_argument("--rows", type=int, default=16)
    a = p.parse_args()
    shape = network.Shape(a.vocab, a.embedding, a.blocks, a.heads, a.ff)
    recipe = network.Recipe(rate=a.rate, decay=a.decay, dropout=a.dropout, intent=a.intent)
    entries, fill, phrasing = page.load("0.0 million")
    key, first = jax.random.split(jax.random.key(a.seed))
    weights = network.init(shape, len(entries), first)
    parameters = network.count(weights)
    entries, fill, phrasing = page.load(f"{parameters / 1e6:.1f} million")
    asker = page.Asker(entries, fill, phrasing, np.random.default_rng(a.seed))
    corpus = [e.answer for e in entries for _ in range(4)] + [q for e in entries for q in e.ask]
    corpus += [q.lower() for e in entries for q in e.ask] + [" " + w for words in fill.values() for w in words]
    corpus += phrasing.systems + phrasing.before + ["system\n", "user\n", "assistant\n"] * 20
    vocabulary = text.Vocabulary(corpus, a.vocab)
    assert len(vocabulary.tokens) == a.vocab
    assert all(vocabulary.encode(t) == vocabulary.tokenizer.encode(t).ids for t in corpus)
    writer = text.Writer(vocabulary, asker, skip=a.skip, listen=a.listen, paste=a.paste)
    lengths = [len(vocabulary.encode(e.answer)) for e in entries]
    print(f"{parameters:,} parameters, {len(entries)} entries, answers of {np.mean(lengths):.0f} tokens, at most {max(lengths)}")
    print(sum(len(e.ask) for e in entries), "phrasings", sum(len(e.held_out) for e in entries), "held out")
    state = network.start(weights)
    began = time.time()
    losses: list[float] = []
    makes = 0.0
    for at in range(a.steps):
        key, k = jax.random.split(key)
        t = time.time()
        batch = writer.rows(1, 3072) if a.long and at % a.long == a.long - 1 else writer.rows(a.rows, 256)
        makes += time.time() - t
        state, answer = network.step(state, batch, jnp.float32(at), jnp.float32(a.steps), k, shape=shape, recipe=recipe)
        losses.append(float(answer))
        if at % 100 == 99:
            print(f"step {at + 1}: answers' loss {np.mean(losses[-100:]):.4f}, {time.time() - began:.0f} s ({makes:.0f} s writing)", flush=True)
        if at % a.every == a.every - 1:
            report(state[3], shape, writer, show=at + 1 == a.steps)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    export(state[3], shape, vocabulary, a.out, a.sharpen, a.kind)
    export(state[3], shape, vocabulary, a.out.with_suffix(".f32.gguf"), 1.0, "f32")
    print(f"{time.time() - began:.0f} s, {a.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
