"""`/api/feedback`: what somebody says of an answer."""

import time
from typing import Final

from gatewright.accounting.outcomes import Feedback
from gatewright.configuration.reader import real_number
from gatewright.errors import InvalidRequest, NotFound
from gatewright_host.management.answering import Document, Reply, expect_members, read_object, text_of
from gatewright_host.management.asking import Asking
from gatewright_host.store.vocabulary import StoredRequest

_MEMBERS: Final = ("request_id", "success", "score", "comment")
_LONGEST_COMMENT: Final = 10_000
_WRITTEN_WITHIN_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.25
_OURS: Final = "req_"


def take(asked: Asking) -> Reply:
    """Keep what is said; what was said before of the same answer no longer counts."""
    document = read_object(asked.body)
    expect_members(document, _MEMBERS)
    request_id = text_of(document, "request_id")
    comment = text_of(document, "comment", "")[:_LONGEST_COMMENT]
    score = _score(document)
    found = _find(asked, request_id)
    # Whether somebody else's request exists is nobody's business.
    is_theirs = (
        asked.key is not None
        and not asked.key.is_admin
        and (found and found.record.key_id) != asked.key.key_id
    )
    if found is None or is_theirs:
        raise NotFound(
            f"There is no request {request_id[:100]!r}; its id is in the x-request-id of its answer",
            param="request_id",
        )
    asked.store.add_feedback(Feedback(request_id=request_id, score=score, at=time.time(), comment=comment))
    metrics = asked.find_office().metrics
    if metrics is not None:
        metrics.observe_feedback(found.record.model, score)
    return Reply(
        document={"object": "feedback", "request_id": request_id, "score": score, "comment": comment}
    )


def _score(document: Document) -> float:
    success, score = document.get("success"), document.get("score")
    if (success is None) == (score is None):
        raise InvalidRequest("Say either 'success' (true or false) or 'score' (from 0 to 1)", param="score")
    if success is not None:
        if not isinstance(success, bool):
            raise InvalidRequest("success: expected true or false", param="success")
        return float(success)
    number = real_number(score)
    if number is None or not 0 <= number <= 1:
        raise InvalidRequest("score: expected a number from 0 to 1", param="score")
    return number


def _find(asked: Asking, request_id: str) -> StoredRequest | None:
    """The request. It is written down a moment after its answer, maybe by another process: who is quick has to wait."""
    keeper = asked.find_office().keeper
    found = keeper.store.find_request(request_id)
    if found is not None or not request_id.startswith(_OURS):
        return found
    end = time.monotonic() + _WRITTEN_WITHIN_S
    keeper.flush(_WRITTEN_WITHIN_S)
    while (found := keeper.store.find_request(request_id)) is None and time.monotonic() < end:
        time.sleep(_LOOK_AGAIN_S)
    return found
