"""From settings to xllamacpp's ``CommonParams``.

xllamacpp ships no type information; its objects are ``Any`` here, and ``tests/host/test_embedded_engine.py`` holds
every target of the table against the real attributes.
"""

from typing import Any

from gatewright_host.embedded.flags import ACTION, LOG_DISABLE, Settings
from gatewright_host.embedded.kinds import SAMPLING_CONFIG, Grammar, Lora, Member


def build(engine: Any, settings: Settings) -> Any:
    """Make the parameters of a server.

    Args:
        engine: The module ``xllamacpp``.
        settings: What ``flags.parse`` returned, the defaults included.

    Raises:
        ValueError: xllamacpp does not accept a value; the text names the attribute.
    """
    params = engine.CommonParams()
    for target, value in settings.items():
        if target in (ACTION, LOG_DISABLE):
            continue
        *path, attribute = target.split(".")
        holder = params
        for name in path:
            holder = getattr(holder, name)
        try:
            setattr(holder, attribute, _native(engine, target, value, getattr(holder, attribute)))
        except (
            Exception
        ) as error:  # whatever kind a binding without types raises, the user gave a wrong value
            raise ValueError(f"{target} = {value!r} is not allowed: {error}") from error
    return params


def _native(engine: Any, target: str, value: object, default: Any) -> Any:
    """The value in xllamacpp's own types."""
    if target == SAMPLING_CONFIG and isinstance(value, frozenset):
        bits = 0
        for name in value:
            bits |= int(engine.common_params_sampling_config[name])
        return bits
    if target == "fit_params_target" and isinstance(value, list):
        # One value counts for every device.
        return value * len(default) if len(value) == 1 else value + default[len(value) :]
    if target == "tensor_split" and isinstance(value, list):
        return value + [0.0] * (len(default) - len(value))
    if isinstance(value, list):
        return [_converted(engine, item) for item in value]
    return _converted(engine, value)


def _converted(engine: Any, value: object) -> Any:
    match value:
        case Member(enum, name):
            return getattr(engine, enum)[name]
        case Lora(path, scale):
            return engine.CommonAdapterLoraInfo(path, scale)
        case Grammar(text, is_schema):
            kinds = engine.common_grammar_type
            if is_schema:
                return engine.CommonGrammar(
                    kinds.COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT, engine.json_schema_to_grammar(text)
                )
            return engine.CommonGrammar(kinds.COMMON_GRAMMAR_TYPE_USER, text)
        case _:
            return value
