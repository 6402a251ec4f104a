"""What a fork must not find open.

SQLite keeps in the process's memory which locks it holds. A child has that memory, but none of the locks: if a database
was open when it was forked off, the child waits for locks that nobody holds, and reads what others are just writing.
"""

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forking(Protocol):
    """Something with a database."""

    def before_fork(self) -> None:
        """Come to rest, close the database, and let nobody in."""
        ...

    def after_fork(self) -> None:
        """Go on; called in the parent, and in the child."""
        ...


_ALL: Final[WeakSet[Forking]] = WeakSet()
_at_rest: Final[list[Forking]] = []


def take_part(each: Forking) -> None:
    """See that it is told of forks."""
    _ALL.add(each)


def _before() -> None:
    for each in list(_ALL):
        each.before_fork()
        _at_rest.append(each)


def _after() -> None:
    while _at_rest:
        _at_rest.pop().after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
