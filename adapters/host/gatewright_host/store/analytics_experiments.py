"""The outcomes of experiments, as the core counts them."""

from collections.abc import Iterator
from heapq import merge
from typing import Final

from sqlalchemy import func, select

from gatewright.accounting.experiment_book import ExperimentBook
from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright_host.store import tables
from gatewright_host.store.analytics_sql import Readable, patient
from gatewright_host.store.reading import to_feedback, to_outcome

_PORTION: Final = 5000


def experiment_book(store: Readable, experiment: str) -> ExperimentBook:
    """What came of one experiment, from all of its outcomes that are kept and what was said of them, in their order.

    Args:
        store: Where they are.
        experiment: Its name.
    """
    outcomes, feedback = tables.outcomes, tables.feedback
    mine = outcomes.c.experiment == experiment
    calls = select(outcomes).where(mine).order_by(outcomes.c.at_s, outcomes.c.id)
    said = (
        select(feedback)
        .where(feedback.c.request_id.in_(select(outcomes.c.request_id).where(mine)))
        .order_by(feedback.c.at_s, feedback.c.id)
    )
    with patient(store) as connection:
        opinions: list[ModelOutcome | Feedback] = [to_feedback(row) for row in connection.execute(said)]
        # Whatever somebody may still say is remembered until it comes: late feedback counts as any other.
        number = connection.scalar(select(func.count()).select_from(outcomes).where(mine)) or 0
        book = ExperimentBook(most_requests=max(1, number))
        rows = connection.execution_options(yield_per=_PORTION).execute(calls)
        heard: Iterator[ModelOutcome | Feedback] = (to_outcome(row) for row in rows)
        for fact in merge(heard, opinions, key=lambda fact: fact.at):
            match fact:
                case ModelOutcome():
                    book.learn(fact)
                case Feedback():
                    book.take_feedback(fact)
    return book
