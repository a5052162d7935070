"""``python -m worker doctor``: tests what works here and what the storages do not guarantee.

It writes to the storages: small blobs, and one that is larger than a part, below ``/.blobferry-doctor-<random>``. It
removes them at the end; a versioned bucket keeps their old versions, as of any deleted blob.
"""

import secrets
from collections.abc import Iterator
from datetime import timedelta

from worker.doctor.findings import Finding, exit_status, json_report, text_report
from worker.doctor.guarantees import examine_store
from worker.doctor.lacks import examine_lacks
from worker.doctor.lifecycle import examine_lifecycle
from worker.doctor.surroundings import (
    examine_broker,
    examine_certificates,
    examine_database,
    examine_encryption,
    examine_file_roots,
)
from worker.doctor.webhook_secrets import examine_webhooks
from worker.driver import Driver
from worker.runtime import Runtime

__all__ = ["Finding", "examine", "examine_storage", "exit_status", "json_report", "text_report"]


def examine(runtime: Runtime) -> list[Finding]:
    """Examine everything that the settings name. What fails becomes a finding, not an exception."""
    settings = runtime.settings
    findings = list(examine_database(runtime.database))
    is_migrated = any((finding.what, finding.state) == ("migrated", "ok") for finding in findings)
    findings += [*examine_broker(settings), *examine_file_roots(settings), *examine_encryption(settings)]
    findings += examine_webhooks(settings, runtime.database if is_migrated else None)
    if not settings.storages:
        findings.append(
            Finding("storages", "configured", "broken", "no storage is configured: nothing can be read or written")
        )
    retention = settings.retention
    kept = timedelta(seconds=max(retention.failed_upload_seconds, retention.paused_upload_seconds))
    for name in settings.storages:
        findings += examine_certificates(name, settings)
        findings += examine_storage(name, runtime.driver(name), kept)
    return findings


def examine_storage(name: str, driver: Driver, kept: timedelta = timedelta(days=7)) -> Iterator[Finding]:
    """Examine one storage. ``kept``: the longest time that a job keeps an unfinished upload."""
    where = f"storage {name}"
    yield Finding(where, "configured", "ok", _described(driver))
    if driver.store.name == "memory":
        yield Finding(
            where,
            "shared",
            "broken",
            "a worker cannot use the memory store: its children share no memory. Use local or s3",
        )
    key, is_reached = driver.key(f"/.blobferry-doctor-{secrets.token_hex(8)}"), True
    is_writable = True
    for finding in examine_store(driver.store, key, where):
        is_reached = is_reached and (finding.what, finding.state) != ("reachable", "broken")
        is_writable = is_writable and (finding.what, finding.state) != ("writable", "broken")
        yield finding
    if is_reached:
        yield from examine_lifecycle(driver.store, key, where, kept)
    if is_reached and is_writable:
        yield from examine_lacks(driver.store, key, where)


def _described(driver: Driver) -> str:
    store = driver.store
    at = f" at {store.endpoint}" if store.endpoint else ""
    return f"{store.name}, bucket {store.bucket}{at}, checksum {store.checksum}"
