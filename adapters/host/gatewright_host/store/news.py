"""What others have written since somebody last looked."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, func, select

from gatewright_host.store.reading import to_feedback, to_outcome
from gatewright_host.store.tables import feedback, outcomes, revisions
from gatewright_host.store.vocabulary import Cursor, News, Stream

MODELS: Final = "models"
KEYS: Final = "keys"
EXPERIMENTS: Final = "experiments"
TOPICS: Final = (MODELS, KEYS, EXPERIMENTS)
MOST_OF_EXPERIMENTS: Final = 100_000
"""Outcomes of experiments that are told at the beginning besides the latest of all."""
_PORTION: Final = 5000
_MARKS: Final = 32


def first(connection: Connection, most_outcomes: int, now_s: float) -> News:
    """Where to begin; see `Store.first_news`."""
    latest = connection.execute(select(outcomes).order_by(outcomes.c.id.desc()).limit(most_outcomes)).all()
    # An experiment's verdict is on all of it, however long ago it began.
    of_experiments = select(outcomes).where(outcomes.c.experiment.is_not(None))
    if latest:
        of_experiments = of_experiments.where(outcomes.c.id < latest[-1].id)
    earlier = connection.execute(
        of_experiments.order_by(outcomes.c.id.desc()).limit(MOST_OF_EXPERIMENTS)
    ).all()
    rows = [*reversed(earlier), *reversed(latest)]
    said = []
    if rows:
        oldest_s = min(row.at_s for row in rows)
        known = {row.request_id for row in rows}
        # Nobody judges an answer before it is there.
        found = connection.execute(
            select(feedback)
            .where(feedback.c.at_s >= oldest_s - 1)
            .order_by(feedback.c.id.desc())
            .limit(max(most_outcomes, len(rows)))
        ).all()
        said = [row for row in reversed(found) if row.request_id in known]
    return News(
        outcomes=tuple([to_outcome(row) for row in rows]),
        feedback=tuple([to_feedback(row) for row in said]),
        models_changed=True,
        keys_changed=True,
        experiments_changed=True,
        cursor=Cursor(
            outcomes=_start(connection, outcomes, now_s),
            feedback=_start(connection, feedback, now_s),
            revisions=_revisions(connection),
        ),
    )


def since(connection: Connection, cursor: Cursor, me: str, now_s: float, overlap_s: float) -> News:
    """What is new; see `Store.news`.

    Args:
        connection: In a transaction.
        cursor: Where to go on.
        me: Owner whose own outcomes are no news.
        now_s: Unix time.
        overlap_s: So long after others a row may become visible that has a lower id.
    """
    new_outcomes, outcomes_stream = _follow(
        connection,
        outcomes,
        cursor.outcomes,
        now_s=now_s,
        overlap_s=overlap_s,
        wanted=outcomes.c.writer != me,
    )
    new_feedback, feedback_stream = _follow(
        connection, feedback, cursor.feedback, now_s=now_s, overlap_s=overlap_s
    )
    present = _revisions(connection)
    changed = {topic for topic in TOPICS if present.get(topic) != cursor.revisions.get(topic)}
    return News(
        outcomes=tuple([to_outcome(row) for row in new_outcomes]),
        feedback=tuple([to_feedback(row) for row in new_feedback]),
        models_changed=MODELS in changed,
        keys_changed=KEYS in changed,
        experiments_changed=EXPERIMENTS in changed,
        cursor=Cursor(outcomes=outcomes_stream, feedback=feedback_stream, revisions=present),
    )


def _revisions(connection: Connection) -> dict[str, int]:
    return {row.topic: row.revision for row in connection.execute(select(revisions))}


def _start(connection: Connection, table: Table, now_s: float) -> Stream:
    # Rows that become visible out of order around this moment are rare, and each is one outcome of thousands.
    last = connection.execute(select(func.max(table.c.id))).scalar() or 0
    return Stream(floor=last, marks=((now_s, last),))


def _follow(
    connection: Connection,
    table: Table,
    stream: Stream,
    *,
    now_s: float,
    overlap_s: float,
    wanted: ColumnElement[bool] | None = None,
) -> tuple[list[Any], Stream]:
    """Rows that were not read before, and how far the table is read then.

    PostgreSQL gives ids before it commits, so that a lower one may become visible after a higher one: what is above the
    floor is read again and again, and the floor follows as late as `overlap_s` says.
    """
    last = max(connection.execute(select(func.max(table.c.id))).scalar() or 0, stream.floor)
    most = _PORTION + len(stream.seen)
    query = select(table).where(table.c.id > stream.floor, table.c.id <= last)
    if wanted is not None:  # here, since a busy process would else read back all that it writes
        query = query.where(wanted)
    found = connection.execute(query.order_by(table.c.id).limit(most)).all()
    new = [row for row in found if row.id not in stream.seen]
    if len(found) == most:
        last = found[-1].id
    marks = stream.marks
    if overlap_s and len(marks) > 1 and now_s - marks[-2][0] < overlap_s / _MARKS:
        # Marks of one moment are one mark, so that there is a bound to their number.
        marks = marks[:-1]
    marks = (*marks, (now_s, last))
    floor = max((mark for at_s, mark in marks if at_s <= now_s - overlap_s), default=stream.floor)
    floor = max(floor, stream.floor)
    kept = tuple([(at_s, mark) for at_s, mark in marks if mark > floor or at_s > now_s - overlap_s])
    seen = frozenset(row.id for row in found if row.id > floor)
    return new, Stream(floor=floor, seen=seen, marks=kept)
