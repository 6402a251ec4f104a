"""Which name may have been meant: what a misspelt one is near to, at a cost that does not grow with what there is."""

import string
from collections.abc import Collection, Container, Iterator
from difflib import get_close_matches
from typing import Final

_LONGEST: Final = 80
"""Whatever is longer is hardly a slip of the finger."""
_FEW: Final = 100
"""Among so many names each is compared."""
_LETTERS: Final = string.ascii_lowercase + string.digits + "-_.:/"


def near_name(name: str, known: Collection[str]) -> str | None:
    """The known name that is nearest to an unknown one; None if none is near.

    Among many names only those are found that are one slip away: a letter too many, too few, another, or exchanged with its
    neighbour. To compare a name with ten thousand others would take a fraction of a second, of which anybody could ask for any
    number.

    Args:
        name: The unknown one.
        known: Those that there are; for many of them, a set or a dict.
    """
    if not name or len(name) > _LONGEST:
        return None
    lowered = name.lower()
    if len(known) <= _FEW:
        by_lowered = {each.lower(): each for each in known}
        found = get_close_matches(lowered, by_lowered, n=1)
        return by_lowered[found[0]] if found else None
    return next(_slips(name, known), None) or next(_slips(lowered, known), None)


def _slips(name: str, known: Container[str]) -> Iterator[str]:
    """The known names that are one slip away, and the name itself."""
    if name in known:
        yield name
    parts = [(name[:at], name[at:]) for at in range(len(name) + 1)]
    for before, after in parts:
        if after and before + after[1:] in known:
            yield before + after[1:]
        if after[1:] and before + after[1] + after[0] + after[2:] in known:
            yield before + after[1] + after[0] + after[2:]
        for letter in _LETTERS:
            if after and before + letter + after[1:] in known:
                yield before + letter + after[1:]
            if before + letter + after in known:
                yield before + letter + after
