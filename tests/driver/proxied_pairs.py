"""ProxiedPairs: drivers that talk to the one S3 server through a fault proxy each, so that many cases run at once.

A case waits most of its time, for a timeout or for another try; a dozen of them at once keep two cores busy.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import count
from queue import SimpleQueue
from typing import Any, Final

from dev.proxies.s3_faults import FaultProxy, fault_proxy
from dev.services import S3Service
from tests.doubles import WrappedStore
from tests.s3_stores import s3_store
from worker.driver import Driver
from worker.stores.blob_values import Limits, UploadEntry
from worker.stores.capabilities import Capability
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import Copying

MIN = 256  #: bytes; the least that a part may have which is not the last
PART = 512  #: bytes
LIMITS = Limits(min_part_size=MIN)
COPYING = Copying(threshold=2 * PART, part_size=PART, threads=2)
HASTY = 2.5  #: seconds that a client waits which is to run into a timeout
PATIENT = 10.0  #: seconds; the others must not run into one on a busy machine
STALL = 1.2 * HASTY
FAR: Final = "far:"  #: begins the paths of the second bucket
TYPE, METADATA = "text/plain", {"owner": "me"}

State = Mapping[str, str]
"""What lies where, in words: path to size, digest, and whether content type and metadata are those of the old blob."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob of a case. ``kept``: it carries content type and metadata of the blobs that a case begins with."""

    content: bytes
    kept: bool = True

    def __str__(self) -> str:
        digest = hashlib.sha256(self.content).hexdigest()[:8]
        return f"{len(self.content)} bytes {digest}, {'kept' if self.kept else 'plain'}"


class DatingStore(WrappedStore):
    """Dates unfinished uploads, all of which moto says to be of the year 2010."""

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        for entry in self.store.list_uploads(prefix):
            yield replace(entry, opened_at=datetime.now(UTC))


class ProxiedPair:
    """One proxy, two buckets, and drivers on both. Paths of the second begin with FAR."""

    _numbers = count(1)

    def __init__(self, service: S3Service, client: Any, resources: ExitStack, *, read_timeout: float) -> None:
        """``client`` goes past the proxy; any number of pairs may share it."""
        number = next(self._numbers)
        self.service = service
        self.client = client
        self.proxy: FaultProxy = resources.enter_context(fault_proxy(service.endpoint, stall_seconds=STALL))
        self.engine = resources.enter_context(closing(Engine(part_size=PART, part_threads=2)))
        self.roots = count(1)
        self.store = cache(self._store)
        self.buckets = {"": f"pair-{number}", FAR: f"pair-{number}-far"}
        for bucket in self.buckets.values():
            client.create_bucket(Bucket=bucket)
        self._read_timeout = read_timeout

    def drivers(self, root: str, *, attempts: int) -> tuple[Driver, Driver]:
        """Drivers on both buckets; ``attempts`` of each request."""
        stores = (self.store(side, attempts) for side in self.buckets)
        near, far = (Driver(store, root=root, engine=self.engine, copying=COPYING) for store in stores)
        return near, far

    def _store(self, side: str, attempts: int) -> Store:
        # A probe would leave its blob where deletes are not permitted, and its requests would count among the faults.
        settings: dict[str, Any] = {"read_timeout": self._read_timeout, "max_attempts": attempts, "limits": LIMITS}
        settings["confirmed"] = [Capability.COPY_OPTIONS, Capability.METADATA]
        store = s3_store(replace(self.service, endpoint=self.proxy.endpoint), self.buckets[side], **settings)
        return DatingStore(store) if self.service.access_key == "moto" else store

    # --- around the driver and the proxy ---------------------------------------------------------------------------

    def fill(self, root: str, blobs: Mapping[str, bytes]) -> None:
        """Make the blobs that a case begins with."""
        for path, content in blobs.items():
            side = FAR if path.startswith(FAR) else ""
            place = {"Bucket": self.buckets[side], "Key": root + path.removeprefix(side)}
            self.client.put_object(**place, Body=content, ContentType=TYPE, Metadata=METADATA)

    def state(self, root: str, sides: Iterable[str]) -> State:
        """What lies there now."""
        found = {}
        for side in sides:
            listing = self.client.list_objects_v2(Bucket=self.buckets[side], Prefix=f"{root}/")
            for item in listing.get("Contents", []):
                answer = self.client.get_object(Bucket=self.buckets[side], Key=item["Key"])
                kept = (answer["ContentType"], answer["Metadata"]) == (TYPE, METADATA)
                found[side + item["Key"].removeprefix(root)] = str(Blob(answer["Body"].read(), kept))
        return found

    def uploads(self, root: str, sides: Iterable[str]) -> list[str]:
        """The paths of unfinished uploads."""
        return [
            side + item["Key"].removeprefix(root)
            for side in sides
            for item in self.client.list_multipart_uploads(Bucket=self.buckets[side]).get("Uploads", [])
            if item["Key"].startswith(f"{root}/")
        ]


class ProxiedPairs:
    """All pairs of one server, lent to whoever needs one."""

    def __init__(self, service: S3Service, resources: ExitStack, *, patient: int, hasty: int) -> None:
        client = resources.enter_context(closing(service.client()))
        self.count = patient + hasty
        self._free = {is_hasty: SimpleQueue[ProxiedPair]() for is_hasty in (False, True)}
        for is_hasty in [False] * patient + [True] * hasty:
            pair = ProxiedPair(service, client, resources, read_timeout=HASTY if is_hasty else PATIENT)
            self._free[is_hasty].put(pair)

    @contextmanager
    def lend(self, *, hasty: bool = False) -> Iterator[ProxiedPair]:
        """A pair of one's own, as soon as there is one; ``hasty``: its clients run into timeouts."""
        pair = self._free[hasty].get()
        try:
            yield pair
        finally:
            self._free[hasty].put(pair)
