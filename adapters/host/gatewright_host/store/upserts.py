"""Insertions that say what happens to rows that are there already, and those of many rows."""

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite

Insertion = postgresql.Insert | sqlite.Insert


def insertion(connection: Connection, table: Table) -> Insertion:
    """An insertion into a table, in the words of the connection's database: both databases have them, SQL has not."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_many(connection: Connection, table: Table, rows: Sequence[dict[str, object]]) -> None:
    """Insert rows; those that are there already stay as they are.

    The driver gets them as they are: to have SQLAlchemy look at each value of each row takes longer than all else.

    Args:
        connection: In a transaction.
        table: Of numbers, texts and truth values only.
        rows: All with the same columns.
    """
    if not rows:
        return
    text, order = _statement(connection.dialect, table, tuple(rows[0]))
    values: Any = rows if order is None else list(map(itemgetter(*order), rows))
    connection.exec_driver_sql(text, values)


@lru_cache
def _statement(
    dialect: Dialect, table: Table, columns: tuple[str, ...]
) -> tuple[str, tuple[str, ...] | None]:
    """The statement, and the order of its parameters; None if they are named."""
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    compiled = insert(table).on_conflict_do_nothing().compile(dialect=dialect, column_keys=list(columns))
    order = getattr(compiled, "positiontup", None)
    return str(compiled), None if order is None else tuple(order)
