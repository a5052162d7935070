"""Which paths a job needs for itself, and how each storage names them."""

from collections.abc import Iterator, Mapping

from models import JobRow
from models.queries import Hold
from worker.driver import Driver
from worker.errors import InvalidPathError


def holds_of(job: JobRow, drivers: Mapping[str, Driver]) -> list[Hold]:
    """The paths that the job needs. A storage that this worker does not know is left out: the run will fail."""
    found = {}
    for storage, path in _paths(job):
        driver = drivers.get(storage)
        if driver is None:
            continue
        try:
            hold = _hold(driver, path, drivers, is_tree=job.operation == "delete")
        except InvalidPathError:  # the key is too long: the run will fail
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
        if _place(other) == _place(driver) and (known_as := _path(other.root, key, is_tree=is_tree)) is not None:
            names[name] = known_as
    return Hold(_place(driver), key, is_tree, names)


def _place(driver: Driver) -> str:
    return driver.store.identity[-512:]  # the column's width; the end tells buckets apart


def _path(root: str, key: str, *, is_tree: bool) -> str | None:
    """The path of a key below a root directory; None if it lies outside, "" if a tree contains the whole root."""
    prefix = f"{root}/" if root else ""
    if key.startswith(prefix):
        return "/" + key[len(prefix) :]
    return "" if is_tree and prefix.startswith(f"{key}/") else None
