"""JSON of upstreams that may be odd: what some reader takes for JSON is JSON.

msgspec is strict and fast. Servers written in Python send `NaN` and `Infinity` among probabilities and escaped halves of
surrogate pairs where a token ends in the middle of a character, and Python and JavaScript clients read one or both of
them: these get a second, patient look, and only they pay for it.
"""

import json
from typing import Any, Final

import msgspec

_RAW: Final = msgspec.json.Decoder(msgspec.Raw)
_BLANK: Final = b" \t\r\n"


def is_json(document: bytes) -> bool:
    """Whether this is one JSON value."""
    try:
        _RAW.decode(document)
    except (msgspec.DecodeError, RecursionError):
        return _read_patiently(document) is not None
    return True


def is_object(document: bytes) -> bool:
    """Whether this is one JSON object."""
    return document.lstrip(_BLANK).startswith(b"{") and is_json(document)


def read_object(document: bytes) -> dict[str, Any] | None:
    """A JSON object decoded; None if it is none."""
    try:
        found = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _read_patiently(document)
    return found if isinstance(found, dict) else None


def _read_patiently(document: bytes) -> Any:
    """The value as Python's own module reads it; None if not even that does, or if it is null."""
    try:
        return json.loads(document.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
