"""``python -m worker doctor``: what works here, and what is not guaranteed, found out by really trying.

It writes to the storages: small blobs, and one of a part and a bit, below ``/.blobferry-doctor-<random>``, which are
gone again when it ends. In a versioned bucket their old versions stay, as those of any deleted blob do.
"""

import secrets
from collections.abc import Iterator
from datetime import timedelta

from worker.doctor.findings import Finding, exit_status, told, told_as_json
from worker.doctor.guarantees import examine_store
from worker.doctor.lifecycle import examine_lifecycle
from worker.doctor.surroundings import examine_broker, examine_database, examine_encryption, examine_file_roots
from worker.driver import Driver
from worker.runtime import Runtime

__all__ = ["Finding", "examine", "examine_storage", "exit_status", "told", "told_as_json"]


def examine(runtime: Runtime) -> list[Finding]:
    """Look at everything that the settings name. Raises nothing that a finding can say."""
    settings = runtime.settings
    findings = [*examine_database(runtime.database), *examine_broker(settings), *examine_file_roots(settings)]
    findings += examine_encryption(settings)
    if not settings.storages:
        findings.append(Finding("storages", "configured", "broken", "there is none: nothing can be read or written"))
    retention = settings.retention
    kept = timedelta(seconds=max(retention.failed_upload_seconds, retention.paused_upload_seconds))
    for name in settings.storages:
        findings += examine_storage(name, runtime.driver(name), kept)
    return findings


def examine_storage(name: str, driver: Driver, kept: timedelta = timedelta(days=7)) -> Iterator[Finding]:
    """Try everything out on one storage. ``kept``: how long a job's unfinished upload may be of use."""
    where = f"storage {name}"
    yield Finding(where, "configured", "ok", _described(driver))
    if driver.store.name == "memory":
        yield Finding(where, "shared", "broken", "a worker cannot serve from memory: its children share none")
    key, is_reached = driver.key(f"/.blobferry-doctor-{secrets.token_hex(8)}"), True
    for finding in examine_store(driver.store, key, where):
        is_reached = is_reached and (finding.what, finding.state) != ("reachable", "broken")
        yield finding
    if is_reached:
        yield from examine_lifecycle(driver.store, key, where, kept)


def _described(driver: Driver) -> str:
    store = driver.store
    at = f" at {store.endpoint}" if store.endpoint else ""
    return f"{store.name}, bucket {store.bucket}{at}, checksum {store.checksum}"
