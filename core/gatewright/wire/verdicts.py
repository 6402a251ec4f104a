"""What can be said of an upstream's answer while it is held back, and while it is passed on."""

from typing import Final

from attrs import frozen

from gatewright.api.facts import UpstreamError
from gatewright.events import CallFailure, RelayFailure


@frozen
class Begun:
    """The answer has begun: it can be passed on, or dropped.

    Attributes:
        status: HTTP status.
        error: What it says where it is an error: with a status of 400 or above, or in the place of an answer. In the
            place of a stream there is nothing to pass on.
    """

    status: int
    error: UpstreamError | None = None


@frozen
class Unanswered:
    """The connection was closed without a byte of an answer."""


@frozen
class CallBroken:
    """There will be no answer.

    Attributes:
        failure: BROKEN, MALFORMED or DIFFERENT.
        reason: One line for people.
    """

    failure: CallFailure
    reason: str


@frozen
class AnswerEnded:
    """The client has the whole answer, once it has what `take` gives."""


@frozen
class RelayBroken:
    """The answer does not come to its end; what precedes the break may still be taken.

    Attributes:
        failure: BROKEN, INCOMPLETE, MALFORMED or REFUSED; or as `give_up` was told.
        reason: One line for people.
        error: What the upstream said, where it refused.
    """

    failure: RelayFailure
    reason: str
    error: UpstreamError | None = None


UNANSWERED: Final = Unanswered()
ANSWER_ENDED: Final = AnswerEnded()

HoldVerdict = Begun | Unanswered | CallBroken
PassVerdict = AnswerEnded | RelayBroken
