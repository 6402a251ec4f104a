"""Change a request's body where it must be changed, and leave every other byte of meaning in it alone."""

import msgspec

from gatewright.api.multipart import find_span


def replace_model(body: bytes, model: str, content_type: str | None = None) -> bytes:
    """The body with another model's name, for a provider that calls the model differently.

    Values are copied, not decoded: neither long prompts nor the digits of numbers are touched.

    Args:
        body: JSON object, or form if `content_type` says so; anything else is returned as it is.
        model: The provider's name.
        content_type: Of the body.
    """
    if content_type is not None and content_type.strip().lower().startswith("multipart/form-data"):
        span = find_span(body, content_type, "model")
        return body if span is None else b"".join((body[: span[0]], model.encode(), body[span[1] :]))
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    members["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(members)


def ask_for_usage(body: bytes) -> bytes:
    """The body of a streaming request that has the stream end with the tokens that it took.

    Args:
        body: JSON object; anything else is returned as it is.
    """
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        given = members.get("stream_options")
        options = {} if given is None else msgspec.json.decode(given, type=dict[str, msgspec.Raw] | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    options = {**(options or {}), "include_usage": msgspec.Raw(b"true")}
    members["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(members)
