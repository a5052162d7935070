"""Where probes put their blobs: at one place of a storage, under names that say when, so that leftovers are found."""

import re
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from worker.stores.store import Store

DIRECTORY: Final = ".blobferry-probe"  #: below the root of a storage, as credentials may permit no other place
_TIME: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{32}")


def probe_prefix(store: Store) -> str:
    """What the keys of all probes of the store's storage begin with."""
    root = store.capabilities.probes_below
    return f"{root}/{DIRECTORY}/" if root else f"{DIRECTORY}/"


def new_probe_key(store: Store) -> str:
    """A key that nobody else has."""
    return f"{probe_prefix(store)}{datetime.now(UTC):{_TIME}}-{uuid4().hex}"


def probed_at(store: Store, key: str) -> datetime | None:
    """When the probe that made this key began, by its own machine's clock; None if the key is not a probe's.

    The name is asked and not the store's date of the blob, which some stores do not show, for uploads least of all.
    """
    found = _NAME.fullmatch(key.removeprefix(probe_prefix(store)))
    try:
        return datetime.strptime(found[1], _TIME).replace(tzinfo=UTC) if found else None
    except ValueError:  # fourteen digits that are no time
        return None
