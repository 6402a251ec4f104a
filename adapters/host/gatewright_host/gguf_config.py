"""A configuration for one GGUF file, without a configuration file, run by the embedded engine."""

import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Final

from attrs import frozen

from gatewright.config import Config, EngineKind, Margin, ModelConfig, ServerConfig
from gatewright.configuration.args import PORT_PLACEHOLDER
from gatewright.engines.spec import EngineSpec, EngineTimeouts, ProcessSpec
from gatewright.errors import ConfigError
from gatewright_host import bundled
from gatewright_host.gguf_header import BadGguf, Scalar, read_header

DEMO_MODEL: Final = "gatewright-demo"

SLOTS: Final = 4
"""Requests at a time. With one KV cache for all of them (`-kvu`) each sees the whole context, so that a variant keeps
what it promises to a single request, and slots that are idle cost nothing; long requests at the same time share it."""

_LADDER: Final = (4096, 16_384)
_LARGEST_CONTEXT: Final = 65_536
"""A longer trained context is cut to this: its KV cache alone would exceed the memory of most machines."""

_PADDING: Final = 256
"""llama.cpp rounds contexts up to a multiple of this."""

_UNSTATED_CONTEXT: Final = 4096
_DEMO_LARGEST_CONTEXT: Final = 2048
_LONGEST_NAME: Final = 80
_EMBEDDING_ARCHITECTURES: Final = ("gemma-embedding", "t5encoder")


@frozen(kw_only=True)
class _Model:
    """What matters of a GGUF file."""

    path: Path
    name: str
    trained_context_tokens: int
    is_embedding: bool


def config_for_gguf(path: Path, *, server: ServerConfig | None = None, alias: str | None = None) -> Config:
    """A configuration with this one model, in two or three context sizes.

    Args:
        path: The GGUF file; of a model in parts, the first.
        server: Server settings; None for the defaults.
        alias: Another name for the model, besides the one that it states.

    Raises:
        ConfigError: The file is missing, damaged or no model.
    """
    model = _read_model(path)
    most = min(model.trained_context_tokens, _LARGEST_CONTEXT)
    # A step of less than double is not worth a swap.
    ladder = [] if model.is_embedding else [step for step in _LADDER if 2 * step <= most]
    return _config(model, (*ladder, most), server, () if alias in (None, model.name) else (str(alias),))


def demo_config(*, server: ServerConfig | None = None) -> Config:
    """The configuration for the tiny model that comes with Gatewright, named "gatewright-demo".

    Raises:
        ConfigError: The model is missing from this installation.
    """
    stated = _read_model(bundled.demo_model())
    model = _Model(
        path=stated.path,
        name=DEMO_MODEL,
        trained_context_tokens=stated.trained_context_tokens,
        is_embedding=False,
    )
    most = min(model.trained_context_tokens, _DEMO_LARGEST_CONTEXT)
    # Two sizes, so that a longer prompt shows the change of variant.
    return _config(model, (_padded(most // 2), most) if most > _PADDING else (most,), server, ())


def _config(
    model: _Model, contexts: tuple[int, ...], server: ServerConfig | None, aliases: tuple[str, ...]
) -> Config:
    server = server or ServerConfig()
    smallest = contexts[0]
    default = ModelConfig(name=model.name, variants=())
    return Config(
        server=server,
        models=(
            ModelConfig(
                name=model.name,
                aliases=aliases,
                engine=EngineKind.LLAMACPP,
                variants=tuple(_engine(model, context, server.timeouts) for context in contexts),
                # In small contexts the usual reserves would leave no room for a prompt.
                answer_tokens=0 if model.is_embedding else min(default.answer_tokens, smallest // 4),
                margin=Margin(tokens=min(default.margin.tokens, smallest // 8)),
            ),
        ),
    )


def _engine(model: _Model, context: int, timeouts: EngineTimeouts) -> EngineSpec:
    binary, *start = _embedded_engine()
    args = [*start, "-m", str(model.path), "-c", str(context), "-np", str(SLOTS), "-kvu"]
    args += ["--host", "127.0.0.1", "--port", PORT_PLACEHOLDER]
    args += ["--jinja", "--metrics", "--no-webui", "--alias", model.name]
    # Otherwise any web page could use the engine behind the gateway's back.
    args += ["--cors-origins", "http://127.0.0.1"]
    if model.is_embedding:
        # An encoder needs the whole text in one batch.
        args += ["--embeddings", "-b", str(context), "-ub", str(context)]
    return EngineSpec(
        model=model.name,
        context_tokens=context,
        connect=f"http://127.0.0.1:{PORT_PLACEHOLDER}",
        process=ProcessSpec(binary=binary, args=tuple(args)),
        parallel=SLOTS,
        timeouts=timeouts,
    )


def _embedded_engine() -> list[str]:
    """The command of the embedded engine of this installation."""
    script = bundled.engine_script()
    if os.access(script, os.X_OK):
        return [str(script)]
    return [sys.executable, "-m", "gatewright_host.embedded.main"]


def _read_model(path: Path) -> _Model:
    try:
        stated = read_header(path)
    except BadGguf as error:
        raise ConfigError((f"{path}: {error}",)) from None
    except OSError as error:
        raise ConfigError((f"{path}: {(error.strerror or str(error)).lower()}",)) from None
    trouble = _not_a_model(stated)
    if trouble is not None:
        raise ConfigError((f"{path}: {trouble}",))
    architecture = str(stated.get("general.architecture", ""))
    trained = stated.get(f"{architecture}.context_length")
    return _Model(
        path=path.absolute(),
        name=_friendly(str(stated.get("general.name", ""))) or _friendly(path.stem) or "model",
        trained_context_tokens=_padded(
            trained if isinstance(trained, int) and trained > 0 else _UNSTATED_CONTEXT
        ),
        is_embedding=_is_embedding(architecture, stated),
    )


def _not_a_model(stated: dict[str, Scalar]) -> str | None:
    kind = stated.get("general.type", "model")
    if kind != "model":
        return f"is of type {kind!r}, not a model"
    if stated.get("general.architecture") == "clip":
        return "is a projector for images or sound, not a model"
    if stated.get("split.no", 0) != 0:
        return "is not the first part of its model; give the file named ...-00001-of-..."
    return None


def _is_embedding(architecture: str, stated: dict[str, Scalar]) -> bool:
    pooling = stated.get(f"{architecture}.pooling_type", 0)  # 0: none
    return bool(pooling) or "bert" in architecture or architecture in _EMBEDDING_ARCHITECTURES


def _padded(tokens: int) -> int:
    """The next smaller multiple of 256, and no less than one of them."""
    return max(tokens // _PADDING, 1) * _PADDING


def _friendly(name: str) -> str:
    """The name in letters, digits, dots and dashes, which neither a URL nor a shell has to escape."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9._-]+", "-", plain.lower()).strip("-._")[:_LONGEST_NAME]
