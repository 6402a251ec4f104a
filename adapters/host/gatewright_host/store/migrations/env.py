"""Run by alembic; `migrating.migrate` hands over the connection, within its transaction."""

from alembic import context

from gatewright_host.store.migrating import VERSION_TABLE
from gatewright_host.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
