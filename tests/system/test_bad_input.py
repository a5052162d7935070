"""What only the worker can see: one clear error in the row, and nothing uploaded."""

import os
from dataclasses import replace

from dev.stack import BUCKET, Stack

#: name: (the source, given incoming), storage, error code, what the message names
CASES = {
    "missing": ("{}/nobody.bin", "default", "source_not_found", "nobody.bin"),
    "outside": ("{}-outside.bin", "default", "source_not_allowed", "outside.bin"),
    "dotted": ("{}/../incoming-outside.bin", "default", "source_not_allowed", "incoming"),
    "symlink": ("{}/link.bin", "default", "source_not_allowed", "link.bin"),
    "directory": ("{}", "default", "source_not_allowed", "not a regular file"),
    "storage": ("{}/fine.bin", "elsewhere", "configuration", "storages.elsewhere"),
}


def test_what_only_the_worker_can_see_fails_the_job_with_a_clear_error(stack: Stack) -> None:
    outside = stack.directory / "incoming-outside.bin"
    outside.write_bytes(b"secret")
    (stack.incoming / "link.bin").symlink_to(outside)
    (stack.incoming / "fine.bin").write_bytes(b"fine")
    no_retries = replace(stack, settings={**stack.settings, "BLOBFERRY_RETRY__MAX_ATTEMPTS": "1"})
    with stack.client() as client, no_retries.worker():
        for name, (source, storage, code, named) in CASES.items():
            url = source.format(stack.incoming.as_uri())
            job = client.wait(client.write_stream(f"/bad/{name}", url, storage=storage).id, timeout=30)
            assert (job.state, job.error_code, job.attempt) == ("failed", code, 1), name
            assert named in (job.error_message or ""), name
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
