"""The requests of late: which outcomes were heard already, and what was said of the answers."""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

from attrs import define, field

from gatewright.accounting.outcomes import Feedback, ModelOutcome

MOST_REQUESTS: Final = 20_000
"""Requests that are remembered; feedback on older ones comes too late. A process that starts hears of no more than these."""
MOST_EARLY: Final = 1_000
"""Feedback that is kept until its request is heard of, from another process for example."""

JUDGE: Final = "judge"
"""Who says what a model says that judges answers."""

CallKey = tuple[str, int]
"""Model and number of a call, which tell it from the others of its request."""

_Note = TypeVar("_Note")


@define(eq=False)
class HeardRequest(Generic[_Note]):
    """One request.

    Attributes:
        calls: Its outcomes; only one of each call.
        feedback: What was said last of its answer; None: nothing.
        note: Whatever the one who remembers wants to know of it.
    """

    calls: dict[CallKey, ModelOutcome] = field(factory=dict)
    feedback: Feedback | None = None
    note: _Note | None = None

    @property
    def answered(self) -> CallKey | None:
        """The call that feedback is about: the last one to which a model answered; None if there is none."""
        found = [
            (outcome.sequence, outcome.success, outcome.at, outcome.model)
            for outcome in self.calls.values()
            if outcome.is_available
        ]
        if not found:
            return None
        sequence, _, _, model = max(found)
        return model, sequence


class RecentRequests(Generic[_Note]):
    """The last requests, by id.

    Args:
        most: Requests that are remembered.
        most_early: Feedback that is kept without its request.

    Attributes:
        ignored: Feedback whose request was not heard of.
    """

    def __init__(self, most: int = MOST_REQUESTS, most_early: int = MOST_EARLY) -> None:
        self.ignored = 0
        self._most = most
        self._most_early = most_early
        self._requests: OrderedDict[str, HeardRequest[_Note]] = OrderedDict()
        self._early: OrderedDict[str, Feedback] = OrderedDict()

    def __len__(self) -> int:
        return len(self._requests)

    def hear_outcome(self, outcome: ModelOutcome) -> HeardRequest[_Note] | None:
        """An outcome came; its request, or None if it was heard before."""
        request = self._requests.get(outcome.request_id)
        key = (outcome.model, outcome.sequence)
        if request is None:
            request = self._requests[outcome.request_id] = HeardRequest()
            request.feedback = self._early.pop(outcome.request_id, None)
            if len(self._requests) > self._most:
                self._requests.popitem(last=False)
        elif key in request.calls:
            return None
        request.calls[key] = outcome
        return request

    def hear_feedback(self, feedback: Feedback) -> HeardRequest[_Note] | None:
        """Feedback came; its request if it says something new of one that is remembered."""
        request = self._requests.get(feedback.request_id)
        if request is not None:
            newer = _newer(request.feedback, feedback)
            if newer is request.feedback:
                return None
            request.feedback = newer
            return request
        self._early[feedback.request_id] = _newer(self._early.get(feedback.request_id), feedback)
        if len(self._early) > self._most_early:
            self._early.popitem(last=False)
            self.ignored += 1
        return None

    def forget_before(self, at: float) -> None:
        """Feedback that is older waits for its request no longer."""
        late = [request_id for request_id, feedback in self._early.items() if feedback.at < at]
        for request_id in late:
            del self._early[request_id]
        self.ignored += len(late)


def success_of(outcome: ModelOutcome) -> float:
    """How well a model did, 0 to 1, as far as the outcome itself tells."""
    return float(outcome.success) if outcome.score is None else clamp(outcome.score)


def clamp(score: float) -> float:
    """A score as one from 0 to 1; 0 if it is no number."""
    return min(1.0, max(0.0, score))


def _newer(old: Feedback | None, new: Feedback) -> Feedback:
    """The one that counts, the same one in whichever order they came."""
    if old is None or _rank(new) > _rank(old):
        return new
    return old


def _rank(feedback: Feedback) -> tuple[bool, float, str, float, str]:
    """A person's word goes before that of a model; else the last word counts."""
    return feedback.by != JUDGE, feedback.at, feedback.by, feedback.score, feedback.comment
