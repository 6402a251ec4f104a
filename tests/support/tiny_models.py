"""Tiny GGUF models for tests: random but seeded weights around a real tokenizer and chat template.

A model built here is a few hundred kilobytes and answers thousands of tokens per second, yet llama.cpp treats it
as any other: it tokenizes every byte sequence and gives it back, renders ChatML (tools included), obeys grammars
and fills its context. What it says is word salad. Same arguments, same bytes.

How the salad is kept edible: hidden unit 0 is a constant that no block writes to, so the output matrix's column 0
acts as a per-token bias (the architecture has none). It pushes control tokens and bytes that are no text out of
reach, so an answer is plain words and goes on until ``max_tokens``; only a finished grammar ends it earlier.
"""

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from attrs import frozen

_Matrix = npt.NDArray[np.float32]
_Array = npt.NDArray[np.generic]

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
_CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
_TOOL_LIST_END = "</tools>"
_TOOL_CALL = "<tool_call>"
_TOOL_CALL_END = "</tool_call>"
_TAG_TOKENS = ("<tools>", _TOOL_LIST_END, _TOOL_CALL, _TOOL_CALL_END, "<tool_response>", "</tool_response>")

# Each word becomes a token by way of its prefixes, which become tokens as well.
_WORDS = (
    " the and a of to in is it that was for on with as at be this have from or one had by word but not what all"
    " were we when your can said there use an each which she do how their if will up other about out many then"
    " them these so some her would make like him into time has look two more write go see number no way could"
    " people my than first water been call who oil its now find long down day did get come made may part"
)

CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}
{%- endif %}
{{- '# Tools\\n\\nYou may call functions. Their signatures:\\n<tools>' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '\\n</tools>\\n\\nWrite a call as {"name": <name>, "arguments": <object>} within tool_call tags.<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}
{{- '\\n' + message.content }}
{%- endif %}
{%- for tool_call in message.tool_calls or [] %}
{{- '\\n<tool_call>{"name": "' + tool_call.function.name + '", "arguments": ' + (tool_call.function.arguments | tojson) + '}</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Hidden units with a job; blocks write to none of them but where _wire_tool_calls says so.
_BIAS_UNIT = 0  # the constant behind every token's bias
_MARK_UNIT = 1  # set on the two tokens that decide whether a tool is to be called
_CALL_UNIT = 2  # positive once a tool list was seen and no call was begun yet
_DONE_UNIT = 3  # set on the token that ends a call
_RESERVED = 4
_CONSTANT = 2.0
_SPREAD = 2.0  # standard deviation of the logits before their bias
_NEVER = -40.0
_BIASES = {
    '"': 2.5,  # else a string that a grammar leaves unbounded hardly ever closes
    TURN_END: _NEVER / 2,
    _TOOL_CALL_END: _NEVER / 2,
    ",": _NEVER * 3 / 4,
    "<": _NEVER,
}


@frozen
class _Size:
    layers: int
    width: int
    heads: int
    head_dim: int
    feed_forward: int


_QUICK = _Size(layers=2, width=64, heads=2, head_dim=32, feed_forward=96)
# Many narrow layers: the time goes into the barriers between the thousands of operations per token, so that a slow
# model is a small file all the same. Its KV cache takes 16 KiB per token of context.
_SLOW = _Size(layers=512, width=16, heads=1, head_dim=8, feed_forward=16)


def build_tiny_model(
    path: Path,
    *,
    seed: int = 0,
    name: str = "tiny",
    context_tokens: int = 32768,
    embedding: bool = False,
    rerank: bool = False,
    slow: bool = False,
) -> Path:
    """Write a tiny model.

    Start engines on it with ``--threads 1``: a busy second core costs them far more than it gives.

    Args:
        path: The file to write, overwritten if it exists; its folder is created.
        seed: Decides the weights; models of different seeds give different answers.
        name: ``general.name`` of the model.
        context_tokens: The context the model claims to be trained with, in tokens.
        embedding: Declare mean pooling, for ``--embeddings``.
        rerank: Add a head that scores, for ``--rerank``; the architecture is then Qwen3, as llama has no such head.
        slow: Some 200 tokens per second instead of thousands, and half a second to load.

    Returns:
        ``path``.
    """
    size = _SLOW if slow else _QUICK
    tokens, merges = _vocabulary()
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "qwen3" if rerank else "llama")
    writer.add_name(name)
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(size.width)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.feed_forward)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.heads)
    writer.add_key_length(size.head_dim)
    writer.add_value_length(size.head_dim)
    writer.add_rope_dimension_count(size.head_dim)
    writer.add_rope_freq_base(1e6)  # slow enough that the tool circuit reaches across the whole context
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    if embedding:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    tensors = _weights(size, tokens, seed)
    if rerank:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        tensors |= _rank_weights(size, seed)
    _add_tokenizer(writer, tokens, merges)
    for tensor_name, data in tensors.items():
        writer.add_tensor(tensor_name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = dict.fromkeys(_CONTROL_TOKENS, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(_TAG_TOKENS, gguf.TokenType.USER_DEFINED)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(END_OF_TEXT))
    writer.add_pad_token_id(tokens.index(END_OF_TEXT))
    writer.add_eos_token_id(tokens.index(TURN_END))
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where it prints, else a letter from U+0100 on."""
    letters = {byte: chr(byte) for byte in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))}
    for byte in range(0x100):
        letters.setdefault(byte, chr(0x100 + sum(1 for letter in letters.values() if ord(letter) >= 0x100)))
    return letters


def _vocabulary() -> tuple[list[str], list[str]]:
    """The tokens (bytes, word prefixes, control tokens) and the byte-pair merges that build them, in rank order."""
    letters = _byte_letters()
    tokens = [letters[byte] for byte in range(0x100)]
    merges: list[str] = []
    known = set(tokens)
    for word in _WORDS.split():
        spelled = [letters[byte] for byte in f" {word}".encode()]
        for end in range(1, len(spelled)):
            head, tail = "".join(spelled[:end]), spelled[end]
            if head + tail not in known:
                known.add(head + tail)
                tokens.append(head + tail)
                merges.append(f"{head} {tail}")
    return [*tokens, *_TAG_TOKENS, *_CONTROL_TOKENS], merges


def _token_bias(token: str, letters: dict[str, int]) -> float:
    """The logit offset of a token: words likely, single letters less so, noise and control tokens never.

    Among the unlikely, which only a grammar brings up, the one that ends a structure goes before the one that repeats.
    """
    if token in _BIASES:
        return _BIASES[token]
    if token in _CONTROL_TOKENS or token in _TAG_TOKENS:
        return _NEVER
    if len(token) > 1:
        return 2.0
    return 0.0 if 0x20 <= letters[token] < 0x7F else _NEVER


def _weights(size: _Size, tokens: list[str], seed: int) -> dict[str, _Array]:
    rng = np.random.default_rng(seed)
    width, inner, ff = size.width, size.heads * size.head_dim, size.feed_forward
    # Residual branches shrink with depth so that the constant keeps its share of the norm.
    branch = 1.0 / np.sqrt(2 * size.layers)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> _Matrix:
        return rng.normal(0.0, gain / np.sqrt(columns), (rows, columns)).astype(np.float32)

    def reserved(data: _Matrix) -> _Matrix:
        data[:_RESERVED] = 0.0
        return data

    embedding = matrix(len(tokens), width, gain=float(np.sqrt(width)))
    embedding[:, :_RESERVED] = (_CONSTANT, 0.0, 0.0, 0.0)
    head = matrix(len(tokens), width, gain=_SPREAD)
    letters = {letter: byte for byte, letter in _byte_letters().items()}
    head[:, _BIAS_UNIT] = [_token_bias(token, letters) / _CONSTANT for token in tokens]
    head[:, _BIAS_UNIT + 1 : _RESERVED] = 0.0
    tensors = {"token_embd.weight": embedding, "output.weight": head}
    for layer in range(size.layers):
        prefix = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v"):
            tensors[f"{prefix}.{part}.weight"] = matrix(inner, width)
        tensors[f"{prefix}.attn_output.weight"] = reserved(matrix(width, inner, branch))
        tensors[f"{prefix}.ffn_gate.weight"] = matrix(ff, width)
        tensors[f"{prefix}.ffn_up.weight"] = matrix(ff, width)
        tensors[f"{prefix}.ffn_down.weight"] = reserved(matrix(width, ff, branch))
    _wire_tool_calls(tensors, size, tokens)
    stored: dict[str, _Array] = {key: data.astype(np.float16) for key, data in tensors.items()}
    norms = [f"blk.{layer}.{part}_norm.weight" for layer in range(size.layers) for part in ("attn", "ffn")]
    stored.update({key: np.ones(width, dtype=np.float32) for key in (*norms, "output_norm.weight")})
    return stored


def _rank_weights(size: _Size, seed: int) -> dict[str, _Array]:
    """What Qwen3 has beyond llama: a norm on queries and keys, and the head (the score is the softmax's "yes")."""
    head = np.random.default_rng(seed).normal(0.0, 1.0, (2, size.width)).astype(np.float32)
    norms = [f"blk.{layer}.attn_{part}_norm.weight" for layer in range(size.layers) for part in "qk"]
    tensors: dict[str, _Array] = {key: np.ones(size.head_dim, dtype=np.float32) for key in norms}
    tensors["cls.output.weight"] = head
    return tensors


def _wire_tool_calls(tensors: dict[str, _Matrix], size: _Size, tokens: list[str]) -> None:
    """Make the model call a tool once, then end its turn, when the prompt lists tools.

    llama.cpp's tool grammar lets any text precede and follow a call, so pure noise never calls. Head 0 of block 0
    therefore looks for two tokens from wherever it stands: the end of a tool list counts for a call, the beginning of
    a call against.
    """
    slowest = size.head_dim - 2  # RoPE hardly turns this pair of the head's units
    embedding, output = tensors["token_embd.weight"], tensors["output.weight"]
    # One embedding but for the vote, so that both are found equally well and the votes cancel out.
    embedding[tokens.index(_TOOL_CALL)] = embedding[tokens.index(_TOOL_LIST_END)]
    for token, vote in ((_TOOL_LIST_END, 1.0), (_TOOL_CALL, -1.0)):
        embedding[tokens.index(token), _MARK_UNIT : _CALL_UNIT + 1] = (2.0, vote)
    query, key, value = (tensors[f"blk.0.attn_{part}.weight"] for part in "qkv")
    for weights in (query, key, value):
        weights[: size.head_dim] = 0.0
    query[slowest, _BIAS_UNIT] = key[slowest, _MARK_UNIT] = 8.0  # drowns out any number of unmarked tokens
    value[0, _CALL_UNIT] = 2.0
    tensors["blk.0.attn_output.weight"][_CALL_UNIT, 0] = 2.0
    output[tokens.index(_TOOL_CALL), _CALL_UNIT] = -_NEVER
    embedding[tokens.index(_TOOL_CALL_END), _DONE_UNIT] = 2.0
    output[tokens.index(TURN_END), _DONE_UNIT] = -_NEVER
