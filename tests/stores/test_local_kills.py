"""The local store is killed at every step it takes: all is there or nothing is, and the next one tidies up."""

import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from io import FileIO
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.doubles import blob, unfinished
from tests.stores.contract import checksum, error_of, md5_etag
from tests.stores.local_buckets import FREE, NEW, OLD, all_keys, files, in_child, status
from tests.stores.open_upload import OpenUpload
from worker.errors import KeyNotFoundError, PreconditionFailedError, UploadNotFoundError
from worker.stores.blob_values import BlobOptions
from worker.stores.local import LocalStore
from worker.units import MIB

pytestmark = pytest.mark.no_cover


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def store(path: Path) -> LocalStore:
    return LocalStore(path, limits=FREE)


def kill_after(steps: int, run: Callable[[], object]) -> bool:
    """Run it in a child that is killed (-9) in front of its next call of the kernel or SQLite after ``steps``.

    False: it ended first.
    """

    def step(frame: FrameType, event: str, function: Any) -> None:
        nonlocal steps
        if event == "c_call" and (
            getattr(function, "__module__", "") in {"posix", "fcntl", "_io"}
            or isinstance(getattr(function, "__self__", None), sqlite3.Connection | sqlite3.Cursor | FileIO)
        ):
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            steps -= 1

    def child() -> None:
        sys.setprofile(step)
        run()
        sys.setprofile(None)

    code = status(in_child(child))
    assert code in (0, -signal.SIGKILL)
    return code != 0


def kill_everywhere(path: Path, prepare: Callable[[LocalStore], Any], run: Callable[[LocalStore, Any], object]) -> Any:
    """Each time a fresh bucket whose user was killed one step later; ends after the time that it was not."""
    for steps in count():
        store = LocalStore(path / str(steps), limits=FREE)
        prepared = prepare(store)
        killed = kill_after(steps, lambda store=store, prepared=prepared: run(store, prepared))  # type: ignore[misc]
        yield killed, store, prepared
        if not killed:
            assert steps > 10
            return


def crc64(data: bytes) -> str:
    return checksum("CRC64NVME", data)


def check_blob(store: LocalStore, key: str) -> bytes | None:
    """What is there, if it agrees with its record."""
    data = blob(store, key)
    assert (key in all_keys(store)) == (data is not None)
    if data is None:
        assert error_of(store.head, key) is KeyNotFoundError
        return None
    head = store.head(key)
    assert (head.size, head.checksum) == (len(data), crc64(data))
    assert "-" in head.etag or head.etag == md5_etag(data)
    return data


def nothing_is_left(store: LocalStore) -> bool:
    """Delete and abort what is there: whoever is next tidies up after a killed process."""
    keys = {*all_keys(store), "d/a", "d/b"}
    for key in keys:
        store.put(key, b"")
    store.delete_batch(list(keys))
    for entry in store.list_uploads():
        store.abort_upload(entry.key, entry.upload_id)
    return files(Path(store.bucket)) == []


@pytest.mark.parametrize(
    "before", [pytest.param(None, id="creates", marks=pytest.mark.long), pytest.param(OLD, id="replaces")]
)
def test_a_killed_put_has_put_all_or_nothing(path: Path, before: bytes | None) -> None:
    found = []
    for killed, store, _ in kill_everywhere(
        path,
        lambda store: before is not None and store.put("d/a", before),
        lambda store, _: store.put("d/a", NEW),
    ):
        found.append(check_blob(store, "d/a"))
        assert killed or found[-1] == NEW
        assert nothing_is_left(store)

    assert set(found) == {before, NEW}
    assert found == sorted(found, key=lambda data: data == NEW)


@pytest.mark.long
def test_a_killed_copy_has_copied_all_or_nothing(path: Path) -> None:
    def prepare(store: LocalStore) -> None:
        store.put("d/a", NEW)
        store.put("d/b", OLD)

    found = []
    for _, store, _ in kill_everywhere(path, prepare, lambda store, _: store.copy("d/a", "d/b")):
        found.append(check_blob(store, "d/b"))
        assert check_blob(store, "d/a") == NEW
        assert nothing_is_left(store)

    assert set(found) == {OLD, NEW}


def test_a_killed_delete_has_deleted_all_or_nothing(path: Path) -> None:
    found = []
    for killed, store, _ in kill_everywhere(
        path,
        lambda store: OpenUpload(store, "d/a", b"old ", b"bytes").complete(),
        lambda store, _: store.delete_batch(["d/a"]),
    ):
        found.append(check_blob(store, "d/a"))
        assert killed or found[-1] is None
        assert nothing_is_left(store)

    assert set(found) == {OLD, None}


@pytest.mark.parametrize("before", [[], [b"first try"]], ids=["creates", "replaces"])
@pytest.mark.long
def test_a_killed_part_can_be_sent_again(path: Path, before: list[bytes]) -> None:
    for _, store, upload in kill_everywhere(
        path, lambda store: OpenUpload(store, "d/a", *before), lambda store, upload: upload.send(1, NEW)
    ):
        assert [part.size for part in upload.listed()] in ([len(piece) for piece in before], [len(NEW)])
        upload.complete(upload.send(1, OLD))
        assert check_blob(store, "d/a") == OLD
        assert nothing_is_left(store)


@pytest.mark.parametrize(
    "pieces",
    [pytest.param([NEW], id="one part", marks=pytest.mark.long), pytest.param([b"N", b"E", b"W"], id="three parts")],
)
def test_a_killed_completion_is_done_or_can_be_done(path: Path, pieces: list[bytes]) -> None:
    def prepare(store: LocalStore) -> OpenUpload:
        store.put("d/a", OLD)
        return OpenUpload(store, "d/a", *pieces, options=BlobOptions(metadata={"made": "in parts"}))

    found = []
    for _, store, upload in kill_everywhere(
        path, prepare, lambda store, upload: upload.complete(checksum=crc64(NEW), size=3)
    ):
        found.append(check_blob(store, "d/a"))
        if found[-1] == NEW:
            made = store.head("d/a").mod_time
            assert error_of(upload.complete) is UploadNotFoundError
            assert store.head("d/a").mod_time == made
        else:
            assert unfinished(store) == [upload.id]
            assert upload.listed() == upload.parts
            upload.complete()
            assert check_blob(store, "d/a") == NEW
        assert store.options_of("d/a").metadata == {"made": "in parts"}
        assert unfinished(store) == []
        assert nothing_is_left(store)

    assert set(found) == {OLD, NEW}


def test_an_upload_that_was_completed_stays_so_when_its_blob_is_replaced_at_once(path: Path) -> None:
    for _, store, upload in kill_everywhere(
        path, lambda store: OpenUpload(store, "d/a", b"1", b"2"), lambda store, upload: upload.complete()
    ):
        completed = check_blob(store, "d/a") is not None
        store.put("d/a", OLD)
        if completed:
            assert error_of(upload.complete) is UploadNotFoundError
            assert check_blob(store, "d/a") == OLD
        assert nothing_is_left(store)


def test_a_killed_opening_or_abortion_leaves_an_upload_or_none(path: Path) -> None:
    for _, store, _ in kill_everywhere(path, lambda store: None, lambda store, _: store.create_upload("d/a")):
        for upload_id in unfinished(store):
            store.complete_upload("d/a", upload_id, [store.upload_part("d/a", upload_id, 1, NEW)])
        assert nothing_is_left(store)
    for killed, store, upload in kill_everywhere(
        path / "aborted", lambda store: OpenUpload(store, "d/a", b"1", b"2"), lambda store, upload: upload.abort()
    ):
        assert killed or unfinished(store) == []
        if unfinished(store):
            upload.abort()
        assert nothing_is_left(store)


def test_writers_that_are_killed_at_any_moment_never_show_half_a_blob(store: LocalStore) -> None:
    chance = random.Random(17)
    store.put("d/a", b"0" * MIB)
    store.put("d/b", b"0" * MIB)

    def write() -> None:
        for number in count():
            data = bytes([48 + number % 10]) * (MIB + number)
            store.put("d/a", data)
            store.copy("d/a", "d/b")
            upload = OpenUpload(store, "d/a", data, data[:3])
            upload.complete(*upload.parts, upload.copy(3, "d/b", 5, 1_000))

    for _ in range(40):
        pids = [in_child(write) for _ in range(2)]
        until = time.monotonic() + chance.uniform(0.01, 0.08)
        while time.monotonic() < until:
            check_blob_against_itself(store, "d/a")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert {status(pid) for pid in pids} == {-signal.SIGKILL}
        assert check_blob(store, "d/a")
        assert check_blob(store, "d/b")

    assert nothing_is_left(store)


def check_blob_against_itself(store: LocalStore, key: str) -> None:
    """While others write: what a get pinned to a head reads is what the head says, or a refusal."""
    head = store.head(key)
    try:
        with store.get(key, if_match=head.etag) as reader:
            assert crc64(reader.read()) == head.checksum
    except PreconditionFailedError:
        return
