"""What can be asked: every check says which argument is wrong, and what passes them can be stored and sent."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobferry.checks import MARK_NAME, MAX_METADATA_BYTES, check_job_id, check_path
from blobferry.contract import (
    CLAIMABLE_STATES,
    FINAL_STATES,
    JOB_OPTIONS,
    OPERATIONS,
    JobState,
    Request,
    check_request,
)
from blobferry.errors import InvalidPathError, InvalidRequestError
from worker.checkpoint import mark_of

GOOD: dict[str, Any] = {"path": "/videos/7.mp4", "source": "file:///srv/incoming/7.mp4"}


def ask(**arguments: Any) -> Request:
    return check_request("write_stream", {**GOOD, **arguments})


def test_the_least_request_has_every_default() -> None:
    request = ask()
    assert request == Request("write_stream", "default", "/videos/7.mp4", GOOD | {"offset": 0, "overwrite": True})
    assert request.source == GOOD["source"]


def test_a_full_request_keeps_its_own_arguments_apart_from_the_jobs() -> None:
    own = {"offset": 0, "overwrite": False, "metadata": {"title": "seven"}, "content_type": "video/mp4"}
    request = ask(
        **own,
        storage="archive_2",
        labels={"Tenant": "acme ☃"},
        idempotency_key="video-7",
        priority=9,
        not_before="2026-07-01T12:00:00+02:00",
        deadline=datetime(2026, 8, 1, tzinfo=UTC),
    )
    assert request.arguments == GOOD | own
    assert (request.storage, request.labels, request.priority) == ("archive_2", {"Tenant": "acme ☃"}, 9)
    assert request.idempotency_key == "video-7"
    assert request.not_before == datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert request.deadline == datetime(2026, 8, 1, tzinfo=UTC)
    json.dumps(request.arguments)


def test_none_is_the_same_as_leaving_an_optional_argument_out() -> None:
    names = ("metadata", "content_type", "labels", "idempotency_key", "not_before", "deadline")
    assert ask(**dict.fromkeys(names)) == ask()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", "no/slash"),
        ("path", 7),
        ("path", None),
        ("source", "http://example.org/a"),
        ("source", "/srv/a"),
        ("source", "file:relative"),
        ("source", "file://other-host/srv/a"),
        ("source", "file:///srv/a?b"),
        ("source", "file:///srv/a#b"),
        ("source", "file:///srv/a%00b"),
        ("source", "file:///srv/a\0b"),
        ("source", "file://[::1/srv/a"),
        ("source", "file:///srv/\ud800"),
        ("source", b"file:///srv/a"),
        ("source", None),
        ("offset", 1),
        ("offset", -1),
        ("offset", "0"),
        ("offset", False),
        ("offset", 0.0),
        ("overwrite", "true"),
        ("overwrite", 1),
        ("overwrite", None),
        ("metadata", {"Title": "upper"}),
        ("metadata", {"title": "☃"}),
        ("metadata", {"title": "two\nlines"}),
        ("metadata", {"title": 7}),
        ("metadata", {"": "empty"}),
        ("metadata", {"title:": "colon"}),
        ("metadata", [("title", "pair")]),
        ("metadata", {"title": "x" * MAX_METADATA_BYTES}),
        ("content_type", ""),
        ("content_type", "text/plain\r\nX-Other: 1"),
        ("content_type", "täxt"),
        ("content_type", "x" * 256),
        ("storage", "Default"),
        ("storage", ""),
        ("storage", "default\n"),
        ("storage", "x" * 65),
        ("storage", None),
        ("idempotency_key", ""),
        ("idempotency_key", "x" * 256),
        ("idempotency_key", "a\0b"),
        ("idempotency_key", "\ud800"),
        ("idempotency_key", 7),
        ("priority", -1),
        ("priority", 10),
        ("priority", True),
        ("priority", "5"),
        ("priority", 5.0),
        ("not_before", datetime(2026, 1, 1)),  # noqa: DTZ001  the point of it
        ("not_before", "2026-01-01T00:00:00"),
        ("not_before", "soon"),
        ("not_before", 1_790_000_000),
        ("deadline", "2026-13-01T00:00:00Z"),
        ("deadline", "0001-01-01T00:00:00+14:00"),
        ("labels", {"a": 1}),
        ("labels", {1: "a"}),
        ("labels", "a"),
        ("labels", {"a": "zero\0byte"}),
        ("labels", {"zero\0byte": "a"}),
        ("labels", {"a": "\ud800"}),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_wrong_value_is_refused_by_its_name(name: str, value: Any) -> None:
    """What a database or a header cannot hold counts as wrong: an insert must never fail in the app's transaction."""
    with pytest.raises(InvalidRequestError) as caught:
        ask(**{name: value})
    if name == "path":
        assert isinstance(caught.value, InvalidPathError)
    else:
        assert str(caught.value).startswith(f"{name}:")
    assert len(str(caught.value)) < 500  # a huge value does not come back whole


def test_an_unknown_argument_is_named_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequestError, match="unknown argument 'pth'; it takes path, source"):
        ask(pth="/a")


@pytest.mark.parametrize("name", ["path", "source"])
def test_a_missing_argument_is_named(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"'{name}' is missing"):
        check_request("write_stream", {key: value for key, value in GOOD.items() if key != name})


def test_the_path_is_checked_before_the_offset() -> None:
    with pytest.raises(InvalidPathError):
        ask(path="bad", offset=-1)


@pytest.mark.parametrize(
    "path", ["/a", "/A-Z_0.9/x", "/.hidden", "/...", "/a.", "/-", "/" + "x" * 1023], ids=lambda path: path[:20]
)
def test_good_paths(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "a", "//a", "/a/", "/a//b", "/.", "/..", "/a/../b", "/a/./b"),
        *("/a\n", "/a b", "/ä", "/a?", "/a%20", "/a\\b", "/" + "x" * 1024),
        *(None, 7, b"/a"),
    ],
    ids=lambda path: ascii(path)[:20],
)
def test_bad_paths_are_refused_whole(path: Any) -> None:
    with pytest.raises(InvalidPathError) as caught:
        check_path(path)
    assert caught.value.path == (path if isinstance(path, str) else repr(path))


@given(st.text(alphabet="/ab.-_", max_size=12))
def test_a_path_is_good_when_its_components_are(path: str) -> None:
    components = path.split("/")
    good = path.startswith("/") and all(part not in ("", ".", "..") for part in components[1:])
    try:
        check_path(path)
    except InvalidPathError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("url", ["file:///srv/a", "file://localhost/srv/a", "file:/srv/a", "file:///srv/%23%3F%25ä"])
def test_good_sources(url: str) -> None:
    assert ask(source=url).source == url


@pytest.mark.parametrize("job_id", ["a", "x" * 155, "any ☃ string", "00000000-0000-4000-8000-000000000000"])
def test_good_job_ids(job_id: str) -> None:
    assert check_job_id(job_id) == job_id


@pytest.mark.parametrize(
    "job_id", ["", "x" * 156, None, 7, "zero\0byte", "\ud800"], ids=lambda value: ascii(value)[:20]
)
def test_bad_job_ids(job_id: Any) -> None:
    with pytest.raises(InvalidRequestError, match="job id"):
        check_job_id(job_id)


def test_the_largest_metadata_leaves_room_for_our_mark() -> None:
    """S3 counts names and values of all of it, 2,048 bytes."""
    mark = len(MARK_NAME) + len(mark_of("any"))
    largest = 2048 - mark
    assert ask(metadata={"a": "x" * (largest - 1)})
    with pytest.raises(InvalidRequestError, match="metadata"):
        ask(metadata={"a": "x" * largest})


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-11)), timezone(timedelta(minutes=345))])))
def test_a_time_comes_back_as_the_same_moment(moment: datetime) -> None:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return  # before the first or after the last moment; refused, see above
    assert ask(deadline=moment.isoformat()).deadline == moment
    assert ask(deadline=moment).deadline == moment


def test_final_and_claimable_states_do_not_meet() -> None:
    assert not FINAL_STATES & CLAIMABLE_STATES
    assert set(JobState) - FINAL_STATES - CLAIMABLE_STATES == {JobState.RUNNING, JobState.PAUSED}


def test_every_operation_is_a_task_of_its_name() -> None:
    for name, operation in OPERATIONS.items():
        assert operation.task_name == f"blobferry.{name}"
        assert not (set(operation.required) | set(operation.optional)) & set(JOB_OPTIONS)
