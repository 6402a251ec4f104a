"""Values that callers give, checked where they are given: what comes later could not say any more who has given them."""

from collections.abc import Sequence
from enum import StrEnum
from numbers import Real
from reprlib import repr as short_repr
from typing import TypeVar

_Word = TypeVar("_Word", bound=StrEnum)


def expect_number(
    value: object,
    label: str,
    *,
    least: float = 0.0,
    most: float | None = None,
    above: bool = False,
    optional: bool = False,
) -> None:
    """See that it is a number within a range.

    Args:
        value: The value.
        label: What it is, for the error.
        least: The smallest that is allowed.
        most: The largest; None for any.
        above: Whether the smallest itself is not allowed.
        optional: Whether None is allowed.

    Raises:
        ValueError: It is none.
    """
    if value is None and optional:
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    # Not a number (nan) compares as false, and is refused as well.
    in_range = is_number and (value > least if above else value >= least)  # type: ignore[operator]  # it is a number
    if not in_range or (most is not None and not value <= most):  # type: ignore[operator]  # as above
        if most is not None:
            expected = f"a number from {least:g} to {most:g}"
        else:
            expected = f"a number above {least:g}" if above else f"a number, at least {least:g}"
        raise ValueError(f"{label} is {short_repr(value)}, expected {expected}{' or None' * optional}")


def expect_words(value: object, label: str) -> None:
    """See that it is a list of words, or None; one word alone would be taken for its letters.

    Args:
        value: The value.
        label: What it is, for the error.

    Raises:
        ValueError: It is none.
    """
    is_list = isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes)
    if value is not None and not is_list:
        raise ValueError(f"{label} is {short_repr(value)}, expected a list of words")


def word_of(kind: type[_Word], value: object, label: str) -> _Word:
    """The one of several words that is meant.

    Args:
        kind: The words.
        value: One of them, or the same as a string.
        label: What it is, for the error.

    Raises:
        ValueError: It is none of them.
    """
    try:
        return kind(str(value).lower())
    except ValueError:
        words = ", ".join(f'"{each.value}"' for each in kind)
        raise ValueError(f"{label} is {short_repr(value)}, expected one of {words}") from None
