"""Writing down what came of requests."""

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from attrs import frozen
from sqlalchemy import Connection, select

from gatewright.accounting.outcomes import ModelOutcome
from gatewright.commands import RecordRequest
from gatewright_host.store import ledger, limits
from gatewright_host.store.tables import outcomes, requests
from gatewright_host.store.upserts import insert_many
from gatewright_host.store.vocabulary import Written

_AT_A_TIME: Final = 10
_ASIDE_S: Final = 0.0002
_MOST: Final = 2**62
"""Largest number of tokens that is written: upstreams may say what they like."""


@frozen
class Rows:
    """A request as the tables are to have it.

    Attributes:
        written: The request.
        request: Its row.
        outcomes: Those of what came of it.
    """

    written: Written
    request: dict[str, object]
    outcomes: list[dict[str, object]]


def rows_of(written: Sequence[Written], writer: str) -> list[Rows]:
    """What is to be written; made before the transaction, which others wait for.

    Now and then it stands aside for a moment: requests are served by other threads of this process, and would else wait
    for this one with each of their system calls.

    Args:
        written: The requests.
        writer: Id of the owner that writes.
    """
    rows = []
    for number, each in enumerate(written, 1):
        outcome_rows = [_outcome_row(each, outcome, writer) for outcome in each.record.outcomes]
        rows.append(Rows(each, _request_row(each, writer), outcome_rows))
        if number % _AT_A_TIME == 0:
            time.sleep(_ASIDE_S)
    return rows


def write(connection: Connection, rows: Sequence[Rows]) -> None:
    """Write requests down and settle them; those that were written before only lose what they have reserved.

    Args:
        connection: In a transaction.
        rows: The requests.
    """
    by_id = {each.written.record.request_id: each for each in rows}
    if not by_id:
        return
    # Nobody else writes these meanwhile: a record has one writer at a time, and what is spooled goes through its lock.
    known = select(requests.c.request_id).where(requests.c.request_id.in_(by_id))
    present = set(connection.execute(known).scalars())
    new_rows = [each for request_id, each in by_id.items() if request_id not in present]
    insert_many(connection, requests, [each.request for each in new_rows])
    insert_many(connection, outcomes, [outcome for each in new_rows for outcome in each.outcomes])
    new = [each.written for each in new_rows]
    ledger.settle(
        connection,
        [
            ledger.Settlement(
                charge=charge,
                at_s=each.at_s,
                amount_nano=ledger.to_nano(each.record.charged_usd[charge.account]),
                tokens=_tokens(each.record),
            )
            for each in new
            for charge in each.record.charges
            if charge.account in each.record.charged_usd
        ],
        list(by_id),
    )
    for each in new:
        if each.record.key_id is not None and (each.record.usage is not None or not each.record.attempts):
            limits.correct(connection, each.record.request_id, _tokens(each.record))


def clean(value: str) -> str:
    """The text as every database takes it: without NUL, and without what UTF-8 cannot carry."""
    if "\0" in value:
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def to_json(value: object) -> str:
    """Plain values and attrs classes as JSON."""
    try:
        text = msgspec.json.encode(value)
    except UnicodeEncodeError:
        text = msgspec.json.encode(_cleaned(msgspec.to_builtins(value)))
    return text.decode("utf-8")


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {_cleaned(name): _cleaned(each) for name, each in value.items()}
        case list() | tuple():
            return [_cleaned(each) for each in value]
        case _:
            return value


def _text(value: str | None) -> str | None:
    return None if value is None else clean(value)


def _count(value: int | None) -> int | None:
    return None if value is None else max(min(value, _MOST), -_MOST)


def _tokens(record: RecordRequest) -> int:
    if record.usage is None:
        return 0
    tokens = max(record.usage.prompt_tokens, 0) + max(record.usage.completion_tokens, 0)
    return min(tokens, _MOST // 2**20)


def _request_row(written: Written, writer: str) -> dict[str, object]:
    record = written.record
    usage, decision, problem = record.usage, record.decision, record.problem
    return {
        "request_id": record.request_id,
        "at_s": written.at_s,
        "writer": writer,
        "path": clean(record.path),
        "outcome": record.outcome.value,
        "status": record.status,
        "route": _text(record.route),
        "model": _text(record.model),
        "chosen": None if decision is None else clean(decision.chain[0]),
        "task": clean(record.task),
        "key_id": _text(record.key_id),
        "user": _text(record.user),
        "context_tokens": _count(record.context_tokens),
        "attempts": record.attempts,
        "failed": len(record.failed_attempts),
        "wait_s": record.wait_s,
        "first_byte_s": record.first_byte_s,
        "total_s": record.total_s,
        "select_s": record.select_s,
        "prompt_tokens": None if usage is None else _count(usage.prompt_tokens),
        "completion_tokens": None if usage is None else _count(usage.completion_tokens),
        "cached_tokens": None if usage is None else _count(usage.cached_tokens),
        "finish_reason": _text(record.finish_reason),
        "estimated_cost_nano": ledger.to_nano(record.estimated_cost_usd),
        "cost_nano": ledger.to_nano(record.cost_usd),
        "complexity": None if record.complexity is None else record.complexity.value,
        "complexity_score": None if decision is None else decision.complexity_score,
        "estimator": None if decision is None else clean(decision.estimator),
        "experiment": None if decision is None else _text(decision.experiment),
        "arm": None if decision is None else _text(decision.arm),
        "problem_kind": None if problem is None else problem.kind,
        "feedback_score": None,
        "decision_json": None if decision is None else to_json(decision),
        "problem_json": None if problem is None else to_json(problem),
        "failed_attempts_json": to_json(record.failed_attempts) if record.failed_attempts else None,
        "prompt": _text(written.prompt),
    }


def _outcome_row(written: Written, outcome: ModelOutcome, writer: str) -> dict[str, object]:
    return {
        "request_id": outcome.request_id,
        "writer": writer,
        "at_s": written.gateway_epoch_s + outcome.at,
        "model": clean(outcome.model),
        "success": outcome.success,
        "task": clean(outcome.task),
        "complexity": None if outcome.complexity is None else outcome.complexity.value,
        "latency_ms": outcome.latency_ms,
        "first_token_ms": outcome.first_token_ms,
        "completion_tokens": _count(outcome.completion_tokens),
        "cost_nano": ledger.to_nano(outcome.cost_usd),
        "score": outcome.score,
        "is_available": outcome.is_available,
        "propensity": outcome.propensity,
        "experiment": _text(outcome.experiment),
        "arm": _text(outcome.arm),
        "sequence": outcome.sequence,
        "unit": _text(outcome.unit),
        "route": _text(written.record.route),
        "key_id": _text(written.record.key_id),
    }
