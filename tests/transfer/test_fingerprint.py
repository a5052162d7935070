"""Fingerprints: what proves other bytes, what asks for a comparison, and what is remembered of one."""

from typing import Any

import pytest

from worker.errors import SourceChangedError
from worker.transfer.fingerprint import MAX_INSTANCES, pinned

FILE = {"size": 9, "mtime_ns": 1, "instance": [1, 2, 3]}
HTTP = {"size": 9, "etag": '"a"'}
BLOB = {"size": 9, "etag": '"a"', "mod_time": "2026-01-01", "version_id": None}


@pytest.mark.parametrize("known", [FILE, HTTP, BLOB, {"size": 9, "version": 1}, FILE | {"offset": 3, "onto": BLOB}])
def test_an_equal_fingerprint_is_pinned_at_once(known: dict[str, Any]) -> None:
    assert pinned(known, dict(known)) == known
    assert pinned(None, known) == known


@pytest.mark.parametrize(
    ("known", "now"),
    [
        (FILE, {"size": 10}),
        (FILE, {"mtime_ns": 2}),
        (FILE | {"offset": 3, "onto": None}, {"offset": 4}),
        (FILE | {"offset": 3, "onto": BLOB}, {"onto": BLOB | {"etag": "b"}}),
        (HTTP, {"size": 10}),
        ({"size": 9, "checksum": "SHA-256:a"}, {"checksum": "SHA-256:b"}),
        (BLOB, {"etag": '"b"'}),  # its parts may be copied without being read
        (BLOB, {"mod_time": "2026-01-02"}),
    ],
)
def test_what_proves_other_bytes_is_a_changed_source(known: dict[str, Any], now: dict[str, Any]) -> None:
    with pytest.raises(SourceChangedError, match=r"file:///a: was .* at the first attempt, is .* now"):
        pinned(known, known | now, source="file:///a", is_compared=True)


@pytest.mark.parametrize(
    ("known", "now"),
    [
        *((FILE, FILE | {"instance": other}) for other in ([0, 2, 3], [1, 0, 3], [1, 2, 0])),
        ({"size": 9, "mtime_ns": 1}, FILE),  # saved by an older worker
        (HTTP, HTTP | {"etag": '"b"'}),
        ({"size": 9, "last_modified": "Mon"}, {"size": 9, "last_modified": "Tue"}),
        (HTTP, {"size": 9, "last_modified": "Mon"}),
        ({"size": 9, "last_modified": "Mon"}, {"size": 9, "checksum": "SHA-256:a"}),
    ],
)
def test_what_proves_nothing_asks_for_a_comparison(known: dict[str, Any], now: dict[str, Any]) -> None:
    assert pinned(known, now) is None
    after = pinned(known, now, is_compared=True)
    assert after is not None
    assert pinned(after, now) == after


def test_a_validator_that_agrees_is_enough() -> None:
    spooled = HTTP | {"checksum": "SHA-256:a"}
    assert pinned(HTTP, spooled) == HTTP
    assert pinned(spooled, spooled | {"etag": '"b"'}) == spooled


def test_workers_on_two_hosts_compare_once_each() -> None:
    """Device numbers of a network file system differ from host to host, and a job goes back and forth."""
    there = FILE | {"instance": [9, 2, 3]}
    both = pinned(FILE, there, is_compared=True)
    assert pinned(both, FILE) == pinned(both, there) == both
    for device in range(50):
        both = pinned(both, FILE | {"instance": [device, 7, 7]}, is_compared=True)
    assert both is not None
    assert len(both["instances"]) == MAX_INSTANCES


@pytest.mark.parametrize("now", [FILE, HTTP, BLOB, {"size": 9, "last_modified": "Mon"}])
def test_a_replaced_source_may_be_of_any_kind_but_not_of_another_size(now: dict[str, Any]) -> None:
    known = {"size": 9, "etag": '"z"', "replaced": True}
    assert pinned(known, now) is None
    assert pinned(known, now, is_compared=True) == now
    assert pinned(known, HTTP | {"etag": '"z"'}) == HTTP | {"etag": '"z"'}
    with pytest.raises(SourceChangedError):
        pinned(known, now | {"size": 8})
