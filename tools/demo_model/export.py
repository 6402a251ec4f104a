"""The trained network as a GGUF file."""

from __future__ import annotations

import pathlib
from typing import Literal

import gguf
import network
import numpy as np
import text

CONTEXT = 4096
"""A little more than the prompts that training saw, with their crowds."""

SHARPEN = 3.0
"""The last gain is multiplied by this, so that the default temperatures of engines and clients act like a third of
themselves. It changes nothing at temperature 0."""

Kind = Literal["q8_0", "f32"]


def write(
    weights: network.Weights,
    shape: network.Shape,
    vocabulary: text.Vocabulary,
    path: pathlib.Path,
    *,
    kind: Kind,
) -> None:
    """Write a file with matrices of that kind; gains are always F32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_name("gatewright-demo")
    out.add_description(
        "A tiny model that knows one page of questions and answers about Gatewright, and nothing else."
    )
    out.add_author("The Gatewright authors")
    out.add_license("MIT")
    out.add_languages(["en"])
    out.add_size_label(f"{network.count(weights) / 1e6:.1f}M")
    file_type = gguf.LlamaFileType.MOSTLY_Q8_0 if kind == "q8_0" else gguf.LlamaFileType.ALL_F32
    out.add_file_type(file_type)
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _describe(out, shape)
    _add_vocabulary(out, vocabulary)
    _add_tensors(out, shape, weights, kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _describe(out: gguf.GGUFWriter, shape: network.Shape) -> None:
    out.add_context_length(CONTEXT)
    out.add_vocab_size(shape.vocab)
    out.add_embedding_length(shape.embedding)
    out.add_block_count(shape.blocks)
    out.add_feed_forward_length(shape.feed_forward)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.heads)
    out.add_rope_dimension_count(shape.head)
    out.add_rope_freq_base(shape.rope_base)
    out.add_layer_norm_rms_eps(network.EPS)


def _add_vocabulary(out: gguf.GGUFWriter, vocabulary: text.Vocabulary) -> None:
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")  # the same pattern that `tokenizers` uses for its ByteLevel
    out.add_token_list(vocabulary.tokens)
    kinds = gguf.TokenType
    out.add_token_types([kinds.CONTROL if t in text.SPECIAL else kinds.NORMAL for t in vocabulary.tokens])
    out.add_token_merges([" ".join(merge) for merge in vocabulary.merges])
    out.add_bos_token_id(vocabulary.ids[text.END_OF_TEXT])
    out.add_eos_token_id(vocabulary.ids[text.END])
    out.add_eot_token_id(vocabulary.ids[text.END])
    out.add_pad_token_id(vocabulary.ids[text.END_OF_TEXT])
    out.add_add_bos_token(value=False)
    out.add_add_eos_token(value=False)
    out.add_chat_template(text.CHAT_TEMPLATE)


def _add_tensors(out: gguf.GGUFWriter, shape: network.Shape, weights: network.Weights, kind: Kind) -> None:
    def matrix(name: str, value: np.ndarray) -> None:
        value = np.ascontiguousarray(value)
        if kind == "f32":
            out.add_tensor(name, value)
        else:
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            out.add_tensor(name, gguf.quants.quantize(value, q8_0), raw_dtype=q8_0)

    w = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    matrix("token_embd.weight", w["token_embd"])  # without an output matrix llama.cpp uses this one again
    out.add_tensor("output_norm.weight", w["output_norm"] * np.float32(SHARPEN))
    for i in range(shape.blocks):
        for name in network.GAINS:
            out.add_tensor(f"blk.{i}.{name}.weight", w[name][i])
        for name in network.MATRICES:
            matrix(f"blk.{i}.{name}.weight", w[name][i].T)
