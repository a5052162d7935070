"""What stores were seen to lack, for all processes, for 30 days."""

from sqlalchemy import update

from models import Database, queries
from models.capability import CapabilityRow
from models.queries.store_capabilities import VALID_FOR
from tests.doubles import tiny_store
from tests.models.rows import ago
from worker.driver import Driver
from worker.runtime import share_capabilities
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.memory.memory_store import MemoryStore


def unknown_store() -> MemoryStore:
    """A store of which nothing is known; all of these are one."""
    store = tiny_store()
    store.identity = "https://store/bucket"
    store.capabilities = Capabilities()
    return store


def missing(database: Database, store: str) -> set[str]:
    with database.begin() as session:
        return queries.missing_capabilities(session, store)


def test_another_process_knows_what_one_has_seen(database: Database) -> None:
    first, other = unknown_store(), unknown_store()
    share_capabilities(database, [Driver(first)])
    first.capabilities.miss(Capability.TAGGING, reason="501")
    share_capabilities(database, [Driver(other)])
    assert other.capabilities.missing == {Capability.TAGGING}
    assert missing(database, "https://another/bucket") == set()


def test_after_30_days_it_is_found_out_anew(database: Database) -> None:
    store = unknown_store()
    share_capabilities(database, [Driver(store)])
    store.capabilities.miss(Capability.TAGGING, reason="501")
    with database.begin() as session:
        session.execute(update(CapabilityRow).values(seen_at=ago(VALID_FOR + 60)))
    assert missing(database, store.identity) == set()
    with database.begin() as session:
        queries.note_missing_capability(session, store.identity, "tagging", "501")
    assert missing(database, store.identity) == {"tagging"}


def test_a_capability_of_a_newer_worker_is_ignored(database: Database) -> None:
    store = unknown_store()
    with database.begin() as session:
        queries.note_missing_capability(session, store.identity, "telepathy", "501")
    share_capabilities(database, [Driver(store)])
    assert store.capabilities.missing == frozenset()
