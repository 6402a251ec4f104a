"""Changes that a request's body undergoes for one model or route, declared in the configuration.

What a transform cannot mean in an API format is left out there: text completions have no system prompt, embeddings
have no parameters that anyone here knows.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec
from attrs import evolve, field, frozen

from gatewright.api.transform_steps import (
    ANSWER_LIMITS,
    JSON_OBJECT_TEXT,
    JSON_SCHEMA_TEXT,
    add_stop,
    put_system,
    set_parameters,
    set_reasoning,
    take_json_wish,
)

if TYPE_CHECKING:
    from gatewright.api.facts import ApiFormat, RequestFacts


class Reasoning(StrEnum):
    """How much a model is to think before it answers."""

    OFF = "off"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@frozen(kw_only=True)
class Transform:
    """What is done to a request's body, in this order.

    Attributes:
        defaults: Parameters that are set where the client sets none.
        overrides: Parameters that are set whatever the client says.
        removals: Parameters that are left out.
        stop: Stop sequences besides the client's.
        reasoning: How much to think; None leaves it alone.
        json_instructions: A wanted JSON schema is described in words in the system prompt, and the parameter left out.
        system_prefix: Text put before the system prompt, which is made where there is none.
        merge_system: The system prompt becomes the beginning of the first user message: the model knows no other role.
    """

    system_prefix: str = ""
    merge_system: bool = False
    defaults: dict[str, Any] = field(factory=dict, hash=False)
    overrides: dict[str, Any] = field(factory=dict, hash=False)
    removals: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    json_instructions: bool = False
    reasoning: Reasoning | None = None


NO_TRANSFORM: Final = Transform()

_CONVERSATIONS: Final = frozenset(("chat", "responses", "messages"))
_CHANGED: Final = frozenset((*_CONVERSATIONS, "completion", "native"))
_JSON_FEATURES: Final = frozenset(("json_mode", "json_schema"))
_ABOUT_THE_ANSWERS_FORM: Final = frozenset(
    ("response_format", "logprobs", "top_logprobs", "echo", "grammar", "json_schema", "tools", "functions")
)
_CHAT_LIMITS: Final = frozenset(("max_tokens", "max_completion_tokens"))
_UNLIMITED: Final = -1
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BLANK_LINE_BYTES: Final = 2
_SHOWN_CHARACTERS: Final = 60


def combine_transforms(transforms: Sequence[Transform]) -> Transform:
    """One transform for several, such as the model's, the route's and an experiment's arm's, in this order.

    Of parameters with the same name the later one's counts; the names of the answer's limit are one name. Texts,
    removals and stop sequences are added up, and what one of them switches on is on.
    """
    if not transforms:
        return NO_TRANSFORM
    whole = transforms[0]
    for later in transforms[1:]:
        whole = Transform(
            system_prefix="\n\n".join(filter(None, (whole.system_prefix, later.system_prefix))),
            merge_system=whole.merge_system or later.merge_system,
            defaults=_overlaid(whole.defaults, later.defaults),
            overrides=_overlaid(whole.overrides, later.overrides),
            removals=tuple(dict.fromkeys((*whole.removals, *later.removals))),
            stop=tuple(dict.fromkeys((*whole.stop, *later.stop))),
            json_instructions=whole.json_instructions or later.json_instructions,
            reasoning=later.reasoning or whole.reasoning,
        )
    return whole


def _overlaid(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    if not ANSWER_LIMITS.isdisjoint(later):
        earlier = {name: value for name, value in earlier.items() if name not in ANSWER_LIMITS}
    return {**earlier, **later}


def transform_body(
    body: bytes,
    format: "ApiFormat",  # noqa: A002 - the word that facts use
    transforms: Sequence[Transform],
    content_type: str | None = None,
    *,
    provider: str = "",
) -> bytes:
    """The body as the model is to get it; the very same object where nothing changes.

    Values that are not concerned are copied, not decoded: neither long prompts nor the digits of numbers are touched.

    Args:
        body: JSON object; anything else is returned as it is.
        format: Of the request.
        transforms: The model's, the route's, the arm's, in this order.
        content_type: Of the body.
        provider: Who serves the model (`ModelProfile.provider`): how thinking is switched depends on it.
    """
    transform = combine_transforms(transforms)
    if transform == NO_TRANSFORM or format not in _CHANGED:
        return body
    if content_type is not None and content_type.strip().lower().startswith("multipart/"):
        return body
    try:
        given = _MEMBERS.decode(body)
        members = _transformed(dict(given), format, transform, provider)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    return body if members == given else msgspec.json.encode(members)


def _transformed(
    members: dict[str, msgspec.Raw], api_format: str, transform: Transform, provider: str
) -> dict[str, msgspec.Raw]:
    set_parameters(members, api_format, transform.defaults, transform.overrides, transform.removals)
    add_stop(members, api_format, transform.stop)
    if transform.reasoning is not None:
        set_reasoning(members, api_format, transform.reasoning.value, provider)
    if api_format in _CONVERSATIONS:
        wish = take_json_wish(members, api_format) if transform.json_instructions else ""
        put_system(
            members,
            api_format,
            before=transform.system_prefix,
            after=wish,
            into_user=transform.merge_system,
        )
    return members


def transform_facts(facts: "RequestFacts", transforms: Sequence[Transform]) -> "RequestFacts":
    """The facts of the body as the model is to get it; where only the body could tell, the larger prompt of the two.

    Args:
        facts: Of the client's request.
        transforms: The model's, the route's, the arm's, in this order.
    """
    transform = combine_transforms(transforms)
    if transform == NO_TRANSFORM or facts.format not in _CHANGED:
        return facts
    if facts.format in _CONVERSATIONS:
        facts = _conversation_facts(facts, transform)
    if facts.sized:
        facts = evolve(facts, answer_tokens=_answer_tokens(facts.answer_tokens, transform))
    if not _ABOUT_THE_ANSWERS_FORM.isdisjoint((*transform.defaults, *transform.overrides)):
        facts = evolve(facts, continuable=False)
    return facts


def _conversation_facts(facts: "RequestFacts", transform: Transform) -> "RequestFacts":
    wants_json = transform.json_instructions and not facts.features.isdisjoint(_JSON_FEATURES)
    texts = [transform.system_prefix] if transform.system_prefix else []
    if wants_json:  # the schema itself is among the bytes already
        texts.append(max(JSON_OBJECT_TEXT, JSON_SCHEMA_TEXT, key=len))
    if not texts:
        return facts
    return evolve(
        facts,
        prompt_bytes=facts.prompt_bytes + sum(len(text.encode()) + _BLANK_LINE_BYTES for text in texts),
        messages=facts.messages + (not transform.merge_system),
        features=facts.features - _JSON_FEATURES if wants_json else facts.features,
    )


def _answer_tokens(given: int | None, transform: Transform) -> int | None:
    limits = [value for name, value in transform.overrides.items() if name in ANSWER_LIMITS]
    if not limits and given is None:
        limits = [value for name, value in transform.defaults.items() if name in ANSWER_LIMITS]
    if limits and isinstance(limits[-1], int):
        return None if limits[-1] == _UNLIMITED else limits[-1]
    return None if _CHAT_LIMITS.issubset(transform.removals) else given


def describe_transform(transform: Transform) -> tuple[str, ...]:
    """What it does, one line for people for each thing."""
    lines = [
        f"sets {name} = {_shown(value)} where none is given" for name, value in transform.defaults.items()
    ]
    lines += [f"sets {name} = {_shown(value)}" for name, value in transform.overrides.items()]
    lines += [f"removes {name}" for name in transform.removals]
    if transform.stop:
        lines.append(f"stops at {', '.join(_shown(text) for text in transform.stop)}")
    if transform.reasoning is Reasoning.OFF:
        lines.append("switches thinking off")
    elif transform.reasoning is not None:
        lines.append(f"asks for {transform.reasoning.value} reasoning effort")
    if transform.json_instructions:
        lines.append("describes a wanted JSON schema in words")
    if transform.system_prefix:
        lines.append(f"puts {_shown(transform.system_prefix)} before the system prompt")
    if transform.merge_system:
        lines.append("moves the system prompt into the first user message")
    return tuple(lines)


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
