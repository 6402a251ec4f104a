"""Bodies of requests, and what transforms make of them."""

import json
from typing import Any

import msgspec

from gatewright.api.facts import ApiFormat
from gatewright.api.transforms import Transform, transform_body

USER = {"role": "user", "content": "hello"}


def changed(
    transform: Transform | list[Transform],
    format: ApiFormat = ApiFormat.CHAT,  # noqa: A002 - the word that the function uses
    provider: str = "",
    **body: Any,
) -> dict[str, Any]:
    transforms = transform if isinstance(transform, list) else [transform]
    if format is ApiFormat.CHAT:
        body.setdefault("messages", [USER])
    raw = transform_body(msgspec.json.encode(body), format, transforms, provider=provider)
    result: dict[str, Any] = json.loads(raw)
    return result


def parameters(transform: Transform | list[Transform], *args: Any, **body: Any) -> dict[str, Any]:
    result = changed(transform, *args, **body)
    result.pop("messages", None)
    return result


def messages(
    transform: Transform | list[Transform], *given: dict[str, Any], **body: Any
) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = changed(transform, messages=list(given) or [USER], **body)["messages"]
    return result
