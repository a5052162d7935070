"""The paths that a job needs for itself, and the names that each storage has for them."""

from collections.abc import Iterator, Mapping

from models import JobRow
from models.queries import Hold
from worker.driver import Driver
from worker.errors import InvalidPathError


def holds_of(job: JobRow, drivers: Mapping[str, Driver]) -> list[Hold]:
    """The paths that the job needs. Paths that it cannot reach are left out, since the run will fail on them."""
    found = {}
    for storage, path in _paths(job):
        driver = drivers.get(storage)
        if driver is None:  # not configured on this worker
            continue
        try:
            hold = _hold(driver, path, drivers, is_tree=job.operation == "delete")
        except InvalidPathError:  # the key is too long
            continue
        found[hold.bucket, hold.key] = hold
    return list(found.values())


def _paths(job: JobRow) -> Iterator[tuple[str, str]]:
    request = job.request or {}
    yield request.get("dest_storage") or job.storage, str(job.path)
    if job.operation == "move":
        yield job.storage, request["source_path"]


def _hold(driver: Driver, path: str, drivers: Mapping[str, Driver], *, is_tree: bool) -> Hold:
    key = driver.key(path)
    names = {}
    for name, other in drivers.items():
        shares_bucket = _bucket(other) == _bucket(driver)
        if shares_bucket and (known_as := _path_below(other.root, key, is_tree=is_tree)) is not None:
            names[name] = known_as
    return Hold(_bucket(driver), key, is_tree, names)


def _bucket(driver: Driver) -> str:
    return driver.store.identity[-512:]  # the width of the column; identities differ at their end


def _path_below(root: str, key: str, *, is_tree: bool) -> str | None:
    """The path of a key below a root directory; None if it lies outside, "" for a tree that contains the root."""
    prefix = f"{root}/" if root else ""
    if key.startswith(prefix):
        return "/" + key[len(prefix) :]
    return "" if is_tree and prefix.startswith(f"{key}/") else None
