"""What only the worker can see: one clear error in the row, and nothing uploaded."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dev.stack import BUCKET, Stack

CASES: dict[str, tuple[Callable[[Path, Path], str], str, str, str]] = {
    # name: (the source, made in incoming or outside), storage, error code, what the message names
    "missing": (
        lambda incoming, outside: (incoming / "nobody.bin").as_uri(),
        "default",
        "source_not_found",
        "nobody.bin",
    ),
    "outside": (lambda incoming, outside: outside.as_uri(), "default", "source_not_allowed", "outside.bin"),
    "dotted": (
        lambda incoming, outside: f"file://{incoming}/../outside.bin",
        "default",
        "source_not_allowed",
        "incoming",
    ),
    "symlink": (
        lambda incoming, outside: _link(incoming, outside).as_uri(),
        "default",
        "source_not_allowed",
        "link.bin",
    ),
    "directory": (lambda incoming, outside: incoming.as_uri(), "default", "source_not_allowed", "not a regular file"),
    "storage": (lambda incoming, outside: _file(incoming).as_uri(), "elsewhere", "configuration", "storages.elsewhere"),
}


def _link(incoming: Path, outside: Path) -> Path:
    link = incoming / "link.bin"
    link.symlink_to(outside)
    return link


def _file(incoming: Path) -> Path:
    file = incoming / "fine.bin"
    file.write_bytes(b"fine")
    return file


def test_what_only_the_worker_can_see_fails_the_job_with_a_clear_error(stack: Stack) -> None:
    outside = stack.directory / "outside.bin"
    outside.write_bytes(b"secret")
    no_retries = replace(stack, settings={**stack.settings, "BLOBFERRY_RETRY__MAX_ATTEMPTS": "1"})
    with stack.client() as client, no_retries.worker():
        for name, (source, storage, code, named) in CASES.items():
            job = client.write_stream(f"/bad/{name}", source(stack.incoming, outside), storage=storage)
            job = client.wait(job.id, timeout=30)
            assert (job.state, job.error_code) == ("failed", code), name
            assert named in (job.error_message or ""), name
            assert job.attempt == 1
    s3 = stack.s3.client()
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="bad/")["KeyCount"] == 0
    assert s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    s3.close()


WRONG_SETTINGS = [
    ("BLOBFERRY_TRANSFER__PART_SIZE", "1000", "transfer.part_size"),
    ("BLOBFERRY_TRANSFER__PART_SIZES", "16777216", "transfer.part_sizes"),
    ("BLOBFERRY_COLOUR", "blue", "BLOBFERRY_COLOUR"),
    ("BLOBFERRY_STORAGES__DEFAULT__CHUNKSIZE", "7", "storages.default.chunksize"),
    ("BLOBFERRY_STORAGES__DEFAULT__DRIVER", "memory", "storages.default.driver"),
    ("BLOBFERRY_LEASE__HEARTBEAT_SECONDS", "40", "lease"),
    ("BLOBFERRY_SOURCES__FILE_ROOTS", '["relative"]', "sources.file_roots"),
    ("BLOBFERRY_DATABASE_URL", "mysql://localhost/x", "database_url"),
]


def test_a_wrong_setting_stops_the_worker_with_one_line_that_names_it(stack: Stack) -> None:
    for name, value, named in WRONG_SETTINGS:
        ended = stack.run("run", settings={name: value})
        assert ended.returncode == 2, name
        (line,) = ended.stderr.strip().splitlines()
        assert named in line
        assert os.sep + "site-packages" not in line
