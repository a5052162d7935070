"""What a caller may give besides the plainest values, and what an error says to write instead."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from blobferry import Client, InvalidRequestError, JobNotFoundError, NewJob, safe_path
from blobferry.checks.url_options import check_url_options
from blobferry.contract import check_request
from blobferry.errors import InvalidPathError, UnsupportedMethodError
from tests.client.conftest import SOURCE


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("/srv/incoming/7.mp4", "file:///srv/incoming/7.mp4"),
        ("/srv/a b#1?.mp4", "file:///srv/a%20b%231%3F.mp4"),
        ("/srv/Ärger.pdf", "file:///srv/%C3%84rger.pdf"),
        (Path("/srv/a b"), "file:///srv/a%20b"),
    ],
)
def test_an_absolute_path_is_a_file_as_text_too(ferry: Client, given: str | Path, url: str) -> None:
    assert ferry.write_stream("/a", given).source == url
    assert ferry.read_stream("/a", given).dest == url
    assert check_request("write_stream", {"path": "/a", "source": str(given)}).source_url == url


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("incoming/7.mp4", r"or an absolute path \(pathlib.Path\('incoming/7.mp4'\) makes one\)"),
        (
            io.BytesIO(b"abc"),
            r"got a file object, which cannot travel to it: spool an upload \(Client.spool\), use put_content",
        ),
        (b"abc", "got bytes, which cannot travel to it: spool an upload"),
        (
            "s3://bucket/key.mp4",
            "write 'blob://STORAGE/key.mp4', with the name of the worker's storage that has",
        ),
        ("s3://key:secret@bucket/key", r"got 's3://\*\*\*@bucket/key'"),
        ("/srv/zero\0byte", "a file name cannot hold a zero byte"),
        ("/srv/\ud83d", "needs a URL"),
        ("/srv/folder/", "names a directory"),
    ],
)
def test_any_other_source_is_refused_by_what_to_write(ferry: Client, given: Any, says: str) -> None:
    submit = ferry.read_stream if says == "names a directory" else ferry.write_stream
    with pytest.raises(InvalidRequestError, match=says):
        submit("/a", given)


@pytest.mark.parametrize("name", ["deadline", "not_before"])
def test_a_duration_counts_from_now(ferry: Client, name: str) -> None:
    before = datetime.now(UTC)
    job = ferry.write_stream("/a", SOURCE, **{name: timedelta(hours=1)})  # type: ignore[arg-type]
    moment = job.deadline if name == "deadline" else job.run_at
    assert moment is not None
    assert before <= moment - timedelta(hours=1) <= datetime.now(UTC)


def test_a_duration_does_not_make_a_repeated_request_another_one(ferry: Client) -> None:
    submit = {"idempotency_key": "k", "deadline": timedelta(hours=1), "not_before": timedelta(minutes=1)}
    job = ferry.write_stream("/a", SOURCE, **submit)  # type: ignore[arg-type]
    assert ferry.write_stream("/a", SOURCE, **submit).id == job.id  # type: ignore[arg-type]
    request = NewJob.write_stream("/a", SOURCE, **submit)  # type: ignore[arg-type]
    assert list(ferry.submit_many([request])) == [job.id]


@pytest.mark.parametrize("given", [timedelta(days=999_999_999), timedelta.min])
def test_a_duration_beyond_all_time_is_refused(ferry: Client, given: timedelta) -> None:
    with pytest.raises(InvalidRequestError, match="deadline: needs a time with a zone"):
        ferry.write_stream("/a", SOURCE, deadline=given)


def test_labels_may_be_keys_of_rows(ferry: Client) -> None:
    owner = UUID(int=7)
    job = ferry.write_stream("/a", SOURCE, labels={"video": 7, "owner": owner, "app": "shop"})
    assert job.labels == {"video": "7", "owner": str(owner), "app": "shop"}
    assert [found.id for found in ferry.jobs(labels={"video": 7})] == [job.id]
    for value in (True, 1.5, None):
        with pytest.raises(InvalidRequestError, match="labels: needs a mapping of strings to strings"):
            ferry.write_stream("/a", SOURCE, labels={"video": value})  # type: ignore[dict-item]


def test_a_job_is_found_by_its_uuid(ferry: Client) -> None:
    job = ferry.write_stream("/a", SOURCE)
    for found in (ferry.get, ferry.cancel, lambda each: ferry.situation(each).job):
        assert found(UUID(job.id)).id == job.id
    assert (ferry.attempts(UUID(job.id)), ferry.uploads(UUID(job.id))) == ([], [])
    with pytest.raises(JobNotFoundError):
        ferry.get(uuid4())
    for given in (job, 7, None):
        with pytest.raises(InvalidRequestError, match="job id: needs a string or a UUID"):
            ferry.wait(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "keys", "says"),
    [
        ("a/b.mp4", "registry", "a path begins with '/'"),
        ("/My holiday.mp4", "registry", r"holds ' ', and components hold ASCII letters.*safe_path\(\) replaces others"),
        ("/Ärger.pdf", "registry", "holds 'Ä'"),
        ("/a//b", "registry", "has an empty component"),
        ("/a/", "registry", "ends with '/'"),
        ("/a/../b", "any", r"has the component '\.\.'"),
        ("/a\n", "any", r"holds '\\n', and components hold no control characters"),
        ("/", "registry", "it is the whole storage"),
        ("/" + "a" * 1024 + "b", "registry", "has more than 1,024 bytes"),
        (7, "registry", "a path is a string, not of type int"),
    ],
)
def test_a_path_is_refused_by_the_rule_that_it_breaks(path: Any, keys: str, says: str) -> None:
    with pytest.raises(InvalidPathError, match=says) as caught:
        check_request("delete", {"path": path}, keys=keys)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (("videos", "7", "My holiday (1).mp4"), "/videos/7/My_holiday_1_.mp4"),
        (("Ärger.pdf",), "/Arger.pdf"),
        (("../../etc/passwd",), "/.._.._etc_passwd"),
        (("..", ".", ""), "/_/_/_"),
        (("日本.png",), "/_.png"),
        (("a+b@c",), "/a_b_c"),
        (("x" * 500 + ".mp4",), "/" + "x" * 196 + ".mp4"),
    ],
)
def test_safe_path_makes_a_path_of_any_names(names: tuple[str, ...], path: str) -> None:
    assert safe_path(*names) == path
    check_request("delete", {"path": path})


@pytest.mark.parametrize("names", [(), (7,), ("x" * 200,) * 6])
def test_safe_path_refuses_what_no_path_can_be_made_of(names: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequestError, match="safe_path: "):
        safe_path(*names)


@pytest.mark.parametrize("kind", ["a time", "a duration", "seconds", "a fraction"])
def test_the_expiry_of_a_url_may_be_a_time_a_duration_or_seconds(kind: str) -> None:
    hour = timedelta(hours=1)
    expiry = {"a time": datetime.now(UTC) + hour, "a duration": hour, "seconds": 3600, "a fraction": 3599.5}[kind]
    moment = datetime.fromisoformat(check_url_options("options", {"expiry": expiry})["expiry"])
    assert timedelta(minutes=58) < moment - datetime.now(UTC) <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"expiry": True}, "expiry: needs a time"),
        ({"expiry": float("nan")}, "expiry: needs a time"),
        ({"expiry": 1e30}, "expiry: needs a time"),
        ({"expires": 7}, "unknown option 'expires'; known options: 'method', 'expiry', 'response-content-disposition'"),
        ({"response-content-type": "a\r\nb"}, "response-content-type: needs printable ASCII"),
        ({"response-content-type": "text/plain", "method": "PUT"}, "only the answer to a GET can have it"),
    ],
)
def test_other_options_of_a_url_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        check_url_options("options", options)
    with pytest.raises(UnsupportedMethodError, match="use 'GET', 'HEAD' or 'PUT'"):
        check_url_options("options", {"method": "POST"})
