"""Runs the migrations on the connection that worker.store.migrating gives; there is no other way in."""

from alembic import context

from worker.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
