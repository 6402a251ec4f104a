"""Ask for the rest of an answer of which the client has a part: the body of the request that does so."""

from typing import Any, Final

import msgspec

from gatewright.api.facts import ApiFormat, Continuation

_LIMITS: Final = ("max_tokens", "max_completion_tokens", "n_predict")
_TRUE: Final = msgspec.Raw(b"true")
_FALSE: Final = msgspec.Raw(b"false")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def continue_body(
    body: bytes,
    format: ApiFormat,  # noqa: A002 - the word that facts use
    text: str,
    tokens: int,
    continuation: Continuation,
) -> bytes:
    """The client's request with the beginning of its answer in it.

    Values are copied, not decoded, as far as they are not added to.

    Args:
        body: The request, one whose facts say that it is continuable.
        format: CHAT or COMPLETION.
        text: What the client has of the answer.
        tokens: So many fewer are asked for, where the request names a limit.
        continuation: How the upstream is to be asked.

    Returns:
        The body as it was with REPEAT.

    Raises:
        ValueError: The request cannot be continued in this way.
    """
    if continuation is Continuation.REPEAT:
        return body
    try:
        members = _OBJECT.decode(body)
        if format is ApiFormat.COMPLETION:
            members["prompt"] = _extended_prompt(members["prompt"], text)
        else:
            members["messages"] = _extended_messages(members["messages"], text, continuation)
            members.update(_switches(members, continuation))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise ValueError(f"this request cannot be continued: {error}") from error
    for name in _LIMITS:
        if name in members:
            members[name] = _reduced(members[name], tokens)
    return msgspec.json.encode(members)


def _extended_messages(raw: msgspec.Raw, text: str, continuation: Continuation) -> msgspec.Raw:
    messages = _LIST.decode(raw)
    message = _OBJECT.decode(messages[-1]) if messages else {}
    if (
        _value(message.get("role")) == "assistant"
        and (content := _extended_content(message, text)) is not None
    ):
        message["content"] = content  # the client had begun the answer itself
        messages.pop()
    else:
        message = {"role": _raw("assistant"), "content": _raw(text)}
    if continuation is Continuation.PREFIX:
        message["prefix"] = _TRUE
    messages.append(_raw(message))
    return _raw(messages)


def _extended_content(message: dict[str, msgspec.Raw], text: str) -> msgspec.Raw | None:
    """The content of a message and the text behind it; None if there is none that a text could follow."""
    content = _value(message.get("content"))
    if isinstance(content, str):
        return _raw(content + text)
    if isinstance(content, list):
        return _raw([*_LIST.decode(message["content"]), _raw({"type": "text", "text": text})])
    return None


def _switches(members: dict[str, msgspec.Raw], continuation: Continuation) -> dict[str, msgspec.Raw]:
    match continuation:
        case Continuation.CONTINUE_FINAL_MESSAGE:
            return {"continue_final_message": _TRUE, "add_generation_prompt": _FALSE}
        case Continuation.LLAMACPP:
            given = members.get("chat_template_kwargs")
            kwargs = {} if given is None or _value(given) is None else _OBJECT.decode(given)
            return {"chat_template_kwargs": _raw({**kwargs, "enable_thinking": _FALSE})}
        case _:
            return {}


def _extended_prompt(raw: msgspec.Raw, text: str) -> msgspec.Raw:
    match _value(raw):
        case str() as prompt:
            return _raw(prompt + text)
        case [str() as prompt]:
            return _raw([prompt + text])
        case _:
            raise KeyError("prompt")


def _reduced(raw: msgspec.Raw, tokens: int) -> msgspec.Raw:
    """A limit of the answer less what was sent; what is no limit, such as 0 and -1, stays."""
    limit = _value(raw)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
        return raw
    return _raw(max(1, int(limit) - tokens))


def _value(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
