"""What is allowed in a configuration and yet hardly meant."""

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from typing import Final
from urllib.parse import urlsplit

from gatewright.config import Config, ModelConfig, TcpListener
from gatewright.configuration.args import PORT_PLACEHOLDER, flag_value, port, slot_context_tokens, slots
from gatewright.configuration.calls import default_timeouts
from gatewright.configuration.choice_suspicions import choice_warnings
from gatewright.configuration.listen import is_loopback
from gatewright.engines.spec import EngineSpec, ProcessSpec

_CONTEXT_PADDING: Final = 256
"""llama.cpp rounds the context up to a multiple of this."""

_KEY_FLAGS: Final = frozenset(("--api-key", "--api-key-file"))

_ALIKE: Final = 0.8
"""From here on names are taken for the same one; `root` and `routes`, which are 0.6, are not."""

_LONG_PROMPT_S: Final = 30.0
"""An engine may well read a prompt for this long, and is silent meanwhile."""


def config_warnings(config: Config) -> tuple[str, ...]:
    """Suspicions about a valid configuration, one line each, in the models' order."""
    found = [*_server_warnings(config), *_port_warnings(config)]
    for model in config.models:
        found += [*_model_warnings(model), *_call_warnings(model)]
        for spec in model.variants:
            found += _remote_warnings(spec) if spec.process is None else _process_warnings(spec, spec.process)
    found += choice_warnings(config)
    return tuple(f"{label}: {text}" for label, text in found)


def misspelt_globals(
    others: Iterable[str], present: Collection[str], known: Collection[str]
) -> tuple[str, ...]:
    """Suspicions about a file's global tables that are not read: helpers mostly, which are nobody's business.

    Args:
        others: Their names.
        present: Names of those that are read and are there: what stands there cannot be what was meant.
        known: Names of all that are read.
    """
    missing = [name for name in known if name not in present]
    found = []
    for name in others:
        near = get_close_matches(name.lower(), missing, n=1, cutoff=_ALIKE)
        if near:
            found.append(f'{name}: nothing reads this global table; did you mean "{near[0]}"?')
    return tuple(found)


_Suspicions = Iterator[tuple[str, str]]
"""Label of what it is about, and the text."""


def _server_warnings(config: Config) -> _Suspicions:
    if config.server.clear_dumps_on_start and config.server.dumps_dir is None:
        yield "server.clear_dumps_on_start", "has no effect without dumps_dir"


def _model_warnings(model: ModelConfig) -> _Suspicions:
    if not model.margin.tokens and not model.margin.ratio:
        yield model.name, "margin 0: a prompt that is estimated too small goes to a variant it does not fit"
    reserve = model.answer_tokens + model.margin.tokens
    largest = model.largest_context_tokens
    if reserve >= largest:
        text = f"answer_tokens and margin reserve {reserve} tokens, and the largest context has {largest}"
        yield model.name, f"{text}: requests without max_tokens all go to the largest variant"


def _call_warnings(model: ModelConfig) -> _Suspicions:
    if model.fallbacks and model.max_attempts == 1:
        text = "max_attempts 1: fallbacks are asked where nobody could be called, but not after a call that failed"
        yield model.name, text
    limits, usual = model.timeouts, default_timeouts(model)
    for name, limit_s, usual_s in (
        ("head", limits.head_s, usual.head_s),
        ("first_token", limits.first_token_s, usual.first_token_s),
        ("between_chunks", limits.between_chunks_s, usual.between_chunks_s),
    ):
        if limit_s is None or limit_s == usual_s:
            continue
        if limits.total_s is not None and limit_s > limits.total_s:
            text = f"timeouts.{name} is {limit_s:g} s, but timeouts.total ends every request after {limits.total_s:g} s"
            yield model.name, text
        elif not model.is_remote and limit_s < _LONG_PROMPT_S:
            text = f"timeouts.{name} is {limit_s:g} s: it may cut an engine that reads a long prompt"
            yield model.name, text


def _process_warnings(spec: EngineSpec, process: ProcessSpec) -> _Suspicions:
    per_slot = slot_context_tokens(process.args)
    if per_slot is not None and spec.context_tokens > -(-per_slot // _CONTEXT_PADDING) * _CONTEXT_PADDING:
        text = f"context is {spec.context_tokens}, but args give one slot {per_slot} tokens"
        yield spec.label, f"{text} (-c divided by -np, unless -kvu)"
    in_args = slots(process.args)
    if spec.parallel is not None and in_args is not None and spec.parallel > in_args:
        yield spec.label, f"parallel is {spec.parallel}, but args give the engine {in_args} slots (-np)"
    host = flag_value(process.args, "--host")
    if host is not None and not host.endswith(".sock") and not is_loopback(host):
        yield (
            spec.label,
            f"--host {host} lets other machines use the engine without an API key of this gateway",
        )
    if any(arg.partition("=")[0] in _KEY_FLAGS for arg in process.args):
        yield spec.label, "args demand an API key of the engine, which is sent none: leave --api-key out"
    in_url = urlsplit(spec.connect).port if PORT_PLACEHOLDER not in spec.connect else None
    fixed = port(process.args)
    if fixed is not None and in_url is not None and fixed != in_url:
        yield spec.label, f"args say --port {fixed}, but connect says {in_url}"


def _remote_warnings(spec: EngineSpec) -> _Suspicions:
    url = urlsplit(spec.connect)
    if spec.api_key_env is not None and url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield spec.label, f"the key in {spec.api_key_env} is sent to {url.hostname} without encryption (http)"


def _port_warnings(config: Config) -> _Suspicions:
    """Fixed ports that two processes would want at the same time."""
    own = {listener.port for listener in config.server.listen if isinstance(listener, TcpListener)}
    users: dict[tuple[str, int], EngineSpec] = {}
    warned: set[tuple[str, str]] = set()
    for spec in (spec for model in config.models for spec in model.variants if not spec.is_remote):
        url = urlsplit(spec.connect) if PORT_PLACEHOLDER not in spec.connect else None
        if url is None or url.port is None:
            continue
        if url.port in own and is_loopback(url.hostname or "") and (spec.place, "") not in warned:
            warned.add((spec.place, ""))
            yield spec.label, f"port {url.port} is the one this server listens on"
        other = users.setdefault((url.hostname or "", url.port), spec)
        if other.place != spec.place and (spec.place, other.place) not in warned:
            warned.add((spec.place, other.place))
            yield (
                spec.label,
                f"port {url.port} is also used by {other.label}, and both may run at the same time",
            )
