"""The moment after a start in which nobody knows yet who has a key."""

import time
from typing import Final, Protocol

from gatewright.api.access import Access
from gatewright.errors import KeysUnknown

KEYS_READ_WITHIN_S: Final = 5.0
"""A client rather waits so long than be told to come again."""
_LOOK_AGAIN_S: Final = 0.1


class Readying(Protocol):
    """What is asked of a `Keeper`."""

    @property
    def unavailable(self) -> str | None:
        """Why the store cannot be asked."""
        ...

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until it has been read."""
        ...


def is_waiting_for_keys(access: Access, keeper: Readying | None) -> bool:
    """Whether the decision depends on keys that are just being read.

    Args:
        access: The decision without them.
        keeper: Who reads them.
    """
    is_unknown = access.problem is not None and access.problem.kind == KeysUnknown.__name__
    return is_unknown and keeper is not None and keeper.unavailable is None


def wait_for_keys(keeper: Readying | None) -> None:
    """Wait until they are read, or it turns out that they cannot be, or for so long as a client puts up with."""
    end = time.monotonic() + KEYS_READ_WITHIN_S
    while (
        keeper is not None
        and not keeper.wait_ready(_LOOK_AGAIN_S)
        and keeper.unavailable is None
        and time.monotonic() < end
    ):
        pass
