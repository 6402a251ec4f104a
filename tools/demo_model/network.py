"""The network: llama's architecture, small enough to read."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

EPS = 1e-5
GAINS = ("attn_norm", "ffn_norm")
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The dimensions, as llama.cpp names them."""

    vocab: int = 1024
    embedding: int = 160
    blocks: int = 4
    heads: int = 5
    feed_forward: int = 448
    rope_base: float = 10000.0

    @property
    def head(self) -> int:
        """The size of one head."""
        return self.embedding // self.heads


Weights = dict[str, jax.Array]
Batch = dict[str, np.ndarray]


def init(shape: Shape, intents: int, key: jax.Array) -> Weights:
    """Fresh weights. Matrices of all blocks are stacked; `intent` helps in training and is not exported."""
    d, f, n = shape.embedding, shape.feed_forward, shape.blocks
    sizes = {
        "token_embd": (shape.vocab, d),
        "intent": (d, intents),
        "attn_q": (n, d, d),
        "attn_k": (n, d, d),
        "attn_v": (n, d, d),
        "attn_output": (n, d, d),
        "ffn_gate": (n, d, f),
        "ffn_up": (n, d, f),
        "ffn_down": (n, f, d),
    }
    weights: Weights = {}
    for name, k in zip(sizes, jax.random.split(key, len(sizes)), strict=True):
        scale = 0.04 if name in {"token_embd", "intent"} else sizes[name][-2] ** -0.5
        scale *= (2 * n) ** -0.5 if name in {"attn_output", "ffn_down"} else 1.0
        weights[name] = jax.random.normal(k, sizes[name]) * scale
    return weights | {
        "attn_norm": jnp.ones((n, d)),
        "ffn_norm": jnp.ones((n, d)),
        "output_norm": jnp.ones(d),
    }


def count(weights: Weights) -> int:
    """The number of parameters that are exported."""
    return sum(int(np.prod(w.shape)) for name, w in weights.items() if name != "intent")


def _norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPS) * gain


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    # llama.cpp's "norm" layout for this architecture: neighbours form a pair.
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def hidden(weights: Weights, shape: Shape, batch: Batch, dropout: float, key: jax.Array) -> jax.Array:
    """The normalised last hidden states of rows that hold several documents each.

    A token may stand for a crowd: attention then counts it as often as `crowd` says. So a short row teaches
    the heads not to lose a question among thousands of pasted words.
    """
    tokens, places, documents = batch["tokens"], batch["places"], batch["documents"]
    rows, length = tokens.shape
    frequency = shape.rope_base ** (-jnp.arange(0, shape.head, 2) / shape.head)
    angle = places[..., None, None] * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    seen = jnp.tril(jnp.ones((length, length), bool)) & (documents[:, :, None] == documents[:, None, :])
    bias = jnp.where(seen, jnp.log(batch["crowd"])[:, None, :], -1e9)[:, None]
    keys = iter(jax.random.split(key, 2 * shape.blocks + 1))

    def drop(x: jax.Array) -> jax.Array:
        k = next(keys)
        if not dropout:
            return x
        return x * jax.random.bernoulli(k, 1 - dropout, x.shape) / (1 - dropout)

    x = drop(weights["token_embd"][tokens])
    for i in range(shape.blocks):
        w = {name: value[i] for name, value in weights.items() if name in GAINS + MATRICES}
        h = _norm(x, w["attn_norm"])
        q, k, v = (
            (h @ w[name]).reshape(rows, length, shape.heads, shape.head)
            for name in ("attn_q", "attn_k", "attn_v")
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        score = jnp.einsum("bqhd,bkhd->bhqk", q, k) * shape.head**-0.5 + bias
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(score, -1), v).reshape(rows, length, -1)
        x = x + drop(mixed @ w["attn_output"])
        h = _norm(x, w["ffn_norm"])
        x = x + drop((jax.nn.silu(h @ w["ffn_gate"]) * (h @ w["ffn_up"])) @ w["ffn_down"])
    return _norm(x, weights["output_norm"])


def logits(weights: Weights, shape: Shape, tokens: jax.Array) -> jax.Array:
    """The logits of whole, unpacked rows."""
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    zeros = jnp.zeros_like(tokens)
    batch = {"tokens": tokens, "places": places, "documents": zeros, "crowd": zeros + 1.0}
    h = hidden(weights, shape, batch, 0.0, jax.random.key(0))
    return h @ weights["token_embd"].T


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train."""

    rate: float = 3e-3
    decay: float = 0.1
    dropout: float = 0.1
    intent: float = 0.3
    warmup: int = 100
    average: float = 0.998


def loss(
    weights: Weights, shape: Shape, recipe: Recipe, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The training loss, and the cross entropy of the answers alone."""
    h = hidden(weights, shape, batch, recipe.dropout, key)
    log_p = jax.nn.log_softmax(h @ weights["token_embd"].T)
    surprise = -jnp.take_along_axis(log_p, batch["targets"][..., None], -1)[..., 0]
    total = (surprise * batch["weights"]).sum() / batch["weights"].sum()
    answer = batch["weights"] >= 1
    plain_loss = (surprise * answer).sum() / answer.sum()
    meant = -jnp.take_along_axis(
        jax.nn.log_softmax(h @ weights["intent"]), batch["intents"][..., None].clip(0), -1
    )[..., 0]
    here = batch["intents"] >= 0
    return total + recipe.intent * (meant * here).sum() / jnp.maximum(here.sum(), 1), plain_loss


State = tuple[Weights, Weights, Weights, Weights]


def start(weights: Weights) -> State:
    """Weights, two moments and the running average."""
    first, second = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
    return weights, first, second, jax.tree.map(jnp.copy, weights)


@functools.partial(jax.jit, static_argnames=("shape", "recipe"), donate_argnums=0)
def step(
    state: State,
    batch: Batch,
    at: jax.Array,
    steps: jax.Array,
    key: jax.Array,
    *,
    shape: Shape,
    recipe: Recipe,
) -> tuple[State, jax.Array]:
    """One step of AdamW: linear warm-up, cosine decay, gradients clipped to norm one."""
    weights, first, second, average = state
    (_, answer), grad = jax.value_and_grad(loss, has_aux=True)(weights, shape, recipe, batch, key)
    norm = jnp.sqrt(sum((g * g).sum() for g in grad.values()))
    grad = jax.tree.map(lambda g: g / jnp.maximum(norm, 1.0), grad)
    rate = recipe.rate * jnp.minimum(
        (at + 1) / recipe.warmup, 0.01 + 0.99 * (0.5 + 0.5 * jnp.cos(jnp.pi * at / steps))
    )
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grad)
    second = jax.tree.map(lambda v, g: 0.98 * v + 0.02 * g * g, second, grad)

    def update(w: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        move = (m / (1 - 0.9 ** (at + 1))) / (jnp.sqrt(v / (1 - 0.98 ** (at + 1))) + 1e-8)
        return w - rate * (move + (recipe.decay * w if w.ndim > 1 else 0.0))

    weights = jax.tree.map(update, weights, first, second)
    keep = jnp.minimum(recipe.average, (at + 1) / (at + 10))
    average = jax.tree.map(lambda a, w: keep * a + (1 - keep) * w, average, weights)
    return (weights, first, second, average), answer
