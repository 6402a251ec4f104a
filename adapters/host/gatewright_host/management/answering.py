"""What the parts of the management API share: how bodies and queries are read, how answers and refusals look."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from attrs import evolve, frozen

from gatewright.configuration.reader import COUNT, Place
from gatewright.errors import InvalidRequest, Problem
from gatewright_host.store.vocabulary import StoreBusy

Document = dict[str, Any]
"""A JSON object."""

BUSY_RETRY_S: Final = 1.0
_MOST_QUERY_FIELDS: Final = 100


@frozen(kw_only=True)
class Reply:
    """What is answered.

    Attributes:
        document: The JSON object; None for an answer without a body.
        status: HTTP status.
    """

    document: Document | None
    status: int = 200


def as_list(items: list[Document]) -> Reply:
    """Several things, in the shape of OpenAI's lists."""
    return Reply(document={"object": "list", "data": items})


def read_object(body: bytes) -> Document:
    """The body of a request.

    Raises:
        InvalidRequest: It is no JSON object.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest("The request body must be a JSON object")
    return document


def refuse_fields(problems: list[str]) -> InvalidRequest:
    """The error that names every field that is wrong; the first of them is its `param`.

    Args:
        problems: Lines such as `name: missing; expected ...`. Never empty.
    """
    param = problems[0].partition(":")[0]
    return InvalidRequest("; ".join(problems), param=param or None)


def expect_members(document: Mapping[str, object], known: tuple[str, ...]) -> None:
    """See that nothing is said that nobody would hear.

    Raises:
        InvalidRequest: There is another member.
    """
    for name in document:
        if name not in known:
            raise InvalidRequest(f"{name}: unknown field; known are {', '.join(known)}", param=name)


def text_of(document: Mapping[str, object], name: str, default: str | None = None) -> str:
    """A member that is a text.

    Raises:
        InvalidRequest: It is something else, or missing where there is no default.
    """
    value = document.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not (value or default is not None):
        raise InvalidRequest(f"{name}: expected a non-empty string", param=name)
    return value


@frozen
class Query:
    """What the query of a request says.

    Attributes:
        fields: Values by name, in their order.
    """

    fields: Mapping[str, list[str]]

    @classmethod
    def of(cls, target: str, known: tuple[str, ...]) -> "Query":
        """Read it.

        Args:
            target: Path and query.
            known: Names that it may have.

        Raises:
            InvalidRequest: It has others, or too many.
        """
        try:
            fields = parse_qs(target.partition("?")[2], max_num_fields=_MOST_QUERY_FIELDS)
        except ValueError:
            raise InvalidRequest("The query has too many fields") from None
        expect_members(fields, known)
        return cls(fields)

    def find(self, name: str) -> str | None:
        """The last value of that name."""
        return self.fields.get(name, [None])[-1]

    def all(self, name: str) -> list[str]:
        """All values of that name; several may stand in one, with commas between them."""
        return [part for value in self.fields.get(name, ()) for part in value.split(",") if part]

    def count(self, name: str) -> int | None:
        """A whole number above 0.

        Raises:
            InvalidRequest: It is none.
        """
        value = self.find(name)
        if value is None:
            return None
        number = int(value) if value.isascii() and value.isdecimal() and len(value) <= 15 else None  # noqa: PLR2004  # digits
        if COUNT.accept(number) is None:
            raise InvalidRequest(f"{name}: expected {COUNT.expected}", param=name)
        return number

    def moment_s(self, name: str) -> float | None:
        """A moment, as Unix time: seconds since 1970, or a date or time as ISO 8601 has it (UTC where it does not say).

        Raises:
            InvalidRequest: It is neither.
        """
        value = self.find(name)
        if value is None:
            return None
        try:
            return float(value) if value.replace(".", "", 1).isdecimal() else _moment(value)
        except (ValueError, OverflowError):
            text = f"{name}: expected Unix seconds, or a time such as 2026-05-01 or 2026-05-01T12:00:00Z"
            raise InvalidRequest(text, param=name) from None


def _moment(text: str) -> float:
    # A "+" in a query is a space: what stands before an offset's digits is taken for the sign that it was.
    moment = datetime.fromisoformat(text.strip().replace(" ", "+"))
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def busy(problem: Problem, error: Exception) -> Problem:
    """The failure of a store as what a client is told."""
    return evolve(problem, retry_after_s=BUSY_RETRY_S) if isinstance(error, StoreBusy) else problem


def place() -> Place:
    """Where the problems of a JSON body are noted."""
    return Place("")
