"""The rows of uploads and parts."""

from typing import Any

import pytest

from models import Database, queries
from tests.doubles import tiny_store
from tests.models.rows import (
    add_upload,
    ago,
    change_upload,
    claim,
    in_transaction,
    lease_of,
    part_rows,
    submit,
    uploads,
)
from worker.jobs.sql_checkpoint import SqlCheckpoint


def part(number: int, **values: Any) -> dict[str, Any]:
    return {"part_number": number, "offset": number * 10, "size": 10, "etag": f'"{number}"', "checksum": None} | values


def record(database: Database, upload: int, *rows: dict[str, Any]) -> None:
    in_transaction(database, queries.record_parts, upload, rows)


def newest(database: Database, job_id: str) -> int | None:
    with database.begin() as session:
        upload = queries.newest_upload(session, job_id)
        return None if upload is None else upload.id


def test_parts_come_back_by_number(database: Database) -> None:
    upload = add_upload(database, submit(database))
    record(database, upload, part(3, checksum="CRC64NVME:AAAA"), part(1))
    record(database, upload, part(2))
    assert [(row.part_number, row.offset, row.size, row.etag, row.checksum) for row in part_rows(database, upload)] == [
        (1, 10, 10, '"1"', None),
        (2, 20, 10, '"2"', None),
        (3, 30, 10, '"3"', "CRC64NVME:AAAA"),
    ]


def test_recording_no_parts_is_nothing(database: Database) -> None:
    upload = add_upload(database, submit(database))
    record(database, upload)
    assert part_rows(database, upload) == []


def test_a_part_that_was_sent_again_has_the_newer_values(database: Database) -> None:
    upload = add_upload(database, submit(database))
    record(database, upload, part(1), part(2))
    record(database, upload, part(1, size=7, etag='"again"', checksum="CRC32C:AA"))
    rows = part_rows(database, upload)
    assert [(row.part_number, row.size, row.etag, row.checksum) for row in rows] == [
        (1, 7, '"again"', "CRC32C:AA"),
        (2, 10, '"2"', None),
    ]


def test_parts_of_two_uploads_do_not_meet(database: Database) -> None:
    job_id = submit(database)
    first, second = add_upload(database, job_id), add_upload(database, job_id)
    record(database, first, part(1))
    record(database, second, part(1, etag='"other"'))
    assert [row.etag for row in part_rows(database, first)] == ['"1"']


def test_many_parts_are_recorded_at_once(database: Database) -> None:
    upload = add_upload(database, submit(database))
    record(database, upload, *(part(number) for number in range(1, 2001)))
    assert len(part_rows(database, upload)) == 2000


def test_sizes_beyond_32_bits_are_kept(database: Database) -> None:
    upload = add_upload(database, submit(database), size=50 * 1024**4, part_size=5 * 1024**3)
    record(database, upload, part(10_000, offset=9_999 * 5 * 1024**3, size=5 * 1024**3))
    (row,) = part_rows(database, upload)
    assert (row.offset, row.size) == (9_999 * 5 * 1024**3, 5 * 1024**3)


def test_dropped_parts_are_gone_and_the_bytes_of_the_others_told(database: Database) -> None:
    upload = add_upload(database, submit(database))
    record(database, upload, part(1), part(2, size=7), part(3))
    assert in_transaction(database, queries.drop_parts, upload, [2, 3, 9]) == 10
    assert [row.part_number for row in part_rows(database, upload)] == [1]


@pytest.mark.parametrize("state", ["opening", "open", "completing", "completed"])
def test_the_newest_upload_is_the_one_to_go_on_with(database: Database, state: str) -> None:
    job_id = submit(database)
    add_upload(database, job_id, state="gone")
    upload = add_upload(database, job_id, state=state)
    add_upload(database, submit(database))
    assert newest(database, job_id) == upload


@pytest.mark.parametrize("state", ["aborting", "gone"])
def test_an_upload_that_is_given_up_is_not_gone_on_with(database: Database, state: str) -> None:
    job_id = submit(database)
    assert newest(database, job_id) is None
    add_upload(database, job_id, state=state)
    assert newest(database, job_id) is None


def test_recorded_upload_ids_are_known_to_every_job(database: Database) -> None:
    for storage, bucket, key, upload_id in (
        ("default", "videos", "a", "one"),
        ("other", "videos", "a", "two"),  # the same bucket under another name
        ("default", "videos", "a", None),
        ("default", "videos", "b", "three"),
        ("default", "archive", "a", "four"),  # it may be the same bucket, too
    ):
        place = {"storage": storage, "bucket": bucket, "key": key}
        add_upload(database, submit(database), upload_id=upload_id, state="gone", **place)
    assert in_transaction(database, queries.known_upload_ids, "a") == {"one", "two", "four"}


def test_a_change_of_an_upload_moves_its_time(database: Database) -> None:
    job_id = submit(database)
    upload = add_upload(database, job_id)
    change_upload(database, upload, updated_at=ago(60))
    (before,) = uploads(database, job_id)
    in_transaction(database, queries.update_upload, upload, state="completing", base_etag='"x"')
    (after,) = uploads(database, job_id)
    assert (after.state, after.base_etag) == ("completing", '"x"')
    assert (after.updated_at - before.updated_at).total_seconds() > 50


def test_the_age_of_an_upload_is_told_by_the_database_alone(database: Database) -> None:
    job = claim(database, submit(database))
    before = in_transaction(database, queries.time_now)
    now = SqlCheckpoint(lease_of(database, job), tiny_store(), max_restarts=3).now()
    with database.begin() as session:
        assert before <= now <= queries.time_now(session)
