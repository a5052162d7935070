"""The rows of uploads and parts."""

from typing import Any

import pytest

from tests.doubles import tiny_store
from tests.models.rows import Rows, ago
from worker.jobs.sql_checkpoint import SqlCheckpoint


def part(number: int, **values: Any) -> dict[str, Any]:
    return {"part_number": number, "offset": number * 10, "size": 10, "etag": f'"{number}"', "checksum": None} | values


def record(rows: Rows, upload: int, *parts: dict[str, Any]) -> None:
    rows.record_parts(upload, parts)


def test_parts_come_back_by_number_with_the_newest_values(rows: Rows) -> None:
    job_id = rows.submit()
    upload, other = rows.add_upload(job_id), rows.add_upload(job_id)
    record(rows, upload, part(3, checksum="CRC64NVME:AAAA"), part(1))
    record(rows, upload, part(2))
    record(rows, upload, part(1, size=7, etag='"again"', checksum="CRC32C:AA"))
    record(rows, other, part(1, etag='"other"'))
    assert [(row.part_number, row.offset, row.size, row.etag, row.checksum) for row in rows.part_rows(upload)] == [
        (1, 10, 7, '"again"', "CRC32C:AA"),
        (2, 20, 10, '"2"', None),
        (3, 30, 10, '"3"', "CRC64NVME:AAAA"),
    ]


@pytest.mark.parametrize("number", [0, 2000])
def test_any_number_of_parts_is_recorded_at_once(rows: Rows, number: int) -> None:
    upload = rows.add_upload(rows.submit())
    record(rows, upload, *(part(position) for position in range(1, number + 1)))
    assert len(rows.part_rows(upload)) == number


def test_sizes_beyond_32_bits_are_kept(rows: Rows) -> None:
    upload = rows.add_upload(rows.submit(), size=50 * 1024**4, part_size=5 * 1024**3)
    record(rows, upload, part(10_000, offset=9_999 * 5 * 1024**3, size=5 * 1024**3))
    (row,) = rows.part_rows(upload)
    assert (row.offset, row.size) == (9_999 * 5 * 1024**3, 5 * 1024**3)


def test_dropped_parts_are_gone(rows: Rows) -> None:
    upload = rows.add_upload(rows.submit())
    record(rows, upload, part(1), part(2, size=7), part(3))
    rows.drop_parts(upload, [2, 3, 9])
    assert [row.part_number for row in rows.part_rows(upload)] == [1]


@pytest.mark.parametrize(
    ("state", "goes_on"),
    [
        ("opening", True),
        ("open", True),
        ("completing", True),
        ("completed", True),
        ("aborting", False),
        ("gone", False),
    ],
)
def test_the_newest_upload_is_the_one_to_go_on_with_unless_given_up(rows: Rows, state: str, goes_on: bool) -> None:
    job_id = rows.submit()
    assert rows.newest_upload(job_id) is None
    rows.add_upload(job_id, state="gone")
    upload = rows.add_upload(job_id, state=state)
    rows.add_upload(rows.submit())
    newest = rows.newest_upload(job_id)
    assert (newest and newest.id) == (upload if goes_on else None)


def test_recorded_upload_ids_are_known_to_every_job(rows: Rows) -> None:
    for storage, bucket, key, upload_id in (
        ("default", "videos", "a", "one"),
        ("other", "videos", "a", "two"),  # the same bucket under another name
        ("default", "videos", "a", None),
        ("default", "videos", "b", "three"),
        ("default", "archive", "a", "four"),  # it may be the same bucket, too
    ):
        place = {"storage": storage, "bucket": bucket, "key": key}
        rows.add_upload(rows.submit(), upload_id=upload_id, state="gone", **place)
    assert rows.known_upload_ids("a") == {"one", "two", "four"}


def test_a_change_of_an_upload_moves_its_time(rows: Rows) -> None:
    job_id = rows.submit()
    upload = rows.add_upload(job_id)
    rows.change_upload(upload, updated_at=ago(60))
    (before,) = rows.uploads(job_id)
    rows.update_upload(upload, state="completing", base_etag='"x"')
    (after,) = rows.uploads(job_id)
    assert (after.state, after.base_etag) == ("completing", '"x"')
    assert (after.updated_at - before.updated_at).total_seconds() > 50


def test_the_age_of_an_upload_is_told_by_the_database_alone(rows: Rows) -> None:
    job = rows.claim(rows.submit())
    before = rows.time_now()
    now = SqlCheckpoint(rows.lease_of(job), tiny_store(), max_restarts=3).now()
    assert before <= now <= rows.time_now()
