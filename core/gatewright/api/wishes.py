"""What a client says about the choice of the model: the member `gatewright` of its body, and `x-gw-...` headers.

Both say the same things, with the words of the configuration. Where both say something, the body counts.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from attrs import evolve

from gatewright.api.bodies import is_given
from gatewright.api.facts import Wishes
from gatewright.configuration.calls import MOST_ATTEMPTS, MOST_FALLBACKS
from gatewright.configuration.criteria import PREFER, CriteriaKind
from gatewright.configuration.reader import ListOf, Place, Scalar, Table, TableOf, usable_text, whole
from gatewright.errors import InvalidRequest
from gatewright.selection.criteria import SelectionCriteria
from gatewright.wire.fields import Headers

T = TypeVar("T")

WISH_FIELDS: Final = ("task", "criteria", "prefer", "max_attempts", "fallbacks", "user", "session")
"""Members of `gatewright` in a body."""

_MEMBER: Final = "gatewright"
_QUOTED_MEMBER: Final = b'"gatewright"'
_PREFIX: Final = b"x-gw-"
_LONGEST_TEXT: Final = 512
_LARGEST_MEMBER_BYTES: Final = 65_536
"""As much as the headers may hold that say the same."""
_MOST_PROBLEMS: Final = 5
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _short_text(value: object) -> str | None:
    text = usable_text(value)
    return text if text is not None and len(text) <= _LONGEST_TEXT else None


_TEXT: Final = Scalar(f"a text of 1 to {_LONGEST_TEXT} characters", _short_text)
_ATTEMPTS: Final = whole(f"a whole number of calls, 1 to {MOST_ATTEMPTS}", 1, MOST_ATTEMPTS)
_FALLBACKS: Final = ListOf(Scalar("the name of a model", _short_text))


def _number(text: str) -> object:
    """A number as a header holds it; what is none stays a text, to be refused with its value."""
    try:
        return float(text)
    except ValueError:
        return text


def _list(text: str) -> object:
    return [part.strip() for part in text.split(",") if part.strip()]


def _text(text: str) -> object:
    return text


_HEADERS: Final[Mapping[bytes, tuple[str, Callable[[str], object]]]] = {
    b"x-gw-task": ("task", _text),
    b"x-gw-prefer": ("prefer", _text),
    b"x-gw-max-attempts": ("max_attempts", _number),
    b"x-gw-user": ("user", _text),
    b"x-gw-session": ("session", _text),
    b"x-gw-capability": ("criteria.capabilities", _list),
    b"x-gw-feature": ("criteria.features", _list),
    b"x-gw-tag": ("criteria.tags", _list),
    b"x-gw-max-cost": ("criteria.max_cost_per_1k", _number),
    b"x-gw-max-latency": ("criteria.max_latency_ms", _number),
    b"x-gw-min-quality": ("criteria.min_quality", _number),
    b"x-gw-min-context": ("criteria.min_context", _number),
}
"""Headers, the field that each of them stands for, and how its text is read."""

WISH_HEADERS: Final = tuple(_HEADERS)
"""Names of the headers, in lower case."""


def read_wishes(member: msgspec.Raw, headers: Headers) -> Wishes | None:
    """What the client wishes; None if it says nothing.

    Args:
        member: The body's member `gatewright`, undecoded; an empty `Raw` where there is none.
        headers: Of the request, names in lower case.

    Raises:
        InvalidRequest: Something is not allowed; the message names the field or the header.
    """
    size = len(memoryview(member))
    if size > _LARGEST_MEMBER_BYTES:
        text = f"'{_MEMBER}' has {size} bytes; expected at most {_LARGEST_MEMBER_BYTES}"
        raise InvalidRequest(text, param=_MEMBER)
    from_headers = _from_headers(headers)
    if not is_given(member):
        return from_headers or (Wishes() if size else None)  # null is to be taken out of the body, too
    problems: list[str] = []
    table = TableOf("an object with wishes").read(_decoded(member), Place(_MEMBER, problems))
    wishes = None if table is None else _read(table)
    if problems or wishes is None:
        raise _invalid(problems)
    return wishes if from_headers is None else _over(wishes, from_headers)


def _decoded(member: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(member)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"'{_MEMBER}' cannot be read: {error}", param=_MEMBER) from None


def _from_headers(headers: Headers) -> Wishes | None:
    wishes: Wishes | None = None
    for name, value in headers:
        if not name.startswith(_PREFIX) or name not in _HEADERS:
            continue
        path, convert = _HEADERS[name]
        problems: list[str] = []
        label = name.decode()
        try:
            setting = convert(value.decode().strip())
        except UnicodeDecodeError:
            raise InvalidRequest(f"'{label}' is not UTF-8", param=label) from None
        found = _read_header(path, setting, Place(label, problems))
        if problems:
            raise _invalid(problems)
        wishes = found if wishes is None else _over(found, wishes)
    return wishes


def _read_header(path: str, setting: object, place: Place) -> Wishes:
    """The wish of one header, read as the body's member is; its problems are the header's."""
    inner, _, name = path.rpartition(".")
    problems: list[str] = []
    values: dict[object, object] = {name: setting}
    wishes = _read(Table(Place(_MEMBER, problems), {inner: values} if inner else values))
    for problem in problems:
        place.report(problem.partition(": ")[2])
    return wishes


def _read(table: Table) -> Wishes:
    table.expect_only(WISH_FIELDS, {})
    no_fallbacks = table.values.get("fallbacks") is False
    return Wishes(
        task=table.get("task", _TEXT, ""),
        criteria=table.find("criteria", CriteriaKind('an object such as {"capabilities": ["code"]}')),
        prefer=table.find("prefer", PREFER),
        max_attempts=table.find("max_attempts", _ATTEMPTS),
        fallbacks=() if no_fallbacks else _read_fallbacks(table),
        user=table.find("user", _TEXT),
        session=table.find("session", _TEXT),
    )


def _read_fallbacks(table: Table) -> tuple[str, ...] | None:
    fallbacks = table.find("fallbacks", _FALLBACKS)
    if fallbacks is not None and len(fallbacks) > MOST_FALLBACKS:
        table.place.field("fallbacks").report(f"{len(fallbacks)} models; expected at most {MOST_FALLBACKS}")
    return fallbacks


def _over(wishes: Wishes, below: Wishes) -> Wishes:
    """What the first say, and what the others say where the first say nothing."""
    return Wishes(
        task=wishes.task or below.task,
        criteria=_criteria_over(wishes.criteria, below.criteria),
        prefer=wishes.prefer or below.prefer,
        max_attempts=below.max_attempts if wishes.max_attempts is None else wishes.max_attempts,
        fallbacks=below.fallbacks if wishes.fallbacks is None else wishes.fallbacks,
        user=wishes.user or below.user,
        session=wishes.session or below.session,
    )


def _criteria_over(
    criteria: SelectionCriteria | None, below: SelectionCriteria | None
) -> SelectionCriteria | None:
    if criteria is None or below is None:
        return criteria or below
    return SelectionCriteria(
        required_capabilities=criteria.required_capabilities | below.required_capabilities,
        required_features=criteria.required_features | below.required_features,
        required_tags=criteria.required_tags | below.required_tags,
        max_cost_per_1k_tokens=_first(criteria.max_cost_per_1k_tokens, below.max_cost_per_1k_tokens),
        max_latency_ms=_first(criteria.max_latency_ms, below.max_latency_ms),
        min_quality_threshold=_first(criteria.min_quality_threshold, below.min_quality_threshold),
        min_context_tokens=_first(criteria.min_context_tokens, below.min_context_tokens),
    )


def _first(value: T | None, other: T | None) -> T | None:
    return other if value is None else value


def _invalid(problems: list[str]) -> InvalidRequest:
    field = problems[0].partition(": ")[0] if problems else _MEMBER
    more = len(problems) - _MOST_PROBLEMS
    shown = [*problems[:_MOST_PROBLEMS], f"and {more} more"] if more > 0 else problems
    return InvalidRequest("; ".join(shown), param=field)


def with_identity(wishes: Wishes | None, user: Any, session: Any) -> Wishes | None:
    """The wishes with the user and the session that the API's own fields name; the client's wishes come first.

    Args:
        wishes: So far.
        user: Of OpenAI's `user` and the like; anything but a text says nothing.
        session: Of OpenAI's `conversation` and the like; the same.
    """
    user, session = _short_text(user), _short_text(session)
    if user is None and session is None:
        return wishes
    wishes = wishes or Wishes()
    return evolve(wishes, user=wishes.user or user, session=wishes.session or session)


def strip_wishes(body: bytes) -> bytes:
    """The body without the member `gatewright`, which no upstream knows; the very same object where there is none.

    Values are copied, not decoded.
    """
    if _QUOTED_MEMBER not in body:
        return body
    try:
        members = _MEMBERS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    if members.pop(_MEMBER, None) is None:
        return body
    return msgspec.json.encode(members)
