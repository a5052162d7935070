"""What there is in the end: rows, blobs, uploads and files, read past everything that was harmed."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from dev.chaos.system import BUCKETS, System

PIECE: Final = 1024 * 1024  #: bytes
Row = dict[str, Any]
Digest = tuple[int, str]  #: size and SHA-256


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the verdict looks at."""

    jobs: Mapping[str, Row]  #: by name: the idempotency key, or else the id
    attempts: Mapping[str, Sequence[Row]]  #: by job id
    uploads: Sequence[Row]
    blobs: Mapping[tuple[str, str], Digest]  #: by storage and path
    unfinished: Sequence[tuple[str, str, str]]  #: uploads in the store: bucket, key and id
    files: Mapping[str, Digest]  #: in the directories that jobs read blobs into, by path


def digest(data: bytes) -> Digest:
    """Of bytes at hand."""
    return len(data), sha256(data).hexdigest()


def rows(url: str, statement: str) -> list[Row]:
    """All rows of a statement."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement).fetchall()


def unfinished_uploads(system: System) -> list[tuple[str, str, str]]:
    """What the store still holds of uploads. A Swift that was killed may list one that is gone: each is asked for."""
    client = system.s3.client()
    found = []
    for bucket in BUCKETS.values():
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", []):
                with suppress(client.exceptions.NoSuchUpload):
                    client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                    found.append((bucket, upload["Key"], upload["UploadId"]))
    client.close()
    return found


def gather(system: System, url: str) -> Evidence:
    """All of it, now."""
    attempts: dict[str, list[Row]] = {}
    for row in rows(url, "SELECT * FROM blobferry_attempts ORDER BY job_id, attempt"):
        attempts.setdefault(row["job_id"], []).append(row)
    jobs = {row["idempotency_key"] or row["id"]: row for row in rows(url, "SELECT * FROM blobferry_jobs")}
    return Evidence(
        jobs=jobs,
        attempts=attempts,
        uploads=rows(url, "SELECT * FROM blobferry_uploads ORDER BY id"),
        blobs=_blobs(system, jobs.values()),
        unfinished=unfinished_uploads(system),
        files={str(file): _digest(file) for file in system.stack.incoming.glob("*/*")},
    )


def _blobs(system: System, jobs: Iterable[Row]) -> dict[tuple[str, str], Digest]:
    """All blobs. Paths are asked as well: a killed Swift may lose an entry of its listing, and still have the blob."""
    client = system.s3.client()
    paths = {(row["request"].get("dest_storage") or row["storage"], row["path"]) for row in jobs}
    for storage, bucket in BUCKETS.items():
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            paths |= {(storage, f"/{entry['Key']}") for entry in page.get("Contents", [])}
    found = {}
    for storage, path in sorted(path for path in paths if path[0] in BUCKETS):
        with suppress(client.exceptions.NoSuchKey):
            body = client.get_object(Bucket=BUCKETS[storage], Key=path[1:])["Body"]
            checksum, size = sha256(), 0
            for piece in body.iter_chunks(PIECE):
                checksum.update(piece)
                size += len(piece)
            found[storage, path] = size, checksum.hexdigest()
    client.close()
    return found


def _digest(file: Path) -> Digest:
    return digest(file.read_bytes())
