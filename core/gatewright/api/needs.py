"""What a request makes necessary of the model that answers it: features of its API, and what it has to take in."""

from typing import Any, Final

import msgspec

from gatewright.api.bodies import Body, is_given
from gatewright.api.facts import ApiFormat
from gatewright.api.prompt import PromptMeter
from gatewright.selection.profiles import Feature, Modality


class _Format(msgspec.Struct):
    type: Any = None


class _Formatted(msgspec.Struct):
    format: _Format | None = None


_FORMAT: Final = msgspec.json.Decoder(_Format)
_FORMATTED: Final = msgspec.json.Decoder(_Formatted)
_FORMAT_FEATURES: Final = {"json_object": Feature.JSON_MODE, "json_schema": Feature.JSON_SCHEMA}
_LONGEST_EMPTY: Final = len("null")
_NOTHING: Final[frozenset[str]] = frozenset()


def needed_features(format: ApiFormat, body: Body) -> frozenset[str]:  # noqa: A002 - the word that facts use
    """Values of `Feature` without which the request would be refused, or answered in another form than it asks for.

    That a stream is wanted is left out: whoever lists what an API can do does not think of what all of them can.
    """
    found = []
    if _has_items(body.tools) or _has_items(body.functions):
        found.append(Feature.TOOLS)
    if body.logprobs and format is not ApiFormat.NATIVE:
        found.append(Feature.LOGPROBS)
    if body.reasoning_effort is not None:
        found.append(Feature.REASONING_EFFORT)
    wanted = _wanted_format(format, body)
    if wanted is not None:
        found.append(wanted)
    return frozenset(found) if found else _NOTHING


def _has_items(member: msgspec.Raw) -> bool:
    return len(memoryview(member)) > _LONGEST_EMPTY


def _wanted_format(api_format: ApiFormat, body: Body) -> Feature | None:
    match api_format:
        case ApiFormat.RESPONSES:
            wish = _inner(body.text)
        case ApiFormat.MESSAGES:
            wish = _decoded(body.output_format) or _inner(body.output_config)
        case _:
            wish = _decoded(body.response_format)
    kind = None if wish is None else wish.type
    return _FORMAT_FEATURES.get(kind) if isinstance(kind, str) else None


def _decoded(member: msgspec.Raw) -> _Format | None:
    if not is_given(member):
        return None
    try:
        return _FORMAT.decode(member)
    except msgspec.DecodeError:
        return None  # for the engine to refuse


def _inner(member: msgspec.Raw) -> _Format | None:
    if not is_given(member):
        return None
    try:
        return _FORMATTED.decode(member).format
    except msgspec.DecodeError:
        return None


def needed_modalities(meter: PromptMeter) -> frozenset[str]:
    """Values of `Modality` in the prompt besides text. Files are left out: what is in them shows nobody here."""
    if meter.kinds is None:
        return _NOTHING
    found = [
        modality
        for modality in (Modality.IMAGE, Modality.AUDIO)
        if any(modality.value in kind for kind in meter.kinds)
    ]
    return frozenset(found)
