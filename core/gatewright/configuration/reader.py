"""Reading plain values by path: a reader gives the typed value, or notes what is wrong with it and gives None.

A problem never stops the reading, so that a user sees everything there is to mend at once.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from math import isfinite
from typing import Final, Generic, Protocol, TypeVar

from attrs import evolve, field, frozen

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_WHOLE: Final = 2**53
"""Beyond this, a Lua float no longer holds every whole number."""

_SHOWN_CHARACTERS: Final = 80
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@frozen
class Place:
    """Where a value stands in the file, and where the problems with it go.

    Attributes:
        path: Path as the user would write it, such as `models[2].variants[1].context`.
        problems: Lines collected so far, shared by all places of one reading.
        secret: Values here are never shown.
    """

    path: str
    problems: list[str] = field(factory=list)
    secret: bool = False

    def field(self, name: object) -> "Place":
        """The place of a named field."""
        if isinstance(name, str) and _IDENTIFIER.fullmatch(name):
            return evolve(self, path=f"{self.path}.{name}" if self.path else name)
        return evolve(self, path=f"{self.path}[{show(name)}]")

    def item(self, number: int) -> "Place":
        """The place of a list's item; Lua counts from 1."""
        return evolve(self, path=f"{self.path}[{number}]")

    def report(self, text: str) -> None:
        """Note a problem in words of its own."""
        self.problems.append(f"{self.path}: {text}")

    def refuse(self, value: object, expected: str) -> None:
        """Note that the value is not what is allowed here."""
        if value is None:
            self.report(f"missing; expected {expected}")
        else:
            self.report(f"got {kind_of(value) if self.secret else show(value)}, expected {expected}")

    def report_hole(self) -> None:
        """Note that a list's item is nil."""
        self.report("nil in the middle of a list; is a variable's name misspelt?")


def show(value: object) -> str:
    """The value as one short line, in Lua's notation; tables are not spelled out."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        return "a number beyond 2^53"  # Python refuses to print the really long ones
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return kind_of(value)
    cut = value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "..."
    quoted = cut.replace("\\", "\\\\").replace('"', '\\"')
    # Control characters and lone surrogates would break the line or the terminal.
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in quoted) + '"'


def kind_of(value: object) -> str:
    """What sort of value it is, in the words of a Lua user."""
    if value is None:
        return "nil"
    for types, name in (
        (bool, "a boolean"),
        (int | float, "a number"),
        (str, "a string"),
        (list | tuple, "a list"),
    ):
        if isinstance(value, types):
            return name
    return "a table with named fields" if isinstance(value, Mapping) else f"a {type(value).__name__}"


class Kind(Protocol[T_co]):
    """What a field may hold."""

    @property
    def expected(self) -> str:
        """What is allowed, to stand after "expected" in a message."""

    def read(self, value: object, place: Place) -> T_co | None:
        """The typed value; None once a problem is noted."""


@frozen
class Scalar(Generic[T]):
    """A single value; `accept` gives None for what is not allowed."""

    expected: str
    accept: Callable[[object], T | None]

    def read(self, value: object, place: Place) -> T | None:
        """The accepted value."""
        result = self.accept(value)
        if result is None:
            place.refuse(value, self.expected)
        return result


@frozen
class ListOf(Generic[T]):
    """A list of any length. The empty Lua table is a list, too."""

    item: Kind[T]

    @property
    def expected(self) -> str:
        """What is allowed."""
        return f"a list, each item {self.item.expected}"

    def read(self, value: object, place: Place) -> tuple[T, ...] | None:
        """The items in order, without those that were refused."""
        items = as_list(value)
        if items is None:
            place.refuse(value, self.expected)
            return None
        read = [self._read_item(item, place.item(number)) for number, item in enumerate(items, 1)]
        return tuple(item for item in read if item is not None)

    def _read_item(self, item: object, place: Place) -> T | None:
        if item is None:
            place.report_hole()
            return None
        return self.item.read(item, place)


@frozen
class Secret(Generic[T]):
    """Another kind, whose values no message shows."""

    kind: Kind[T]

    @property
    def expected(self) -> str:
        """What is allowed."""
        return self.kind.expected

    def read(self, value: object, place: Place) -> T | None:
        """The value of the other kind."""
        return self.kind.read(value, evolve(place, secret=True))


def as_list(value: object) -> list[object] | None:
    """The value as a list; None if it is none."""
    if isinstance(value, list | tuple):
        return list(value)
    return [] if isinstance(value, Mapping) and not value else None


@frozen
class Table:
    """A table with named fields."""

    place: Place
    values: Mapping[object, object]

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def find(self, name: str, kind: Kind[T]) -> T | None:
        """The field's value; None if it is absent or refused."""
        value = self.values.get(name)
        return None if value is None else kind.read(value, self.place.field(name))

    def get(self, name: str, kind: Kind[T], default: T) -> T:
        """The field's value, or the default if it is absent (or refused, which is noted)."""
        value = self.find(name, kind)
        return default if value is None else value

    def require(self, name: str, kind: Kind[T]) -> T | None:
        """The field's value; its absence is a problem."""
        if name not in self:
            self.place.field(name).refuse(None, kind.expected)
        return self.find(name, kind)

    def expect_only(self, known: Collection[str], elsewhere: Mapping[str, str]) -> None:
        """Note every other field; `elsewhere` says of a name why it is not one of this table."""
        for name in self.values:
            if name in known:
                continue
            place = self.place.field(name)
            if not isinstance(name, str):
                place.report("a value without a name; expected `name = value`")
            elif name in elsewhere:
                place.report(elsewhere[name])
            else:
                place.report(f"unknown field; {hint(name, known)}")


def hint(name: str, known: Collection[str]) -> str:
    """The closest known name, or all of them."""
    close = difflib.get_close_matches(name[:_SHOWN_CHARACTERS].lower(), known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known are {', '.join(sorted(known))}"


@frozen
class TableOf:
    """A table with named fields, to be read further by whoever knows them."""

    expected: str

    def read(self, value: object, place: Place) -> Table | None:
        """The table. The empty Lua table comes as an empty list or map alike."""
        if isinstance(value, Mapping):
            return Table(place, value)
        if as_list(value) == []:
            return Table(place, {})
        place.refuse(value, self.expected)
        return None


def whole_number(value: object) -> int | None:
    """The value as an int if it is a whole number; Lua's arithmetic easily makes 4096.0 of one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= MAX_WHOLE else None
    return value if abs(value) <= MAX_WHOLE else None


def real_number(value: object) -> float | None:
    """The value as a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_WHOLE:
        return None
    return float(value) if isfinite(value) else None


def usable_text(value: object) -> str | None:
    """A non-empty string that a program can be given: no NUL, nothing that UTF-8 cannot carry."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    return None if any("\ud800" <= c <= "\udfff" for c in value) else value


def whole(expected: str, least: int, most: int = MAX_WHOLE) -> Scalar[int]:
    """A whole number between two bounds."""

    def accept(value: object) -> int | None:
        number = whole_number(value)
        return number if number is not None and least <= number <= most else None

    return Scalar(expected, accept)


def real(expected: str, is_allowed: Callable[[float], bool]) -> Scalar[float]:
    """A finite number that passes a test."""

    def accept(value: object) -> float | None:
        number = real_number(value)
        return number if number is not None and is_allowed(number) else None

    return Scalar(expected, accept)


E = TypeVar("E", bound=StrEnum)


def one_of(choices: type[E]) -> Scalar[E]:
    """One of the values of an enumeration, in any case."""
    values = {choice.value: choice for choice in choices}

    def accept(value: object) -> E | None:
        return values.get(value.lower()) if isinstance(value, str) else None

    return Scalar("one of " + ", ".join(f'"{name}"' for name in values), accept)


TEXT: Final = Scalar("a non-empty string", usable_text)
TEXTS: Final = ListOf(TEXT)
FLAG: Final = Scalar("true or false", lambda value: value if isinstance(value, bool) else None)
SECONDS: Final = real("a number of seconds above 0", lambda number: number > 0)
COUNT: Final = whole("a whole number above 0", 1)
TOKENS: Final = whole("a whole number of tokens, 0 or more", 0)
