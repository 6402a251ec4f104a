"""Messages without their secrets: what is recorded must be fit to be shown to others."""

from typing import Final

import msgspec

from gatewright import codec
from gatewright.digests import digest

_SECRET_FLAGS: Final = frozenset({"--api-key", "--hf-token", "-hft"})


def blanked(message: object) -> object:
    """A message of `codec.MESSAGES` as plain JSON values, without secrets.

    API keys, names of users, what they say of answers, values of environment variables and of flags that take a
    secret, and queries of paths become digests: equal ones stay equal and different ones different, so that a replay
    decides as the original did.
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
            return [digest(key) for key in keys]
        case "env", list(pairs):
            return [[variable, digest(content)] for variable, content in pairs]
        case "args", list(args):
            return [_blank_argument(previous, arg) for previous, arg in zip(["", *args], args, strict=False)]
        case "url", str(url):  # of the store: it may hold a password
            return digest(url)
        case (("user" | "session" | "comment"), str(text)):
            return digest(text)
        case "path", str(path):
            return _blank_query(path)
        case _:
            return _blank(value)


def _blank_argument(previous: str, arg: str) -> str:
    if previous in _SECRET_FLAGS:
        return digest(arg)
    flag, equals, value = arg.partition("=")
    return f"{flag}={digest(value)}" if equals and flag in _SECRET_FLAGS else arg


def _blank_query(path: str) -> str:
    target, mark, query = path.partition("?")
    return f"{target}?{digest(query)}" if query else f"{target}{mark}"
