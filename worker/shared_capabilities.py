"""What one process sees a store lack, the others need not find out: it goes through SQL."""

import logging
from collections.abc import Iterable

from models import Database, queries
from worker.errors import UnreachableError
from worker.stores.capabilities import Capability
from worker.stores.store import Store

logger = logging.getLogger(__name__)

_NAMES = {capability.value for capability in Capability}


def share_capabilities(database: Database, stores: Iterable[Store]) -> None:
    """Take over what is known of the stores, and save what is seen from now on. Raises UnreachableError."""
    for store in stores:
        with database.begin() as session:
            names = queries.missing_capabilities(session, store.identity)
        known = [Capability(name) for name in names & _NAMES]  # a newer worker may know more
        store.capabilities.share(known, _Noting(database, store.identity))


class _Noting:
    """Saves what one store is seen to lack."""

    def __init__(self, database: Database, identity: str) -> None:
        self._database = database
        self._identity = identity

    def __call__(self, capability: Capability, reason: str) -> None:
        try:
            with self._database.begin() as session:
                queries.note_missing_capability(session, self._identity, capability, reason)
        except UnreachableError as error:  # the others find it out by themselves
            logger.warning("capability not saved", extra={"capability": capability, "reason": str(error)})
