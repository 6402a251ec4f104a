"""A machine's one deadline, with its reason."""

from typing import Protocol, TypeVar

from attrs import frozen

EventT_contra = TypeVar("EventT_contra", contravariant=True)
CommandT = TypeVar("CommandT")


@frozen
class Deadline:
    """When to wake a machine, and why.

    Attributes:
        at: Seconds on the clock that `handle` is given as `now`.
        reason: For logs and tests.
    """

    at: float
    reason: str


def earliest(first: Deadline | None, second: Deadline | None) -> Deadline | None:
    """The earlier of two deadlines, either of which may be absent; the first where they are equal."""
    if first is None:
        return second
    if second is None or first.at <= second.at:
        return first
    return second


class Machine(Protocol[EventT_contra, CommandT]):
    """What every state machine of the core is to its driver.

    The driver calls `handle` for each event, one at a time, carries out all returned commands, and sends
    `Woke` when the time of `wake_at` has come. Early and repeated wake-ups are harmless.
    """

    def handle(self, event: EventT_contra, now: float) -> list[CommandT]:
        """Take in one fact and say what to do about it.

        Args:
            event: What happened.
            now: Seconds, monotonic, from the driver.
        """
        ...

    @property
    def wake_at(self) -> Deadline | None:
        """When `Woke` is due, or None while nothing is timed."""
        ...
