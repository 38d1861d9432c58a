"""Conversations that we keep, since their provider does not: entries in the words of its protocol, in order."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, delete, select

from worker.models import Item as Row
from worker.response import Item
from worker.store.held import Hold

_OF = select(Row.item).where(Row.conversation_id == bindparam("conversation")).order_by(Row.id)


def of(connection: Connection, conversation: str) -> list[Item]:
    """Return the items of a conversation."""
    return list(connection.execute(_OF, {"conversation": conversation}).scalars())


def keep(hold: Hold, conversation: str | None, items: Iterable[Item]) -> None:
    """Append to a conversation."""
    for item in items:
        hold.writes.insert(Row, {"conversation_id": conversation, "item": item})


def forget(connection: Connection, conversations: Iterable[str]) -> None:
    """Delete the items of these conversations."""
    connection.execute(delete(Row).where(Row.conversation_id.in_(list(conversations))))
