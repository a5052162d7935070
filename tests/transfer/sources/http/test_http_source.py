"""Sources behind http URLs: ranges of one version only, whatever the server does; all of it where it has none."""

import gc
import logging
import os
import random
import resource
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dev.waiting import wait_until
from tests.transfer.bench import Bench, read, read_by_threads
from tests.transfer.sources.http.http_site import (
    OLD,
    Answer,
    Framing,
    Handler,
    Site,
    drop_after,
    give,
    hang_up,
    is_permanent,
    loopback,
    send,
    serving,
    status,
    tell,
)
from worker.errors import (
    SourceChangedError,
    SourceError,
    SourceNotAllowedError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from worker.transfer.sources.http.http_source import HttpSource, NoRangesError
from worker.transfer.sources.http.spooled_source import SpooledSource
from worker.transfer.stop import Interrupted, Stop, never
from worker.transfer.upload.engine import Engine
from worker.units import GIB, MIB

DATA = random.Random(7).randbytes(100_000)
OTHER = random.Random(8).randbytes(100_000)
NEWER = "Thu, 02 Jan 2020 00:00:00 GMT"

Opened = HttpSource | SpooledSource
Open = Callable[..., Opened]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(DATA) as site:
        yield site


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    """Opens sources on loopback, and closes them."""

    def open_(site: Site | str, stop: Stop = never, **settings: Any) -> Opened:
        url = site if isinstance(site, str) else site.url + "/a"
        settings = {"http_spool_directory": tmp_path, "http_read_seconds": 2.0, **settings}
        return opened.enter_context(closing(HttpSource.open(url, loopback(**settings), stop)))

    with ExitStack() as opened:
        yield open_
    assert os.listdir(tmp_path) == []


@pytest.fixture
def source(site: Site, open_: Open) -> Opened:
    """The site, which has ranges so far."""
    return open_(site)


def whole(source: Opened) -> bytes:
    return read(source, 0, source.size)


def assert_kept(source: Opened) -> None:
    """All of it is in a file, because no two ranges could be joined."""
    assert isinstance(source, SpooledSource)
    assert whole(source) == DATA


@pytest.mark.parametrize("etag", ['"a\0b"', 'W/"weak"', ""])
def test_an_etag_that_no_column_takes_is_weak_is_no_part_of_what_is_kept(etag: str, site: Site, open_: Open) -> None:
    """A zero byte in it would be refused by the column of the fingerprint."""
    site.etag, site.ranges = etag, False
    assert set(open_(site).fingerprint) == {"size", "checksum"}


@pytest.mark.parametrize("date", [f"{OLD}\0", f"{OLD} \0", f"{OLD} (\x1b[2J)"])
def test_a_date_that_no_column_takes_joins_no_ranges(date: str, site: Site, open_: Open) -> None:
    """A date is read although other text follows it."""
    site.etag, site.last_modified = None, date
    source = open_(site)
    assert_kept(source)
    assert set(source.fingerprint) == {"size", "checksum"}


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_ranges_are_read_of_the_version_first_seen(site: Site, source: Opened) -> None:
    assert isinstance(source, HttpSource)
    assert (source.size, source.fingerprint) == (100_000, {"size": 100_000, "etag": '"one"'})
    assert (read(source, 70_000, 30_000), read(source, 0, 10)) == (DATA[70_000:], DATA[:10])
    source.check()
    assert site.asked("Range") == ["bytes=0-0", "bytes=70000-99999", "bytes=0-9", "bytes=0-0"]
    assert site.asked("If-Range") == [None, '"one"', '"one"', '"one"']
    assert set(site.asked("Accept-Encoding")) == {"identity"}


def test_many_threads_read_at_once(source: Opened) -> None:
    assert read_by_threads(source) == DATA * 2


def test_connections_are_used_again(site: Site, open_: Open) -> None:
    peers: set[Any] = set()

    def note(handler: Handler) -> None:
        peers.add(handler.client_address)
        give(handler)

    site.routes["/a"] = note
    source = open_(site)
    for offset in range(0, 100_000, 10_000):
        read(source, offset, 10_000)
    source.check()
    assert len(peers) == 1


def test_an_old_modification_date_does_where_there_is_no_etag(site: Site, open_: Open) -> None:
    site.etag = None
    source = open_(site)
    assert isinstance(source, HttpSource)
    assert source.fingerprint == {"size": 100_000, "last_modified": site.last_modified}
    assert read(source, 5, 10) == DATA[5:15]
    assert site.asked("If-Range") == [None, site.last_modified]


def test_a_modification_in_this_very_second_is_looked_at_again_a_second_later(site: Site, open_: Open) -> None:
    site.etag = None
    site.last_modified = None

    def modified_when_it_is_asked_for(handler: Handler) -> None:
        site.last_modified = site.last_modified or format_datetime(datetime.now(UTC), usegmt=True)
        give(handler)

    site.routes["/a"] = modified_when_it_is_asked_for
    source = open_(site)
    assert isinstance(source, HttpSource)
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("etag", "last_modified"),
    [
        ('W/"weak"', None),
        ('W/"weak"', "Wed, 01 Jan 2020 00:00:00 GMT"),  # a date may not be used beside a weak ETag (RFC 9110, 13.1.5)
        ("unquoted", None),
        (None, None),
        (None, "yesterday"),
        (None, "Wed, 01 Jan 2020 00:00:00 -0000"),
        (None, "Fri, 01 Jan 2100 00:00:00 GMT"),
    ],
)
def test_ranges_are_not_joined_without_a_strong_validator(
    etag: str | None, last_modified: str | None, site: Site, open_: Open
) -> None:
    site.etag, site.last_modified = etag, last_modified
    assert_kept(open_(site))
    assert site.asked("Range") == ["bytes=0-0", None]


def test_fewer_bytes_than_asked_for_are_taken_and_the_rest_is_asked_for(site: Site, source: Opened) -> None:
    site.routes["/a"] = partial(give, most=7_000)
    assert read(source, 10_000, 30_000) == DATA[10_000:40_000]


def test_reading_past_the_end_is_a_changed_source_and_asks_nobody(site: Site, source: Opened) -> None:
    with pytest.raises(SourceChangedError, match="has 100000 bytes, 100001 were expected"):
        read(source, 99_999, 2)
    assert read(source, 100_000, 0) == b""
    assert len(site.requests) == 1


# --- a source that changes -------------------------------------------------------------------------------------------


def replace(site: Site) -> None:
    site.data, site.etag = OTHER, '"two"'


def blind(handler: Handler) -> None:
    del handler.headers["If-Range"]
    give(handler)


CHANGES: dict[str, dict[str, Any]] = {
    "replaced": {"data": OTHER, "etag": '"two"'},
    "touched": {"etag": None, "last_modified": NEWER},
    "grown": {"data": DATA + b"more"},
    "shrunk": {"data": b"x"},
    "without its ETag": {"etag": None},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_source_that_changes_is_noticed_at_the_next_read_and_by_check(
    change: dict[str, Any], honours_if_range: bool, site: Site, source: Opened
) -> None:
    vars(site).update(change)
    if not honours_if_range:
        site.routes["/a"] = blind
    with pytest.raises(SourceChangedError):
        read(source, 50_000, 10)
    if change != CHANGES["shrunk"] or not honours_if_range:
        with pytest.raises(SourceChangedError):
            source.check()


def test_another_modification_date_in_a_206_is_noticed(site: Site, open_: Open) -> None:
    site.etag = None
    source = open_(site)
    site.routes["/a"] = tell(206, {"Content-Range": "bytes 0-3/100000", "Last-Modified": NEWER}, b"half")
    with pytest.raises(SourceChangedError, match="last modified"):
        read(source, 0, 4)


def test_a_change_between_a_drop_and_the_resume_never_joins_two_halves(site: Site, source: Opened) -> None:
    def drop_and_change(handler: Handler) -> None:
        drop_after(20_000)(handler)
        replace(site)

    site.script.append(drop_and_change)
    with pytest.raises(SourceChangedError):
        whole(source)


@pytest.mark.parametrize("code", [412, 416])
def test_a_refused_precondition_or_range_means_changed(code: int, site: Site, source: Opened) -> None:
    site.script.append(status(code))
    with pytest.raises(SourceChangedError, match=str(code)):
        read(source, 0, 10)


def test_a_server_that_forgets_its_ranges_has_not_changed_the_source(site: Site, source: Opened) -> None:
    site.script.append(tell(200, {}, DATA))
    assert read(source, 7, 10) == DATA[7:17]  # the next answer had a range again
    site.ranges = False
    with pytest.raises(SourceUnavailableError, match="no longer answers ranges"):
        read(source, 7, 10)


# --- servers in trouble ----------------------------------------------------------------------------------------------


def test_a_dropped_connection_is_resumed_at_the_byte_that_it_had_reached(site: Site, source: Opened) -> None:
    site.script.extend([drop_after(30_000), hang_up, drop_after(0), status(503)])
    assert whole(source) == DATA
    assert site.asked("Range")[1:] == ["bytes=0-99999", *["bytes=30000-99999"] * 4]


def test_drops_without_end_are_an_error_that_a_retry_may_mend(site: Site, source: Opened) -> None:
    site.routes["/a"] = drop_after(10)
    with pytest.raises(SourceUnavailableError, check=lambda error: error.transient):
        whole(source)
    assert len(site.requests) == 6


def test_a_server_that_never_gives_more_than_so_many_bytes_is_read_to_the_end(open_: Open) -> None:
    data = random.Random(9).randbytes(MIB)
    with serving(data) as site:
        source = open_(site)
        site.routes["/a"] = drop_after(70_000)
        assert whole(source) == data
        assert len(site.requests) == 16


def test_a_server_that_falls_silent_is_given_up_after_the_read_timeout(site: Site, open_: Open) -> None:
    gone = threading.Event()

    def silent(handler: Handler) -> None:
        gone.wait(20)
        hang_up(handler)

    site.routes["/a"] = silent
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="timed out"):
        open_(site, http_read_seconds=0.2)
    assert time.monotonic() - started < 5
    gone.set()


def test_a_slow_server_is_waited_for(site: Site, open_: Open) -> None:
    def slow(handler: Handler) -> None:
        handler.send_response(206)
        for name, value in {"Content-Range": "bytes 0-4/100000", "Content-Length": "5", "ETag": '"one"'}.items():
            handler.send_header(name, value)
        handler.end_headers()
        for byte in DATA[:5]:
            time.sleep(0.2)
            handler.wfile.write(bytes([byte]))

    source = open_(site, http_read_seconds=0.6)
    site.script.append(slow)
    assert read(source, 0, 5) == DATA[:5]
    assert len(site.requests) == 2


def test_nobody_listening_is_transient(open_: Open) -> None:
    with serving(DATA) as site:
        pass
    with pytest.raises(SourceUnavailableError, match="refused"):
        open_(site)


@pytest.mark.parametrize(("allow_private", "reason"), [(True, None), (False, "no address of")])
def test_a_name_without_an_address_is_transient(allow_private: bool, reason: str | None, open_: Open) -> None:
    with pytest.raises(SourceUnavailableError, match=reason):
        open_("http://no-such-host.invalid/a", http_allow_private=allow_private)


STATUSES = {
    SourceError: [204, 304, 400, 418],
    SourceNotAllowedError: [401, 403],
    SourceNotFoundError: [404, 410],
    SourceUnavailableError: [408, 425, 429, 500, 503],
}


@pytest.mark.parametrize(("code", "kind"), [(code, kind) for kind, codes in STATUSES.items() for code in codes])
def test_each_status_has_its_error(code: int, kind: type[SourceError], site: Site, open_: Open) -> None:
    site.routes["/a"] = status(code)
    with pytest.raises(SourceError, match=str(code), check=lambda error: type(error) is kind):
        open_(site)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Range": "bytes 50-49/100000"}, b""),
        ({"Content-Range": "bytes 50-59/100000"}, b"01234"),  # another Content-Length
        ({"Content-Range": "bytes 50-59/100000"}, b"012345678901234"),
    ],
)
def test_a_lying_answer_gives_no_bytes(headers: dict[str, str], body: bytes, site: Site, source: Opened) -> None:
    site.routes["/a"] = tell(206, headers, body)
    with pytest.raises(SourceError, check=is_permanent):
        read(source, 50, 10)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-9/100000"},  # not where it was asked for
        {"Content-Range": "bytes 50-59/*"},
        {"Content-Range": "items 50-59/100000"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
    ],
)
def test_a_range_that_cannot_be_used_gives_no_bytes(headers: dict[str, str], site: Site, source: Opened) -> None:
    site.routes["/a"] = tell(206, headers, b"0123456789")
    with pytest.raises(NoRangesError):
        read(source, 50, 10)
    assert len(site.requests) == 2  # asking for it again gains nothing


def test_a_range_may_be_longer_than_it_was_asked_for(site: Site, source: Opened) -> None:
    site.routes["/a"] = tell(206, {"Content-Range": "bytes 50-99/100000"}, DATA[50:100])
    assert [read(source, 50, size) for size in (10, 20)] == [DATA[50:60], DATA[50:70]]


def test_a_range_may_come_in_chunks_but_not_short(site: Site, source: Opened) -> None:
    def chunks(count: int) -> Callable[[Handler], None]:
        headers = {"Content-Range": "bytes 50-59/100000"}
        return lambda handler: send(handler, 206, headers, DATA[50 : 50 + count], framing="chunked")

    site.routes["/a"] = status(503)
    site.script.append(chunks(10))
    assert read(source, 50, 10) == DATA[50:60]
    site.script.append(chunks(9))
    with pytest.raises(SourceUnavailableError):
        read(source, 50, 10)


def test_an_encoding_of_the_transfer_is_refused(site: Site, open_: Open) -> None:
    site.headers = {"Transfer-Encoding": "gzip"}
    with pytest.raises(SourceError, match="'gzip', although the request allows none", check=is_permanent):
        open_(site)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_is_labelled_as_not_encoded_is_none(ranges: bool, site: Site, open_: Open) -> None:
    site.ranges, site.headers = ranges, {"Transfer-Encoding": "identity"}
    assert whole(open_(site)) == DATA


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "x-gzip", "br", "aws-chunked", "utf-8", "none", "gzip, br"])
def test_a_file_that_is_labelled_as_encoded_is_taken_as_it_is(
    encoding: str, ranges: bool, site: Site, open_: Open
) -> None:
    site.ranges, site.headers = ranges, {"Content-Encoding": encoding}
    assert whole(open_(site)) == DATA


def test_another_encoding_of_the_same_file_has_other_bytes(site: Site, open_: Open) -> None:
    source = open_(site)
    site.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(SourceChangedError, match="its Content-Encoding was absent and is gzip now"):
        read(source, 0, 10)


def test_bytes_after_the_end_of_a_body_belong_to_nothing(site: Site, open_: Open) -> None:
    def longer(handler: Handler) -> None:
        give(handler)
        handler.wfile.write(DATA[:100])

    site.routes["/a"] = longer
    for ranges, etag in ((True, '"one"'), (True, 'W/"weak"'), (False, None)):
        site.ranges, site.etag = ranges, etag
        source = open_(site)
        for _ in range(3):
            assert read(source, 50_000, 10) == DATA[50_000:50_010]
            source.check()
        assert whole(source) == DATA


# --- several servers behind one name ---------------------------------------------------------------------------------


def test_of_two_servers_with_two_etags_the_one_first_seen_is_read(site: Site, open_: Open) -> None:
    def next_server(handler: Handler) -> None:
        site.etag = '"two"' if site.etag == '"one"' else '"one"'
        if site.etag == '"two"':
            site.data = OTHER  # a server whose bytes are others: none of them may be taken
        else:
            site.data = DATA
        give(handler)

    site.routes["/a"] = next_server
    site.etag = '"two"'
    source = open_(site)
    assert source.fingerprint["etag"] == '"one"'
    for offset in range(0, 100_000, 10_000):
        assert read(source, offset, 10_000) == DATA[offset : offset + 10_000]
    source.check()
    assert None in site.asked("If-Range")[1:]


def test_a_server_that_answers_if_range_with_all_of_it_is_asked_without(site: Site, open_: Open) -> None:
    def without_if_range(handler: Handler) -> None:
        if handler.headers["If-Range"]:
            send(handler, 200, {}, DATA)
        else:
            give(handler)

    site.routes["/a"] = without_if_range
    source = open_(site)
    assert isinstance(source, HttpSource)
    for offset in range(0, 100_000, 10_000):
        assert read(source, offset, 10_000) == DATA[offset : offset + 10_000]
    assert len(site.asked("If-Range")) - site.asked("If-Range").count(None) == 1
    assert len(site.requests) == 12


def test_a_server_that_has_lost_its_ranges_is_not_asked_again_and_again(site: Site, open_: Open) -> None:
    source = open_(site)
    site.ranges = False
    asked = len(site.requests)
    with pytest.raises(SourceUnavailableError, match="no longer answers ranges") as caught:
        read(source, 0, 10)
    assert caught.value.transient
    assert len(site.requests) - asked <= 6
    again = open_(site)  # as the next run opens it
    assert isinstance(again, SpooledSource)
    assert whole(again) == DATA


def test_all_of_it_can_be_taken_in_one_answer(site: Site, open_: Open) -> None:
    source = HttpSource.open(site.url, loopback(), whole_size=100_000)
    assert isinstance(source, SpooledSource)
    assert (whole(source), site.asked("Range")) == (DATA, [None])
    source.close()
    with pytest.raises(SourceChangedError, match="had 99999 bytes and has 100000 now"):
        HttpSource.open(site.url, loopback(), whole_size=99_999)


# --- servers that ask to wait, and slow ones -------------------------------------------------------------------------


@pytest.mark.parametrize("code", [408, 425, 429, 500, 503])
def test_a_server_that_asks_to_wait_is_not_asked_again_at_once(code: int, site: Site, open_: Open) -> None:
    source = open_(site)
    site.routes["/a"] = status(code, Retry_After="120")
    with pytest.raises(SourceUnavailableError, match=rf"{code} .*; it asks to wait 120 s") as caught:
        read(source, 0, 10)
    assert caught.value.retry_after == 120
    assert len(site.requests) == 2


def test_a_refusal_asks_for_no_later_try(site: Site, open_: Open) -> None:
    site.routes["/a"] = status(403, Retry_After="120")
    with pytest.raises(SourceNotAllowedError) as caught:
        open_(site)
    assert caught.value.retry_after is None


@pytest.mark.parametrize("when", ["headers of the first answer", "a part", "the whole body"])
def test_a_server_that_hangs_is_left_when_a_stop_comes(when: str, site: Site, open_: Open) -> None:
    hangs, release = threading.Event(), threading.Event()

    def hang(handler: Handler) -> None:
        handler.close_connection = True  # once released, or the abandoned thread waits for all of its timeout
        if when == "headers of the first answer":
            hangs.set()
            release.wait(20)
            return
        handler.send_response(200 if when == "the whole body" else 206)
        for name, value in {"Content-Range": "bytes 0-9/100000", "Content-Length": "10", "ETag": '"one"'}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"x")
        hangs.set()
        release.wait(20)

    try:
        if when == "a part":
            source = open_(site, stop=hangs.is_set, http_read_seconds=20)
            site.routes["/a"] = hang
            with pytest.raises(Interrupted):
                read(source, 0, 10)
        else:
            site.routes["/a"] = hang
            with pytest.raises(Interrupted):
                open_(site, stop=hangs.is_set, http_read_seconds=20)
    finally:
        release.set()
    wait_until(lambda: "source" not in [thread.name for thread in threading.enumerate()], 30, "the abandoned thread")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_below_the_least_rate_is_given_up(ranges: bool, site: Site, open_: Open) -> None:
    slow = {"least_rate": 10**15, "least_rate_seconds": 1e-9}
    site.ranges = ranges
    with pytest.raises(SourceUnavailableError, match="too slow"):
        whole(open_(site, **slow))
    assert whole(open_(site, least_rate=0, least_rate_seconds=1e-9)) == DATA


# --- servers without ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_without_ranges_all_of_it_is_kept_and_read_at_any_offset(framing: Framing, site: Site, open_: Open) -> None:
    site.ranges, site.framing = False, framing
    source = open_(site)
    assert_kept(source)
    assert read(source, 70_000, 30_000) == DATA[70_000:]
    assert read_by_threads(source) == DATA * 2
    source.check()
    assert len(site.requests) == (2 if framing == "close" else 1)  # by opening it
    with pytest.raises(SourceChangedError, match="ends at byte 100000"):
        read(source, 99_999, 2)


def test_an_empty_body_is_a_source_of_no_bytes(site: Site, open_: Open) -> None:
    site.data = b""
    source = open_(site)
    assert (source.size, whole(source)) == (0, b"")
    assert site.asked("Range") == ["bytes=0-0", None]
    source.check()


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-0/*"},
        {"Content-Range": "nonsense"},
        {"Content-Range": "bytes 0-1023/100000"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
    ],
)
def test_odd_ranges_are_not_relied_on(headers: dict[str, str], site: Site, open_: Open) -> None:
    site.script.append(tell(206, headers, b"x"))
    assert_kept(open_(site))


def test_a_206_to_a_request_without_a_range_is_an_error(site: Site, open_: Open) -> None:
    site.routes["/a"] = tell(206, {"Content-Range": "bytes 0-0/*"}, b"x")
    with pytest.raises(SourceError, match="206 to a request for all of it"):
        open_(site)


def test_without_ranges_other_bytes_or_another_strong_etag_are_another_source(site: Site, open_: Open) -> None:
    site.ranges, site.etag, site.last_modified = False, None, None
    first = open_(site).fingerprint
    assert open_(site).fingerprint == first
    site.last_modified = format_datetime(datetime.now(UTC), usegmt=True)  # some pages are dated anew each time
    assert open_(site).fingerprint == first
    site.data = OTHER
    second = open_(site).fingerprint
    site.etag = '"two"'
    assert len({str(first), str(second), str(open_(site).fingerprint)}) == 3


@pytest.mark.parametrize(
    ("framing", "answers", "reason"),
    [
        ("length", [drop_after(99_999)], None),
        ("chunked", [drop_after(60_000)], None),
        ("close", [drop_after(60_000)], "ended differently"),  # nothing tells its length, so that it is read twice
        ("close", [give, drop_after(60_000)], "ended differently"),
    ],
)
def test_a_body_that_breaks_off_is_noticed(
    framing: Framing, answers: list[Answer], reason: str | None, site: Site, open_: Open
) -> None:
    site.ranges, site.framing = False, framing
    site.script.extend(answers)
    with pytest.raises(SourceUnavailableError, match=reason):
        open_(site)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_more_than_the_allowed_size_is_refused(ranges: bool, framing: Framing, site: Site, open_: Open) -> None:
    site.ranges, site.framing = ranges, framing
    assert open_(site, http_max_size=100_000).size == 100_000
    with pytest.raises(SourceNotAllowedError, match="99999"):
        open_(site, http_max_size=99_999)


def test_more_than_the_disk_holds_is_said_before_it_is_read(site: Site, open_: Open) -> None:
    site.routes["/a"] = tell(200, {"Content-Length": str(1 << 60)})
    with pytest.raises(SourceUnavailableError, match=f"bytes free for {1 << 60}"):
        open_(site, http_max_size=None)


@pytest.mark.parametrize("ranges", [True, False])
def test_by_default_5_gib_are_allowed(ranges: bool, site: Site, open_: Open) -> None:
    def large(size: int) -> Answer:
        if ranges:
            return tell(206, {"Content-Length": "1", "Content-Range": f"bytes 0-0/{size}"}, b"x")
        return tell(200, {"Content-Length": str(size)}, b"x")

    site.routes["/a"] = large(5 * GIB + 1)
    with pytest.raises(
        SourceNotAllowedError, match=r"at least 5368709121 bytes, sources\.http_max_size allows 5368709120"
    ):
        open_(site)
    if ranges:
        site.routes["/a"] = large(5 * GIB)
        assert open_(site).size == 5 * GIB


def test_a_disk_that_takes_no_more_is_an_error_that_a_retry_may_mend(site: Site, open_: Open) -> None:
    site.ranges = False
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(SourceUnavailableError, match=r"cannot be kept in .*: File too large"):
            open_(site)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_directory_that_is_missing_is_named(site: Site, open_: Open) -> None:
    site.ranges = False
    with pytest.raises(SourceUnavailableError, match="/nowhere on worker host"):
        open_(site, http_spool_directory=Path("/nowhere"))


def test_keeping_a_body_can_be_stopped(site: Site, open_: Open) -> None:
    site.ranges = False
    with pytest.raises(Interrupted):
        open_(site, stop=lambda: True)


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_the_user_part_is_sent_as_basic_authentication(site: Site, open_: Open) -> None:
    open_(site.url.replace("://", "://us%3Aer:p%40ss@"))
    assert site.asked("Authorization") == ["Basic dXM6ZXI6cEBzcw=="]


@pytest.mark.parametrize(
    "trouble", [status(403), status(503), hang_up, status(302), tell(200, {"Content-Length": "9"})]
)
def test_no_secret_is_in_errors_and_logs(
    trouble: Answer, site: Site, open_: Open, caplog: pytest.LogCaptureFixture
) -> None:
    url = site.url.replace("://", "://user:hunter2@") + "/a?X-Amz-Signature=hunter2#hunter2"
    with caplog.at_level(logging.DEBUG):
        source = open_(url, http_read_seconds=0.5)
        assert whole(source) == DATA
        site.script.extend([trouble] * 5)
        with pytest.raises(SourceError) as caught:
            open_(url, http_read_seconds=0.5)
        shown: BaseException | None = caught.value
        while shown is not None:
            assert "hunter2" not in f"{shown!r} {shown}"
            shown = shown.__cause__ or shown.__context__
    assert source.url == site.url.replace("://", "://***@") + "/a?X-Amz-Signature=***#***"
    assert "hunter2" not in caplog.text + repr(source) + str(vars(source))
    assert "/a " in caplog.text  # urllib3 did log the requests
    assert site.requests[0][0] == "/a?X-Amz-Signature=hunter2"


# --- with the engine -------------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[Engine]:
    with closing(Engine(part_size=7_000, part_threads=4)) as engine:
        yield engine


@pytest.mark.parametrize("ranges", [True, False])
def test_a_second_attempt_makes_the_blob_but_not_of_another_version_of_the_source(
    ranges: bool, site: Site, open_: Open, bench: Bench
) -> None:
    site.ranges = ranges
    bench.interrupt(6, data=open_(site))
    replace(site)
    with pytest.raises(SourceChangedError):
        bench.write(open_(site))
    assert bench.blob is None
    site.data, site.etag = DATA, '"one"'
    bench.write(open_(site))
    assert bench.blob == DATA


def test_a_source_that_changes_during_a_transfer_makes_no_blob(site: Site, source: Opened, bench: Bench) -> None:
    def change(handler: Handler) -> None:
        replace(site)
        give(handler)

    site.script.extend([give, give, give, change])
    with pytest.raises(SourceChangedError):
        bench.write(source)
    assert bench.blob is None


def test_a_large_read_takes_little_memory_beside_its_buffer(open_: Open) -> None:
    data = bytes(32 * MIB)
    buffer = bytearray(len(data))
    with serving(data) as site:
        source = open_(site)
        tracemalloc.start()
        source.readinto(0, memoryview(buffer))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        source.close()
    assert peak < 8 * MIB


def test_nothing_stays_open(site: Site) -> None:
    site.routes.update({"/whole": tell(200, {}, DATA), "/none": status(404)})
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/a", "/whole"):
        with closing(HttpSource.open(site.url + path, loopback())) as source:
            read(source, 0, 10)
    with pytest.raises(SourceNotFoundError):
        HttpSource.open(site.url + "/none", loopback())
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, 5, "the server closes its own ends")
