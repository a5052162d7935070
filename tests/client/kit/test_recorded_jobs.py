"""Recording: what a test's client enqueues can be asserted, and nothing of it leaves the process."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from sqlalchemy.orm import Session

from blobferry import Client, ConfigurationError, NewJob
from blobferry.testing import FerryKit, recording
from tests.client.conftest import SOURCE, Site

LATER = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def kit(ferry: Client) -> Iterator[FerryKit]:
    with recording(ferry) as kit:
        yield kit


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"path": "/a"},
        {"source": SOURCE},
        {"source": Path(SOURCE.removeprefix("file://"))},
        {"source": SOURCE.removeprefix("file://")},
        {"source": ANY, "storage": "cold", "offset": 0, "overwrite": False},
        {"labels": {"video": 7}},
        {"labels": {"user": "ann"}},
        {"labels": {}},
        {"metadata": {"title": "seven"}, "content_type": "video/mp4"},
        {"priority": 3, "idempotency_key": "a-1", "not_before": LATER, "deadline": ANY, "state": "queued"},
        {"on_done": "shop.stored", "on_failed": None},
        {"on_done": {"task": "shop.stored", "args": (7,)}},
        {"delete_source": True},
    ],
    ids=str,
)
def test_a_job_is_found_by_a_part_of_what_was_said(kit: FerryKit, fields: dict[str, Any]) -> None:
    job = kit.ferry.write_stream(
        "/a", SOURCE, storage="cold", overwrite=False, labels={"video": 7, "user": "ann"}, content_type="video/mp4",
        metadata={"title": "seven", "year": "2026"}, priority=3, idempotency_key="a-1", not_before=LATER,
        deadline=LATER + timedelta(days=1), on_done={"task": "shop.stored", "args": [7]}, delete_source=True,
    )  # fmt: skip
    assert kit.assert_enqueued("write_stream", **fields) == job
    assert kit.assert_enqueued(**fields, count=1) == job
    assert kit.all_enqueued("write_stream", **fields) == [job]
    with pytest.raises(AssertionError, match=r"a job was enqueued as write_stream\("):
        kit.refute_enqueued("write_stream", **fields)


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("delete", {}),
        (None, {"path": "/b"}),
        ("write_stream", {"source": "file:///srv/b"}),
        ("write_stream", {"labels": {"video": "8"}}),
        ("write_stream", {"labels": {"video": "7", "user": "ann"}}),
        ("write_stream", {"on_done": "shop.lost"}),
        ("write_stream", {"on_done": {"task": "shop.stored", "args": [8]}}),
        ("write_stream", {"on_failed": "shop.stored"}),
        ("write_stream", {"metadata": {"title": "seven"}}),
        ("write_stream", {"offset": 1}),
        ("write_stream", {"delete_source": True}),
    ],
)
def test_a_job_that_differs_is_not_found(kit: FerryKit, operation: str | None, fields: dict[str, Any]) -> None:
    kit.ferry.write_stream("/a", SOURCE, labels={"video": "7"}, on_done={"task": "shop.stored", "args": [7]})
    kit.refute_enqueued(operation, **fields)
    assert kit.all_enqueued(operation, **fields) == []
    with pytest.raises(AssertionError):
        kit.assert_enqueued(operation, **fields)


def test_each_operation_is_found_by_its_own_arguments(kit: FerryKit) -> None:
    kit.ferry.put_content("/b", b"bytes")
    kit.ferry.read_stream("/b", "/srv/out/b")
    kit.ferry.move("/b", "/c", dest_storage="cold")
    kit.ferry.delete("/c")
    kit.assert_enqueued("put_content", path="/b", contents=b"bytes")
    kit.refute_enqueued("put_content", contents=b"others")
    kit.assert_enqueued("read_stream", path="/b", dest=Path("/srv/out/b"))
    kit.assert_enqueued("move", source_path="/b", dest_path="/c", dest_storage="cold")
    kit.assert_enqueued("delete", path="/c")


def test_the_message_lists_what_was_enqueued_instead_and_how_it_differs(kit: FerryKit) -> None:
    kit.ferry.write_stream("/a", SOURCE, labels={"video": "7"})
    kit.ferry.delete("/old")
    with pytest.raises(AssertionError) as raised:
        kit.assert_enqueued("write_stream", path="/b", labels={"video": "7"})
    assert str(raised.value).splitlines() == [
        "no job was enqueued as write_stream(path='/b', labels={'video': '7'})",
        "enqueued were 2 jobs:",
        f"  1. write_stream(path='/a', source='{SOURCE}', labels={{'video': '7'}})",
        "     path is '/a'",
        "  2. delete(path='/old')",
        "     the operation is delete; path is '/old'; labels is None",
    ]


def test_the_message_says_so_if_nothing_was_enqueued(kit: FerryKit) -> None:
    with pytest.raises(AssertionError, match="no job was enqueued as any operation\\(path='/b'\\)\nnothing was"):
        kit.assert_enqueued(path="/b")


def test_a_number_of_jobs_can_be_asked_for(kit: FerryKit) -> None:
    kit.ferry.submit_many([NewJob.delete("/a"), NewJob.delete("/b")])
    kit.assert_enqueued("delete", count=2)
    kit.assert_enqueued("move", count=0)
    for count, said in [(1, "2 jobs were enqueued as delete\\(\\), not 1"), (3, "2 jobs were"), (0, "2 jobs were")]:
        with pytest.raises(AssertionError, match=said):
            kit.assert_enqueued("delete", count=count)
    assert [job.path for job in kit.all_enqueued()] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("operation", "fields", "said"),
    [
        ("write_steam", {}, "'write_steam' is no operation of a job, did you mean 'write_stream'?"),
        ("delete", {"source": "/a"}, "'source' is no field of delete"),
        (None, {"lables": {}}, "'lables' is no field of a job, did you mean 'labels'?"),
    ],
)
def test_a_misspelled_name_does_not_let_a_refutation_pass(
    kit: FerryKit, operation: str | None, fields: dict[str, Any], said: str
) -> None:
    for ask in (kit.refute_enqueued, kit.assert_enqueued, kit.all_enqueued):
        with pytest.raises(ValueError, match=said.replace("?", "\\?")):
            ask(operation, **fields)


def test_a_block_has_its_own_jobs_alone(kit: FerryKit) -> None:
    kit.ferry.delete("/before")
    with kit.only() as block:
        block.refute_enqueued("delete")
        kit.ferry.delete("/in")
        block.assert_enqueued("delete", path="/in", count=1)
    kit.ferry.delete("/after")
    assert [job.path for job in block.all_enqueued()] == ["/in"]
    assert [job.path for job in kit.all_enqueued()] == ["/before", "/in", "/after"]


def test_jobs_from_before_the_recording_are_not_in_it(ferry: Client) -> None:
    ferry.delete("/before")
    with recording(ferry) as kit:
        kit.refute_enqueued()


def test_a_submit_that_returned_an_older_job_has_enqueued_none(kit: FerryKit) -> None:
    kit.ferry.delete("/a", idempotency_key="once")
    with kit.only() as block:
        kit.ferry.delete("/a", idempotency_key="once")
    block.refute_enqueued()


def test_a_job_of_a_transaction_that_was_rolled_back_is_not_enqueued(site: Site, kit: FerryKit) -> None:
    with Session(site.database.engine) as session:
        kit.ferry.delete("/rolled-back", session=session)
        session.rollback()
        kit.ferry.delete("/committed", session=session)
        session.commit()
    assert [job.path for job in kit.all_enqueued()] == ["/committed"]


def test_nothing_is_published_and_the_client_publishes_again_afterwards(site: Site, ferry: Client) -> None:
    with recording(ferry) as kit, Session(site.database.engine) as session:
        ferry.submit_many([NewJob.delete("/a")])
        ferry.delete("/b", session=session)
        session.commit()
        ferry.cancel(ferry.delete("/c").id)
        kit.assert_enqueued("delete", count=3)
        assert {kit.ferry.situation(job.id).published_at for job in kit.all_enqueued()} == {None}
    assert site.messages() == []
    job = ferry.delete("/d")
    assert site.message_ids() == [job.id]


def test_a_secret_of_a_source_is_in_no_message_and_the_source_is_found(kit: FerryKit) -> None:
    url = "https://ann:secret@example.org/a?X-Amz-Signature=0123456789abcdef"
    kit.ferry.write_stream("/a", url)
    kit.assert_enqueued("write_stream", source=url)
    with pytest.raises(AssertionError) as raised:
        kit.assert_enqueued("write_stream", path="/b")
    assert "secret" not in str(raised.value)
    assert "0123456789abcdef" not in str(raised.value)


def test_a_kit_without_a_client_has_one_with_a_database_of_its_own() -> None:
    with recording() as kit:
        kit.ferry.delete("/a")
        with Client.from_env(kit.variables) as another:
            another.delete("/b")
        assert [job.path for job in kit.all_enqueued()] == ["/a", "/b"]
    with recording() as kit:
        kit.refute_enqueued()


def test_another_thing_than_a_client_is_refused() -> None:
    refused = recording("ferry")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="client: needs a Client or an AsyncClient, got 'ferry'"), refused:
        pass
