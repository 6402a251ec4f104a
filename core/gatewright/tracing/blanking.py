"""Messages without their secrets: what is recorded must be fit to be shown to others."""

import hashlib
import re
from typing import Final

import msgspec

from gatewright import codec

_SECRET_FLAGS: Final = frozenset({"--api-key", "--hf-token", "-hft"})
_DIGEST_LENGTH: Final = 12
_DIGEST: Final = re.compile(rf"sha256:[0-9a-f]{{{_DIGEST_LENGTH}}}")


def blanked(message: object) -> object:
    """A message of `codec.MESSAGES` as plain JSON values, without secrets.

    API keys, values of environment variables and of flags that take a secret, and queries of paths become digests:
    equal ones stay equal and different ones different, so that a replay decides as the original did.
    """
    return _blank(msgspec.json.decode(codec.encode(message)))


def _blank(value: object) -> object:
    if isinstance(value, list):
        return [_blank(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _blank_field(name, item) for name, item in value.items()}


def _blank_field(name: str, value: object) -> object:
    match name, value:
        case "api_keys", list(keys):
            return [_digest(key) for key in keys]
        case "env", list(pairs):
            return [[variable, _digest(content)] for variable, content in pairs]
        case "args", list(args):
            return [_blank_argument(previous, arg) for previous, arg in zip(["", *args], args, strict=False)]
        case "path", str(path):
            return _blank_query(path)
        case _:
            return _blank(value)


def _blank_argument(previous: str, arg: str) -> str:
    if previous in _SECRET_FLAGS:
        return _digest(arg)
    flag, equals, value = arg.partition("=")
    return f"{flag}={_digest(value)}" if equals and flag in _SECRET_FLAGS else arg


def _blank_query(path: str) -> str:
    target, mark, query = path.partition("?")
    return f"{target}?{_digest(query)}" if query else f"{target}{mark}"


def _digest(secret: str) -> str:
    if _DIGEST.fullmatch(secret):
        return secret  # of a replay: blanked when it was recorded
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()[:_DIGEST_LENGTH]
