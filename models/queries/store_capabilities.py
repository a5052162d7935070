"""What stores lack, as any process has seen it."""

from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from blobferry.redaction import cleaned
from blobferry.sql.clock import db_now
from models.capability import CapabilityRow
from models.queries.conditions import dialect

#: Seconds after which it is found out anew: a store may have been updated.
VALID_FOR: Final = 30 * 24 * 3600.0


def missing_capabilities(session: Session, store: str) -> set[str]:
    """The names of what the store with this identity was seen to lack within the last 30 days."""
    lately = (CapabilityRow.store == store, CapabilityRow.seen_at > db_now(-VALID_FOR))
    return set(session.scalars(select(CapabilityRow.capability).where(*lately)))


def note_missing_capability(session: Session, store: str, capability: str, reason: str) -> None:
    """Save that the store lacks it. Safe to repeat."""
    seen = {"reason": cleaned(reason), "seen_at": db_now()}
    statement = dialect(session).insert(CapabilityRow).values(store=store, capability=capability, **seen)
    session.execute(statement.on_conflict_do_update(index_elements=["store", "capability"], set_=seen))
