"""Reading what was written down, and what people say of it."""

from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.recent import JUDGE
from gatewright.api.facts import Usage
from gatewright.commands import Outcome, RecordRequest
from gatewright.errors import FailedAttempt, Problem
from gatewright.ids import RequestId
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.decision import Decision
from gatewright_host.store.records import clean
from gatewright_host.store.tables import NANO, feedback, outcomes, requests
from gatewright_host.store.vocabulary import Missing, StoredRequest


def find_request(connection: Connection, request_id: str) -> StoredRequest | None:
    """A request with its outcomes and feedback; see `Store.find_request`."""
    row = connection.execute(select(requests).where(requests.c.request_id == request_id)).first()
    if row is None:
        return None
    tried = connection.execute(
        select(outcomes).where(outcomes.c.request_id == request_id).order_by(outcomes.c.id)
    )
    said = connection.execute(
        select(feedback).where(feedback.c.request_id == request_id).order_by(feedback.c.id)
    )
    return StoredRequest(
        record=_record(row, tuple([to_outcome(each) for each in tried])),
        at_s=row.at_s,
        prompt=row.prompt,
        feedback=tuple([to_feedback(each) for each in said]),
    )


def add_feedback(connection: Connection, said: Feedback) -> None:
    """Keep feedback; see `Store.add_feedback`. What a person says of a request counts before what a judge does."""
    this = requests.c.request_id == said.request_id
    if connection.execute(select(requests.c.request_id).where(this)).first() is None:
        raise Missing(f"no request {said.request_id!r} was written down")
    by_people = select(feedback.c.id).where(feedback.c.request_id == said.request_id, feedback.c.by != JUDGE)
    if said.by != JUDGE or connection.execute(by_people.limit(1)).first() is None:
        connection.execute(update(requests).where(this).values(feedback_score=said.score))
    connection.execute(
        insert(feedback).values(
            request_id=said.request_id,
            at_s=said.at,
            score=said.score,
            by=clean(said.by),
            comment=clean(said.comment),
        )
    )


def to_outcome(row: Any) -> ModelOutcome:
    """A row of `outcomes`; `at` is a Unix time."""
    return ModelOutcome(
        request_id=row.request_id,
        model=row.model,
        success=row.success,
        at=row.at_s,
        task=row.task,
        complexity=None if row.complexity is None else TaskComplexity(row.complexity),
        latency_ms=row.latency_ms,
        first_token_ms=row.first_token_ms,
        completion_tokens=row.completion_tokens,
        cost_usd=row.cost_nano / NANO,
        score=row.score,
        is_available=row.is_available,
        propensity=row.propensity,
        experiment=row.experiment,
        arm=row.arm,
        sequence=row.sequence,
        unit=row.unit,
    )


def to_feedback(row: Any) -> Feedback:
    """A row of `feedback`; `at` is a Unix time."""
    return Feedback(request_id=row.request_id, score=row.score, at=row.at_s, by=row.by, comment=row.comment)


def _record(row: Any, tried: tuple[ModelOutcome, ...]) -> RecordRequest:
    usage = None
    if row.prompt_tokens is not None:
        usage = Usage(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            cached_tokens=row.cached_tokens,
        )
    return RecordRequest(
        request_id=RequestId(row.request_id),
        outcome=Outcome(row.outcome),
        path=row.path,
        model=row.model,
        context_tokens=row.context_tokens,
        status=row.status,
        attempts=row.attempts,
        wait_s=row.wait_s,
        first_byte_s=row.first_byte_s,
        total_s=row.total_s,
        usage=usage,
        finish_reason=row.finish_reason,
        problem=_from_json(row.problem_json, Problem),
        failed_attempts=_from_json(row.failed_attempts_json, tuple[FailedAttempt, ...]) or (),
        route=row.route,
        decision=_from_json(row.decision_json, Decision),
        task=row.task,
        complexity=None if row.complexity is None else TaskComplexity(row.complexity),
        key_id=row.key_id,
        user=row.user,
        estimated_cost_usd=row.estimated_cost_nano / NANO,
        cost_usd=row.cost_nano / NANO,
        outcomes=tried,
        select_s=row.select_s,
    )


def _from_json(text: str | None, kind: Any) -> Any:
    return None if text is None else msgspec.json.decode(text, type=kind)
