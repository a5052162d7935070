"""What can be asked: every check says which argument is wrong, and what passes them can be stored and sent."""

import array
import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobferry.checks.arguments import MARK_NAME, MAX_CONTENT, MAX_METADATA_BYTES, MAX_OFFSET, check_job_id
from blobferry.checks.paths import check_path
from blobferry.checks.source_urls import MAX_URL
from blobferry.contract import (
    CLAIMABLE_STATES,
    FINAL_STATES,
    JOBS_QUEUE,
    OPERATIONS,
    READS,
    READS_QUEUE,
    JobState,
    Request,
    UploadState,
    check_request,
)
from blobferry.errors import InvalidOffsetError, InvalidPathError, InvalidRequestError
from blobferry.sql import tables
from tests.refused_requests import REFUSED, Refused
from worker.jobs.mark import mark_of

GOOD: dict[str, Any] = {"path": "/videos/7.mp4", "source": "file:///srv/incoming/7.mp4"}


def ask(**arguments: Any) -> Request:
    return check_request("write_stream", {**GOOD, **arguments})


def test_the_least_request_has_every_default() -> None:
    request = ask()
    assert request == Request("write_stream", "default", "/videos/7.mp4", GOOD | {"offset": 0, "overwrite": True})
    assert request.source == GOOD["source"]


def test_a_full_request_keeps_its_own_arguments_apart_from_the_jobs() -> None:
    own = {"offset": 0, "overwrite": False, "metadata": {"title": "seven"}, "content_type": "video/mp4"}
    kept: dict[str, Any] = {"labels": {"Tenant": "acme ☃"}, "idempotency_key": "video-7", "priority": 9}
    deadline = datetime(2026, 8, 1, tzinfo=UTC)
    request = ask(**own, **kept, storage="archive_2", not_before="2026-07-01T12:00:00+02:00", deadline=deadline)
    assert request == Request(
        *("write_stream", "archive_2", GOOD["path"], GOOD | own),
        **kept,
        not_before=datetime(2026, 7, 1, 10, tzinfo=UTC),
        deadline=deadline,
    )
    json.dumps(request.arguments)


def test_none_is_the_same_as_leaving_an_optional_argument_out() -> None:
    names = ("metadata", "content_type", "labels", "idempotency_key", "not_before", "deadline")
    assert ask(**dict.fromkeys(names)) == ask()


#: What each argument must not be.
WRONG: dict[str, tuple[Any, ...]] = {
    "path": ("no/slash", 7, None),
    "source": (
        *("ftp://example.org/a", "http:///a", "http://host:port/a", "http://host:0/a", "http://host/a b"),
        *("http://host\\@other/a", "https://host/a#b", "https://host/a\r\nX-Other: 1", "https://[::1/a"),
        *("https://host/" + "a" * MAX_URL, "blob://Default/a", "blob://default/a?b", "blob://user@default/a"),
        *("srv/a", "file:relative", "file://other-host/srv/a", "file:///srv/a?b", "file:///srv/a#b"),
        *("file:///srv/a%00b", "file:///srv/a\0b", "file://[::1/srv/a", "file:///srv/\ud800", b"file:///srv/a", None),
    ),
    "offset": (-1.5, "0", False, 0.0),
    "overwrite": ("true", 1, None),
    "metadata": (
        *({"Title": "upper"}, {"title": "☃"}, {"title": "two\nlines"}, {"title": 7}, {"": "empty"}),
        *({"title:": "colon"}, [("title", "pair")], {"title": "x" * MAX_METADATA_BYTES}),
    ),
    "content_type": ("", "text/plain\r\nX-Other: 1", "täxt", "x" * 256),
    "storage": ("Default", "", "default\n", "x" * 65, None),
    "idempotency_key": ("", "x" * 256, "a\0b", "\ud800", 7),
    "priority": (-1, 10, True, "5", 5.0),
    "not_before": (datetime(2026, 1, 1), "2026-01-01T00:00:00", "soon", 1_790_000_000),  # noqa: DTZ001  the point of it
    "deadline": ("2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"),
    "labels": ({"a": 1.5}, {"a": True}, {1: "a"}, "a", {"a": "zero\0byte"}, {"zero\0byte": "a"}, {"a": "\ud800"}),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG.items() for value in values],
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
    assert caught.value.path == path


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


@pytest.mark.parametrize(
    "url",
    [
        *("file:///srv/a", "file://localhost/srv/a", "file:/srv/a", "file:///srv/%23%3F%25ä", "file:///srv/a@2x b"),
        *("blob://archive/a/b", "http://host", "https://[::1]:8443/a%20b", "https://bücher.example/ä@2x"),
    ],
)
def test_good_sources(url: str) -> None:
    request = ask(source=url)
    assert (request.arguments["source"], request.source) == (url, url)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("HTTPS://Host/A", "https://Host/A"),
        ("FILE:///srv/A", "file:///srv/A"),
        ("Blob://archive/A", "blob://archive/A"),
    ],
)
def test_a_source_is_kept_with_its_scheme_in_small_letters(url: str, kept: str) -> None:
    request = ask(source=url)
    assert (request.arguments["source"], request.source) == (kept, kept)


def test_a_source_with_secrets_is_shown_without_them_and_kept_with_them() -> None:
    url = "https://user:s3cret@host/a?X-Amz-Signature=s3cret&partNumber=1"
    request = ask(source=url)
    assert request.arguments["source"] == url
    assert request.source == "https://***@host/a?X-Amz-Signature=***&partNumber=***"


@pytest.mark.parametrize("offset", [0, 1, 5 * 1024**3, MAX_OFFSET])
def test_good_offsets(offset: int) -> None:
    assert ask(offset=offset).arguments["offset"] == offset


@pytest.mark.parametrize("name", ["offset", "priority", "path", "overwrite"])
def test_a_number_that_cannot_be_printed_is_refused_as_any_other(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ask(**{name: 10**5000})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("offset", [-1, -(10**30), MAX_OFFSET + 1])
def test_an_offset_that_no_blob_can_have_is_an_invalid_offset(offset: int) -> None:
    with pytest.raises(InvalidOffsetError) as caught:
        ask(offset=offset)
    assert (caught.value.path, caught.value.offset) == (GOOD["path"], offset)


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


def test_every_operation_is_a_task_of_its_name_on_its_queue() -> None:
    for queue, operations in ((JOBS_QUEUE, OPERATIONS), (READS_QUEUE, READS)):
        for name, operation in operations.items():
            assert (operation.task_name, operation.queue) == (f"blobferry.{name}", queue)
            assert not (set(operation.required) | set(operation.optional)) & set(operation.options)
    assert [*OPERATIONS] == ["put_content", "write_stream", "read_stream", "move", "delete"]
    assert [*READS] == ["get_content", "stat", "list", "url_for", "urls_for"]


# --- the other operations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_a_wrong_request_is_refused_with_the_same_error_everywhere(refused: Refused) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_request(refused.operation, refused.arguments)
    assert type(caught.value) is refused.error
    assert refused.says in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("given", [[], "/a", None, ["/a"] * 1001, {"/a": 1}], ids=lambda given: str(given)[:9])
def test_one_request_asks_for_the_urls_of_1_to_1000_paths(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="paths: needs a list of 1 to 1000 paths"):
        check_request("urls_for", {"paths": given})
    request = check_request("urls_for", {"paths": ("/b", "/a", "/b")})
    assert (request.path, request.arguments["paths"]) == ("/b", ["/b", "/a", "/b"])
    with pytest.raises(InvalidPathError):
        check_request("urls_for", {"paths": ["/ä"]})
    assert check_request("urls_for", {"paths": ["/ä"]}, keys="any").path == "/ä"


TWO = {"source_path": "/a", "dest_path": "/b"}


@pytest.mark.parametrize(
    ("operation", "given", "added"),
    [
        ("put_content", {"path": "/a", "contents": b"ab"}, {"contents": {"base64": "YWI="}, "overwrite": True}),
        ("read_stream", {"path": "/a", "dest": "file:///b"}, {"offset": 0, "overwrite": True}),
        ("read_stream", {"path": "/a", "dest": "file:///b", "offset": 9, "overwrite": False}, {}),
        ("move", TWO, {"overwrite": True}),
        ("move", TWO | {"dest_storage": "archive", "overwrite": False}, {}),
        ("delete", {"path": "/a"}, {}),
        ("get_content", {"path": "/a"}, {}),
        ("stat", {"path": "/"}, {}),
        ("list", {"path": "/"}, {}),
        ("url_for", {"path": "/a", "options": {"method": None}}, {"options": {}}),
        (
            "url_for",
            {"path": "/a", "options": {"method": "HEAD", "expiry": datetime(2030, 1, 1, tzinfo=UTC)}},
            {"options": {"method": "HEAD", "expiry": "2030-01-01T00:00:00+00:00"}},
        ),
    ],
)
def test_what_is_accepted_is_kept_in_its_json_form(
    operation: str, given: dict[str, Any], added: dict[str, Any]
) -> None:
    request = check_request(operation, given)
    assert request.arguments == given | added
    assert check_request(operation, json.loads(json.dumps(request.arguments))) == request


@pytest.mark.parametrize(
    ("operation", "given", "name"),
    [("move", TWO, "dest_storage"), ("url_for", {"path": "/a"}, "options"), ("delete", {"path": "/a"}, "labels")],
)
def test_none_is_as_good_as_nothing(operation: str, given: dict[str, Any], name: str) -> None:
    assert check_request(operation, given | {name: None}) == check_request(operation, given)


@pytest.mark.parametrize(
    "contents",
    [b"", b"\0\xff", bytearray(b"ab"), memoryview(b"abcd")[::2], array.array("H", [1, 2]), bytes(MAX_CONTENT)],
    ids=lambda contents: type(contents).__name__,
)
def test_anything_like_bytes_is_content(contents: Any) -> None:
    kept = check_request("put_content", {"path": "/a", "contents": contents}).arguments["contents"]
    assert b64decode(kept["base64"]) == bytes(memoryview(contents).tobytes())
    assert check_request("put_content", {"path": "/a", "contents": kept}).arguments["contents"] == kept


@pytest.mark.parametrize(
    "contents",
    [
        *({}, {"base64": b"AA=="}, {"base64": "AA==", "type": "x"}, {"base64": None}, {"__type__": "bytes"}),
        *({"base64": text} for text in ("A", "AA", "AA==AA==", "AA==\n", "AA ==", "A-_A", "ä", "\ud800", "=")),
        {"base64": "AAAA" * (MAX_CONTENT // 3 + 1)},
        *("", "text", None, 7, 1.5, [b"a"], True, ...),
    ],
    ids=lambda contents: ascii(contents)[:30],
)
def test_anything_else_is_no_content(contents: Any) -> None:
    with pytest.raises(InvalidRequestError, match="contents") as caught:
        check_request("put_content", {"path": "/a", "contents": contents})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("operation", "arguments", "about"),
    [
        ("read_stream", {"path": "/a", "dest": "file:///srv/b"}, ("/a", None, "file:///srv/b")),
        ("move", TWO, ("/b", "/a", None)),
        ("put_content", {"path": "/a", "contents": b"x"}, ("/a", None, None)),
    ],
)
def test_what_a_request_is_about(operation: str, arguments: dict[str, Any], about: tuple[str | None, ...]) -> None:
    request = check_request(operation, arguments)
    assert (request.path, request.source, request.dest) == about


_ODD = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=30) | st.datetimes(),
    st.text(max_size=20) | st.just("/a") | st.just(10**5000) | st.just(bytearray(b"x")),
    st.builds("{}://{}".format, st.sampled_from(["file", "http", "HTTPS", "blob", ""]), st.text(max_size=20)),
    st.from_regex(r"https?://[a-z:@\[\]/?#&=%]{0,20}", fullmatch=True),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(
        st.sampled_from(["base64", "method", "expiry", "a", ""]) | st.text(max_size=3),
        st.none() | st.integers() | st.text(max_size=9) | st.sampled_from(["AA==", "GET"]),
        max_size=2,
    ),
)


@st.composite
def _asked(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    operation = {**OPERATIONS, **READS}[draw(st.sampled_from([*OPERATIONS, *READS]))]
    good = {"path": "/a", "source_path": "/a", "dest_path": "/b", "contents": b"x", "source": "file:///a"}
    arguments: dict[str, Any] = {
        name: (good | {"dest": "file:///b", "paths": ["/a", "/b"]})[name] for name in operation.required
    }
    names = st.sampled_from([*operation.required, *operation.optional, *operation.options]) | st.text(max_size=3)
    return operation.name, arguments | draw(st.dictionaries(names, _ODD, max_size=3))


@given(_asked())
def test_whatever_is_asked_is_a_request_that_can_be_kept_or_an_invalid_request(
    asked: tuple[str, dict[str, Any]],
) -> None:
    operation, arguments = asked
    try:
        request = check_request(operation, arguments)
    except InvalidRequestError as error:
        str(error)  # it can be printed
    else:
        again = json.loads(json.dumps(request.arguments))
        assert check_request(operation, again).arguments == request.arguments


def test_the_states_of_jobs_and_uploads_are_these() -> None:
    final, claimable = {"succeeded", "failed", "cancelled"}, {"queued", "retrying", "verifying"}
    assert set(JobState) == {"running", "paused"} | claimable | final
    assert (set(FINAL_STATES), set(CLAIMABLE_STATES)) == (final, claimable)
    assert set(UploadState) == {"opening", "open", "completing", "completed", "aborting", "gone"}


def test_the_queues_are_ours_alone() -> None:
    assert (JOBS_QUEUE, READS_QUEUE) == ("blobferry", "blobferry.reads")


#: What others may read in the rows. There may be more.
COLUMNS = {
    "blobferry_jobs": "id seq tenant queue request_version message_options publish_seq published_at parent_id root_id "
    "phase base_etag version_id bytes_done bytes_sent attempt failures crashes restarts token operation storage path "
    "source state size run_at created_at updated_at started_at finished_at error_code error_message result labels "
    "idempotency_key priority not_before deadline on_end ends ended_in spooled removes_source",
    "blobferry_uploads": "job_id upload_id storage bucket endpoint key part_size state opened_at",
    "blobferry_parts": "part_number offset size etag checksum",
    "blobferry_attempts": "job_id attempt worker started_at finished_at outcome error_code bytes_sent sent",
    "blobferry_path_locks": "bucket path job_id",
    "blobferry_tombstones": "id finished_at pruned_at",
    "blobferry_capabilities": "store capability reason seen_at",
    "blobferry_workers": "worker name alive_until",
    "blobferry_lacks": "worker need name reason times met_at",
    "blobferry_deliveries": "id job_id sequence kind job_state state due_at tries delivered_at url endpoint host "
    "secret resent_at tried_at status error",
    "blobferry_listeners": "name position updated_at",
    "blobferry_spools": "id claimed_at",
}


def test_the_tables_and_their_columns_are_these() -> None:
    assert set(tables.metadata.tables) == set(COLUMNS)
    assert tables.VERSION_TABLE == "blobferry_alembic_version"
    for name, columns in COLUMNS.items():
        assert set(columns.split()) <= set(tables.metadata.tables[name].columns.keys()), name


@pytest.mark.parametrize("path", ["/my video.mp4", "/a+b/100%", "/café", "/👩‍👩‍👧", "/" + "ä" * 511])
def test_any_keys_are_taken_where_they_are_asked_for(path: str) -> None:
    moved = {"source_path": path, "dest_path": path}
    assert check_request("move", moved, keys="any").path == path
    assert check_request("list", {"path": path}, keys="any").path == path
    for operation, wanted in (("move", moved), ("list", {"path": path})):
        with pytest.raises(InvalidPathError):
            check_request(operation, wanted)


@pytest.mark.parametrize(
    "path", ["", "a b", "/a //b", "/a\n", "/ä/..", "/a\0", "/" + "a" * 1024, "/" + "ä" * 513, None]
)
def test_any_keys_are_not_quite_any(path: Any) -> None:
    with pytest.raises(InvalidPathError) as caught:
        check_request("stat", {"path": path}, keys="any")
    assert (caught.value.path, caught.value.keys) == (path, "any")


@pytest.mark.parametrize("url", ["blob://cold/a%20b", "blob://cold/caf%C3%A9%2B%23%3F", "blob://cold/a%2Bb%25"])
def test_a_blob_url_names_any_key_percent_encoded(url: str) -> None:
    given = {"path": "/a", "source": url}
    assert check_request("write_stream", given, keys="any").source_url == url
    with pytest.raises(InvalidPathError):
        check_request("write_stream", given)


def test_a_blob_url_has_one_spelling_by_which_others_find_it() -> None:
    given = {"path": "/a", "source": "blob://cold/a+b%7e%c3%a9"}
    assert check_request("write_stream", given, keys="any").source_url == "blob://cold/a%2Bb~%C3%A9"


@pytest.mark.parametrize("url", ["blob://cold/%FF", "blob://cold/a%0Ab", "blob://cold/a?b", "blob://cold/a/%2e%2E/b"])
def test_a_blob_url_of_any_key_is_still_a_url_of_a_path(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_request("write_stream", {"path": "/a", "source": url}, keys="any")


@pytest.mark.parametrize("labels", [{"a": "x" * 16_384}, {"ä" * 8_192: "x"}, {str(n): "x" * 50 for n in range(400)}])
def test_labels_of_more_than_16_kib_are_refused_with_their_size(labels: dict[str, str]) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"labels: have \d+ bytes, names and values together; at most 16384 may be"
    ):
        check_request("delete", {"path": "/a", "labels": labels})
    assert check_request("delete", {"path": "/a", "labels": {"a": "x" * 16_383}}).labels
