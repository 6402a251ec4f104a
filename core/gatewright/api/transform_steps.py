"""The steps of a transform, each on the members of one body, which stay undecoded as far as they are not changed."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

Members = dict[str, msgspec.Raw]

ANSWER_LIMITS: Final = frozenset(("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"))
"""Names of the answer's limit: one parameter, spelled as each API does."""

JSON_OBJECT_TEXT: Final = "Answer with one JSON object and nothing else: no explanation, no code fence."
JSON_SCHEMA_TEXT: Final = (
    "Answer with one JSON value and nothing else: no explanation, no code fence. "
    "It must be valid against this JSON Schema:\n"
)

_SPELLINGS: Final = {
    "chat": "max_tokens",
    "completion": "max_tokens",
    "messages": "max_tokens",
    "responses": "max_output_tokens",
    "native": "n_predict",
}
_CHAT_SPELLINGS: Final = frozenset(("max_tokens", "max_completion_tokens"))
_STOP_NAMES: Final = {
    "chat": "stop",
    "completion": "stop",
    "native": "stop",
    "messages": "stop_sequences",
}
_SYSTEM_ROLES: Final = frozenset(("system", "developer"))
_TEXT_TYPES: Final = {"chat": "text", "messages": "text", "responses": "input_text"}

_TEMPLATE_SERVERS: Final = frozenset(("llama.cpp", "llama.cpp.secondary", "vllm", "sglang"))
"""They hand `chat_template_kwargs` to the model's chat template, which is where thinking is switched."""

_THINKING_TOKENS: Final = {"low": 1024, "medium": 4096, "high": 16_384}
"""Budgets of Anthropic's messages; the least that is taken is the first."""
_LEAST_THINKING_TOKENS: Final = 1024

_NULL: Final = b"null"
_OBJECT: Final = msgspec.json.Decoder(Members)
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def raw(value: Any) -> msgspec.Raw:
    """The value as a member of a body."""
    return msgspec.Raw(msgspec.json.encode(value))


def _value(member: msgspec.Raw | None) -> Any:
    return None if member is None else msgspec.json.decode(member)


def _is_given(members: Members, name: str) -> bool:
    member = members.get(name)
    return member is not None and bytes(memoryview(member)[:5]) != _NULL


# --- parameters


def set_parameters(
    members: Members,
    api_format: str,
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
    removals: Iterable[str],
) -> None:
    """Set what is absent, set what must be, take out what must not be."""
    for name, value in defaults.items():
        if name not in ANSWER_LIMITS:
            if not _is_given(members, name):
                members[name] = raw(value)
        elif not any(_is_given(members, limit) for limit in ANSWER_LIMITS):
            _set_limit(members, api_format, name, value)
    for name, value in overrides.items():
        if name in ANSWER_LIMITS:
            _set_limit(members, api_format, name, value)
        else:
            members[name] = raw(value)
    for name in removals:
        members.pop(name, None)


def _set_limit(members: Members, api_format: str, name: str, value: Any) -> None:
    for limit in ANSWER_LIMITS:
        members.pop(limit, None)
    as_written = api_format == "chat" and name in _CHAT_SPELLINGS
    members[name if as_written else _SPELLINGS[api_format]] = raw(value)


def add_stop(members: Members, api_format: str, stop: tuple[str, ...]) -> None:
    """Add stop sequences behind the client's."""
    name = _STOP_NAMES.get(api_format)
    if name is None or not stop:
        return
    given = _value(members.get(name))
    if given is None or given == "":
        given = []
    elif not isinstance(given, list):
        given = [given]
    added = [text for text in stop if text not in given]
    if added:
        members[name] = raw([*given, *added])


def set_reasoning(members: Members, api_format: str, level: str, provider: str) -> None:
    """Say how much to think, in the way that the API and whoever serves the model understand.

    Args:
        members: Of the body.
        api_format: Value of `ApiFormat`.
        level: Value of `Reasoning`.
        provider: Who serves the model.
    """
    if api_format == "messages":
        _set_thinking(members, level)
    elif api_format == "responses":
        given = _value(members.get("reasoning"))
        reasoning = given if isinstance(given, dict) else {}
        members["reasoning"] = raw({**reasoning, "effort": _effort(level)})
    elif api_format == "chat" and provider in _TEMPLATE_SERVERS:
        given = _value(members.get("chat_template_kwargs"))
        switches: dict[str, Any] = {"enable_thinking": level != "off"}
        if level != "off":
            switches["reasoning_effort"] = level
        members["chat_template_kwargs"] = raw({**(given if isinstance(given, dict) else {}), **switches})
        members.pop("reasoning_effort", None)  # it would win over the switches, where it is understood
    elif api_format == "chat" and provider == "anthropic":
        _set_thinking(members, level)  # its OpenAI-compatible endpoint ignores reasoning_effort
    elif api_format == "chat":
        members["reasoning_effort"] = raw(_effort(level))


def _effort(level: str) -> str:
    return "none" if level == "off" else level


def _set_thinking(members: Members, level: str) -> None:
    if level == "off":
        members["thinking"] = raw({"type": "disabled"})
        return
    limits = [_value(members[name]) for name in ANSWER_LIMITS if _is_given(members, name)]
    room = min((limit - 1 for limit in limits if isinstance(limit, int)), default=0)
    tokens = min(_THINKING_TOKENS[level], room)
    if tokens >= _LEAST_THINKING_TOKENS:
        members["thinking"] = raw({"type": "enabled", "budget_tokens": tokens})


# --- JSON in words


def take_json_wish(members: Members, api_format: str) -> str:
    """Take the wish for JSON out of a body, and say it in words; empty if there is none."""
    match api_format:
        case "chat":
            return _take_format(members, "response_format")
        case "responses":
            return _take_inner_format(members, "text")
        case _:
            return _take_format(members, "output_format") or _take_inner_format(members, "output_config")


def _take_inner_format(members: Members, name: str) -> str:
    if not isinstance(_value(members.get(name)), dict):
        return ""
    inner = _OBJECT.decode(members[name])
    words = _take_format(inner, "format")
    if words and inner:
        members[name] = raw(inner)
    elif words:
        del members[name]
    return words


def _take_format(members: Members, name: str) -> str:
    wish = members.get(name)
    if wish is None or not isinstance(_value(wish), dict):
        return ""
    parts = _OBJECT.decode(wish)
    kind = _value(parts.get("type"))
    if kind not in ("json_object", "json_schema"):
        return ""
    schema = parts.get("schema")
    if schema is None and isinstance(_value(parts.get("json_schema")), dict):
        schema = _OBJECT.decode(parts["json_schema"]).get("schema")
    del members[name]
    if schema is None or not isinstance(_value(schema), dict):
        return JSON_OBJECT_TEXT
    return JSON_SCHEMA_TEXT + bytes(schema).decode()


# --- the system prompt


def put_system(members: Members, api_format: str, *, before: str, after: str, into_user: bool) -> None:
    """Put texts around the system prompt, and all of it into the first user message if the model knows no other role.

    Args:
        members: Of the body.
        api_format: "chat", "responses" or "messages".
        before: Text before the system prompt.
        after: Text behind it.
        into_user: Whether it becomes the beginning of the first user message.
    """
    if into_user:
        _merge_into_user(members, api_format, before, after)
        return
    if not before and not after:
        return
    match api_format:
        case "chat":
            messages = _LIST.decode(members["messages"]) if "messages" in members else []
            first = _OBJECT.decode(messages[0]) if messages else {}
            if _is_system(first):
                first["content"] = _around(first.get("content"), before, after, "text")
                messages[0] = raw(first)
            else:
                messages.insert(0, raw({"role": "system", "content": _joined(before, after)}))
            members["messages"] = raw(messages)
        case "responses":
            members["instructions"] = _around(members.get("instructions"), before, after, "input_text")
        case _:
            members["system"] = _around(members.get("system"), before, after, "text")


def _is_system(message: Members) -> bool:
    role = _value(message.get("role"))
    return isinstance(role, str) and role in _SYSTEM_ROLES


def _joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _around(content: msgspec.Raw | None, before: str, after: str, text_type: str) -> msgspec.Raw:
    """Content, a text or parts, between two texts; a text that stands there already is not repeated."""
    found = _value(content)
    if content is None or found is None:
        return raw(_joined(before, after))
    if isinstance(found, str):
        return raw(
            _joined("" if found.startswith(before) else before, found, "" if found.endswith(after) else after)
        )
    if not isinstance(found, list):
        return content
    parts = _LIST.decode(content)
    if before and not (found and _text_of(found[0]).startswith(before)):
        parts.insert(0, raw({"type": text_type, "text": before}))
    if after and not (found and _text_of(found[-1]).endswith(after)):
        parts.append(raw({"type": text_type, "text": after}))
    return raw(parts)


def _text_of(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


def _merge_into_user(members: Members, api_format: str, before: str, after: str) -> None:
    name = "input" if api_format == "responses" else "messages"
    system = _take_system(members, api_format)
    if name in members and bytes(memoryview(members[name])[:1]) == b'"':  # a conversation of one text
        members[name] = _around(members[name], _with_prefix(before, [*system, after]), "", "")
        return
    messages = _LIST.decode(members[name]) if name in members else []
    rest: list[msgspec.Raw] = []
    for message in messages:
        parts = _OBJECT.decode(message)
        if _is_system(parts):
            system.append(_all_text(_value(parts.get("content"))))
        else:
            rest.append(message)
    text = _with_prefix(before, [*system, after])
    if text:
        _begin_first_user(rest, text, _TEXT_TYPES[api_format])
    if text or len(rest) < len(messages):
        members[name] = raw(rest)


def _begin_first_user(messages: list[msgspec.Raw], text: str, text_type: str) -> None:
    for index, message in enumerate(messages):
        parts = _OBJECT.decode(message)
        if _value(parts.get("role")) == "user":
            parts["content"] = _around(parts.get("content"), text, "", text_type)
            messages[index] = raw(parts)
            return
    messages.insert(0, raw({"role": "user", "content": text}))


def _with_prefix(before: str, texts: list[str]) -> str:
    whole = _joined(*texts)
    return whole if whole.startswith(before) else _joined(before, whole)


def _take_system(members: Members, api_format: str) -> list[str]:
    """The system prompt that stands outside the messages, taken out."""
    name = {"responses": "instructions", "messages": "system"}.get(api_format)
    if name is None or name not in members:
        return []
    return [_all_text(_value(members.pop(name)))]


def _all_text(content: Any) -> str:
    if isinstance(content, list):
        return _joined(*map(_text_of, content))
    return content if isinstance(content, str) else ""
