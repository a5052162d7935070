"""``python -m worker doctor``: what works here, and what is not guaranteed, found out by really trying.

It writes to the storages: small blobs, and one of a part and a bit, below ``/.blobferry-doctor-<random>``, which are
gone again when it ends. In a versioned bucket their old versions stay, as those of any deleted blob do.
"""

import secrets
from collections.abc import Iterator

from worker.doctor.findings import Finding, exit_status, told, told_as_json
from worker.doctor.guarantees import examine_store
from worker.doctor.surroundings import examine_broker, examine_database, examine_file_roots
from worker.driver import Driver
from worker.runtime import Runtime

__all__ = ["Finding", "examine", "examine_storage", "exit_status", "told", "told_as_json"]


def examine(runtime: Runtime) -> list[Finding]:
    """Look at everything that the settings name. Raises nothing that a finding can say."""
    settings = runtime.settings
    findings = [*examine_database(runtime.database), *examine_broker(settings), *examine_file_roots(settings)]
    if not settings.storages:
        findings.append(Finding("storages", "configured", "broken", "there is none: nothing can be read or written"))
    for name in settings.storages:
        findings += examine_storage(name, runtime.driver(name))
    return findings


def examine_storage(name: str, driver: Driver) -> Iterator[Finding]:
    """Try everything out on one storage."""
    where = f"storage {name}"
    yield Finding(where, "configured", "ok", _described(driver))
    if driver.store.name == "memory":
        yield Finding(where, "shared", "broken", "a worker cannot serve from memory: its children share none")
    yield from examine_store(driver.store, driver.key(f"/.blobferry-doctor-{secrets.token_hex(8)}"), where)


def _described(driver: Driver) -> str:
    store = driver.store
    at = f" at {store.endpoint}" if store.endpoint else ""
    return f"{store.name}, bucket {store.bucket}{at}, checksum {store.checksum}"
