"""The paths that a job needs, and the names that each storage has for them."""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from blobferry.checks.source_urls import blob_path
from blobferry.sealing import Sealer
from models import ClaimedJob
from models.queries import Hold
from worker.driver import Driver
from worker.errors import BlobferryError, InvalidPathError

_NO_KEYS: Final = Sealer()


def holds_of(job: ClaimedJob, drivers: Mapping[str, Driver], sealer: Sealer = _NO_KEYS) -> list[Hold]:
    """The paths that the job needs. Paths that it cannot reach are left out, since the run will fail on them.

    What it only reads it shares with other readers. ``sealer`` opens a sealed source.
    """
    found: dict[tuple[str, str], Hold] = {}
    for storage, path, is_shared in (*_read_paths(job, sealer), *_written_paths(job)):
        driver = drivers.get(storage)
        if driver is None:  # not configured on this worker
            continue
        try:
            hold = _hold(driver, path, drivers, is_tree=job.operation == "delete", is_shared=is_shared)
        except InvalidPathError:  # the key is too long
            continue
        found[hold.bucket, hold.key] = hold  # a path that is read and written is needed exclusively
    return list(found.values())


def written_hold(storage: str, path: str, drivers: Mapping[str, Driver]) -> Hold | None:
    """The one path that a job needs that only writes a blob; None if this worker has no such path."""
    driver = drivers.get(storage)
    if driver is None:
        return None
    try:
        return _hold(driver, path, drivers, is_tree=False, is_shared=False)
    except InvalidPathError:
        return None


def _written_paths(job: ClaimedJob) -> Iterator[tuple[str, str, bool]]:
    request = job.request or {}
    if job.operation != "read_stream":
        yield request.get("dest_storage") or job.storage, str(job.path), False
    if job.operation == "move":
        yield job.storage, request["source_path"], False


def _read_paths(job: ClaimedJob, sealer: Sealer) -> Iterator[tuple[str, str, bool]]:
    if job.operation == "read_stream":
        yield job.storage, str(job.path), True
    try:
        url = urlsplit(sealer.opened((job.request or {}).get("source") or ""))
    except BlobferryError:  # the run will fail on it
        return
    if url.scheme == "blob":
        yield url.netloc, blob_path(url), True


def _hold(driver: Driver, path: str, drivers: Mapping[str, Driver], *, is_tree: bool, is_shared: bool) -> Hold:
    key = driver.key(path)
    names = {}
    for name, other in drivers.items():
        shares_bucket = _bucket(other) == _bucket(driver)
        if shares_bucket and (known_as := _path_below(other.root, key, is_tree=is_tree)) is not None:
            names[name] = known_as
    return Hold(_bucket(driver), key, is_tree, names, is_shared)


def _bucket(driver: Driver) -> str:
    return driver.store.identity[-512:]  # the width of the column; identities differ at their end


def _path_below(root: str, key: str, *, is_tree: bool) -> str | None:
    """The path of a key below a root directory; None if it lies outside, "" for a tree that contains the root."""
    prefix = f"{root}/" if root else ""
    if key.startswith(prefix):
        return "/" + key[len(prefix) :]
    return "" if is_tree and prefix.startswith(f"{key}/") else None
