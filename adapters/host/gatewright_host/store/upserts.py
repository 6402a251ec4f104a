"""Insertions that say what happens to rows that are there already: both databases have them, SQL has not."""

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

Insertion = postgresql.Insert | sqlite.Insert


def insertion(connection: Connection, table: Table) -> Insertion:
    """An insertion into a table, in the words of the connection's database."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
