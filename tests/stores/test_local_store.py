"""What the local store promises beyond the contract that all stores share."""

import base64
import errno
import hashlib
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores.local_buckets import FREE, NEW, OLD, all_keys, content, crc64, files, in_child, status, upload
from tests.stores.reused_buffer import ReusedBuffer
from worker.errors import (
    ConfigurationError,
    InvalidPartError,
    InvalidStoreRequestError,
    KeyNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    StoreUnavailableError,
    UploadNotFoundError,
)
from worker.stores.blob_values import BlobOptions, Condition, Limits, PartReceipt
from worker.stores.local import LocalStore
from worker.stores.local.local_errors import LOCAL_ERRORS, local_errors
from worker.stores.local.local_files import LocalFiles
from worker.stores.memory.memory_store import MemoryStore
from worker.units import GIB, KIB, MIB

OURS = ["files", "index.db", "index.db-shm", "index.db-wal", "journal", "reserve"]
SMALL = Limits(min_part_size=4, max_part_size=8, max_parts=3, max_delete=2)
NASTY_KEYS = [
    "..", ".", "../x", "../../../../etc/passwd", "/etc/passwd", "a/../b", "a/./b", "a/..", "..a", "/", "//", "a//b",
    "a", "a/", "a/b", "a-", "a.b", "a0", "a@", "a@new", "a@0123456789abcdef", "a+", "a%", "a%2Fb", "%", "%%", "@", "+",
    "nul\0", "new\nline", "tab\t", "\\", "~", "*?[", "ü", "\u2028", "\U0001f600", "upload.json", "blobs", " ", "-",
    *("x" * size for size in (*range(198, 258), 400, 1_024)),
    "x" * 200 + "/", "x" * 200 + "/y", "x" * 200 + "-", "x" * 200 + "0", "x" * 200 + "+", "x" * 199 + "ü",
    "ü" * 100, "ü" * 512, "." * 200, "." * 201 + "/" + "." * 202, "x" * 200 + ".", "x" * 200 + "..", "x" * 200 + "../y",
    "/" * 1_024, "d/" * 512,
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "not made yet" / "bucket"
    # A thousand directories deep is too deep for shutil.rmtree, by which pytest removes what older runs have left.
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.fixture
def store(path: Path) -> LocalStore:
    return LocalStore(path, limits=FREE)


# --- files -------------------------------------------------------------------------------------------------------


def test_constructing_makes_no_file_and_reading_makes_none_either(store: LocalStore, path: Path) -> None:
    assert (store.name, store.bucket, store.endpoint) == ("local", str(path), "")
    assert list(store.list_page("").entries) == []
    assert list(store.list_uploads()) == []
    assert store.delete_batch(["a"]) == []
    with pytest.raises(KeyNotFoundError):
        store.get("a")
    assert not path.exists()


def test_a_blob_is_a_plain_file_that_the_index_names(store: LocalStore, path: Path) -> None:
    store.put("a/b/c.txt", b"hello")
    (data,) = (path / "files").iterdir()
    with closing(sqlite3.connect(path / "index.db")) as index:
        rows = index.execute("SELECT key, file FROM blobs").fetchall()

    assert data.read_bytes() == b"hello"
    assert rows == [(b"a/b/c.txt", data.name)]


def test_a_directory_that_was_copied_elsewhere_is_the_same_bucket(store: LocalStore, path: Path) -> None:
    store.put("a/b", b"hello", options=BlobOptions(metadata={"m": "1"}, tags={"t": "2"}))
    shutil.copytree(path, path.parent / "copy")
    copy = LocalStore(path.parent / "copy")

    assert content(copy, "a/b") == b"hello"
    assert (copy.head("a/b").mod_time, copy.options_of("a/b")) == (store.head("a/b").mod_time, store.options_of("a/b"))


def test_nothing_is_left_of_blobs_that_are_deleted(store: LocalStore, path: Path) -> None:
    for key in ("a", "a/b", "a/b/c", "a/b/c"):
        store.put(key, b"x")
    upload_id, parts = upload(store, "a/b", b"1", b"2")
    store.complete_upload("a/b", upload_id, parts)
    store.abort_upload("a/b/c", upload(store, "a/b/c", b"1")[0])
    store.delete_batch(["a", "a/b", "a/b/c"])

    assert files(path) == []


def test_everything_is_on_the_disk_before_it_is_visible(store: LocalStore) -> None:
    store.put("a", OLD)
    calls: list[str] = []

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in {"execute", "fsync", "link", "rename", "unlink"}:
            calls.append(function.__name__)

    sys.setprofile(note)
    try:
        store.put("a", NEW)
    finally:
        sys.setprofile(None)

    # The bytes; BEGIN, what is there; the name of the bytes; the old row, the new one, COMMIT; the old bytes.
    assert calls == ["fsync", "execute", "execute", "link", "fsync", "execute", "execute", "execute", "unlink"]
    with store._index.read() as rows:
        assert rows.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert rows.db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: COMMIT returns when it is on the disk


def test_file_descriptors_are_given_back(store: LocalStore) -> None:
    def use() -> None:
        store.put("a/b", OLD, options=BlobOptions())
        content(store, "a/b")
        store.copy("a/b", "c")
        upload_id, parts = upload(store, "u", b"1", b"2")
        store.copy_part("u", upload_id, 3, "c", 0, 3)
        store.complete_upload("u", upload_id, parts)
        for refused in (lambda: store.get("a/b", 100), lambda: store.get("nothing"), lambda: store.head("a/x")):
            with pytest.raises((InvalidStoreRequestError, KeyNotFoundError, Exception)):
                refused()
        all_keys(store)
        store.delete_batch(["a/b", "c", "u"])

    use()
    before = os.listdir("/proc/self/fd")
    use()

    assert len(os.listdir("/proc/self/fd")) == len(before)


# --- keys and listings -------------------------------------------------------------------------------------------


def test_no_key_leaves_the_directory_or_meets_another(store: LocalStore, path: Path) -> None:
    for key in NASTY_KEYS:
        store.put(key, key.encode())

    assert all_keys(store, limit=7) == sorted(NASTY_KEYS, key=str.encode)
    assert all(content(store, key) == key.encode() for key in NASTY_KEYS)
    assert os.listdir(path.parent) == ["bucket"]
    assert sorted(os.listdir(path)) == OURS
    for key in NASTY_KEYS:
        store.delete_batch([key])
    assert files(path) == []


@pytest.mark.parametrize("upload_id", ["..", "", "../blobs", "0" * 31, "0" * 32 + "\n", "/" + "0" * 31])
def test_no_upload_id_leaves_the_directory(store: LocalStore, upload_id: str) -> None:
    store.put("a", b"hello")

    with pytest.raises(UploadNotFoundError):
        store.abort_upload("a", upload_id)
    with pytest.raises(UploadNotFoundError):
        store.upload_part("a", upload_id, 1, b"x")


def test_a_key_that_is_no_text_is_refused(store: LocalStore) -> None:
    with pytest.raises(InvalidStoreRequestError):
        store.put("\ud800", b"")


PIECES = st.sampled_from(["a", "b", "/", "-", ".", "..", "0", "+", "@", "%", "ü", "\U0001f600", "x" * 199, "x" * 200])
KEYS = st.lists(PIECES, min_size=1, max_size=5).map("".join).filter(lambda key: len(key.encode()) <= 1_024)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    keys=st.sets(KEYS, max_size=12),
    prefix=st.one_of(st.just(""), KEYS),
    delimiter=st.sampled_from(["", "/", "-", "a", "..", "x/"]),
    limit=st.integers(1, 5),
)
def test_listings_are_those_of_the_memory_store(keys: set[str], prefix: str, delimiter: str, limit: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        local, memory = LocalStore(Path(place)), MemoryStore()
        for key in keys:
            local.put(key, key.encode())
            memory.put(key, key.encode())
        tokens: tuple[str | None, str | None] = (None, None)
        while True:
            found = local.list_page(prefix, delimiter=delimiter, token=tokens[0], limit=limit)
            right = memory.list_page(prefix, delimiter=delimiter, token=tokens[1], limit=limit)
            assert [(e.key, e.size, e.etag) for e in found.entries] == [(e.key, e.size, e.etag) for e in right.entries]
            assert (found.prefixes, found.next_token is None) == (right.prefixes, right.next_token is None)
            tokens = (found.next_token, right.next_token)
            if found.next_token is None:
                break


def test_what_we_did_not_make_is_neither_listed_nor_removed(store: LocalStore, path: Path) -> None:
    store.put("a/b", b"hello")
    strays = ["plain", "ü", ".hidden", "0" * 32, "1" * 31]
    for name in strays:
        (path / "files" / name).write_bytes(b"x")
    (path / "files" / "directory").mkdir()
    store.put("a/b", b"replaced")
    store.delete_batch(["a/b"])
    store.put("a/b", b"again")

    assert all_keys(store) == ["a/b"]
    assert list(store.list_page("", delimiter="/").prefixes) == ["a/"]
    assert set(os.listdir(path / "files")) > {*strays, "directory"}


def test_a_page_of_many_keys_takes_little_memory(store: LocalStore, path: Path) -> None:
    store.put("d/0", b"x")
    with closing(sqlite3.connect(path / "index.db")) as index, index:
        ((_, *row),) = index.execute("SELECT * FROM blobs").fetchall()
        rows = ((f"d/{number}".encode(), *row) for number in range(1, 20_000))
        index.executemany("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    store.list_page("", limit=10)
    tracemalloc.start()
    page = store.list_page("d/", limit=10, token=store.list_page("d/", limit=10).next_token)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [entry.key for entry in page.entries] == [f"d/{number}" for number in sorted(map(str, range(20_000)))[10:20]]
    assert peak < 300 * KIB


def test_no_page_looks_at_the_keys_in_front_of_it(store: LocalStore, path: Path) -> None:
    store.put("d/0", b"x")
    with closing(sqlite3.connect(path / "index.db")) as index, index:
        ((_, *row),) = index.execute("SELECT * FROM blobs").fetchall()
        rows = ((f"d{number % 50:02}/{number}".encode(), *row) for number in range(20_000))
        index.executemany("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    steps: list[None] = []
    with store._index.read() as found:
        found.db.set_progress_handler(lambda: steps.append(None), 1)
    last = store.list_page("", delimiter="/", limit=50).next_token
    assert len(steps) < 50 * 100
    del steps[:]
    assert store.list_page("", delimiter="/", token=last).prefixes == ["d49/"]
    assert len(store.list_page("d49/", limit=10).entries) == 10

    assert len(steps) < 1_000


def test_a_token_that_is_none_is_refused(store: LocalStore) -> None:
    store.put("a", b"x")
    with pytest.raises(InvalidStoreRequestError):
        store.list_page("", token="ä!")


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["replaced", "deleted", "deleted and replaced"])
def test_a_reader_keeps_the_bytes_that_it_was_opened_on(store: LocalStore, how: str) -> None:
    store.put("d/a", OLD)

    with store.get("d/a", 1) as reader:
        assert reader.read(2) == b"ld"
        if "deleted" in how:
            store.delete_batch(["d/a"])
        if "replaced" in how:
            store.put("d/a", NEW)
        assert reader.read() == b" bytes"


def test_a_blob_that_other_hands_cut_short_is_never_a_short_stream(store: LocalStore, path: Path) -> None:
    store.put("a", OLD)
    with store.get("a") as reader:
        (data,) = (path / "files").iterdir()
        os.truncate(data, 3)
        with pytest.raises(StoreUnavailableError, match="cut short"):
            reader.read()
    with pytest.raises(StoreUnavailableError, match="its record says 9"):
        store.get("a")
    data.unlink()
    with pytest.raises(StoreUnavailableError, match="lost its bytes"):
        store.get("a")


def test_a_damaged_index_and_a_missing_one_are_told(store: LocalStore, path: Path) -> None:
    store.put("a", OLD)
    store.close()
    index = (path / "index.db").read_bytes()
    for damaged in (b"x" * len(index), index[:4096] + b"x" * (len(index) - 4096)):
        (path / "index.db").write_bytes(damaged)
        attempts: list[Callable[[], object]] = [lambda: store.head("a"), lambda: store.put("a", NEW)]
        for attempt in attempts:
            with pytest.raises(StoreUnavailableError, match=r"index\.db is damaged: restore"):
                attempt()
        store.close()
    (path / "index.db").unlink()
    for attempt in attempts:
        with pytest.raises(StoreUnavailableError, match=r"index\.db' is missing: restore"):
            attempt()
    (path / "index.db").write_bytes(index)
    assert content(store, "a") == OLD


@pytest.mark.parametrize("others", ["blobs", "uploads"])
def test_a_directory_of_an_older_version_is_refused(store: LocalStore, path: Path, others: str) -> None:
    (path / "locks").mkdir(parents=True)
    (path / others).mkdir()
    attempts: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.put("a", NEW),
        lambda: store.list_page(""),
        lambda: store.create_upload("a"),
        lambda: store.delete_batch(["a"]),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigurationError, match=r"older Blobferry .* name an empty directory"):
            attempt()
    assert not (path / "index.db").exists()


def test_a_directory_that_was_removed_is_made_again(store: LocalStore, path: Path) -> None:
    store.put("a", OLD)
    shutil.rmtree(path)

    assert all_keys(store) == []
    store.put("b", NEW)
    assert all_keys(LocalStore(path)) == ["b"]


def test_times_of_a_key_grow_even_if_the_clock_goes_back(path: Path) -> None:
    moments = (datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=number) for number in count())
    store = LocalStore(path, now=lambda: next(moments))
    times = []
    for _ in range(5):
        store.put("a", b"")
        times.append(store.head("a").mod_time)

    assert times == sorted(set(times))


# --- checks ------------------------------------------------------------------------------------------------------


def test_sizes_and_numbers_follow_the_limits(path: Path) -> None:
    store = LocalStore(path, limits=SMALL)
    upload_id, parts = upload(store, "a", b"123", b"12345678", b"")
    refused: list[Callable[[], object]] = [
        lambda: store.put("a", b"123456789"),
        lambda: store.upload_part("a", upload_id, 1, b"123456789"),
        lambda: store.upload_part("a", upload_id, 4, b""),
        lambda: store.copy_part("a", upload_id, 0, "a", 0, 1),
        lambda: store.copy_part("a", upload_id, 1, "a", 0, 9),
        lambda: store.delete_batch(["a", "b", "c"]),
    ]
    for call in refused:
        with pytest.raises(InvalidStoreRequestError):
            call()
    with pytest.raises(InvalidPartError, match="part 1 of 'a' has 3 bytes"):
        store.complete_upload("a", upload_id, parts)
    with pytest.raises(InvalidPartError):
        store.complete_upload("a", upload_id, [parts[1], parts[1]])
    parts[0] = store.upload_part("a", upload_id, 1, b"1234")
    store.complete_upload("a", upload_id, parts)
    with pytest.raises(InvalidStoreRequestError, match="12 bytes for 'a'"):
        store.copy("a", "b")


@pytest.mark.parametrize("size", [0, 9, 11])
def test_a_body_that_lies_about_its_size_stores_nothing(store: LocalStore, path: Path, size: int) -> None:
    class Liar(ReusedBuffer):
        def __len__(self) -> int:
            return size

    with pytest.raises(InvalidStoreRequestError, match=f"and says {size}"):
        store.put("a", Liar(bytes(10)))
    assert files(path) == []


@pytest.mark.parametrize(("checksum", "kept"), [("crc64nvme", "CRC64NVME"), ("crc32c", "CRC32C"), ("none", None)])
def test_the_checksum_that_is_kept_is_that_of_the_whole_blob(path: Path, checksum: str, kept: str | None) -> None:
    store = LocalStore(path, checksum=checksum, limits=FREE)
    store.put("whole", b"hello world")
    md5 = "MD5:" + base64.b64encode(hashlib.md5(b"hello ").digest()).decode()
    upload_id = store.create_upload("joined")
    parts = [
        store.upload_part("joined", upload_id, 1, b"hello ", checksum=md5),
        store.copy_part("joined", upload_id, 2, "whole", 6, 5),
    ]
    whole = store.head("whole").checksum
    store.complete_upload("joined", upload_id, parts, checksum=whole or crc64(b"hello world"))
    store.copy("joined", "copied")

    assert parts[0].checksum == md5
    assert store.head("joined").checksum == store.head("copied").checksum == whole
    assert (whole is None) if kept is None else (whole or "").startswith(kept)
    assert store.head("copied").etag == store.head("whole").etag


def test_a_checksum_that_parts_do_not_have_is_made_of_the_joined_bytes(store: LocalStore) -> None:
    upload_id, parts = upload(store, "a", b"hello ", b"world")
    digest = hashlib.md5(b"hello world").digest()
    with pytest.raises(InvalidStoreRequestError):
        store.complete_upload("a", upload_id, parts, checksum="ADLER32:AAAAAA==")
    store.complete_upload("a", upload_id, parts, checksum="MD5:" + base64.b64encode(digest).decode())

    assert store.head("a").checksum == crc64(b"hello world")
    assert content(store, "a") == b"hello world"


def test_a_part_named_with_another_checksum_completes_nothing(store: LocalStore) -> None:
    upload_id, (part,) = upload(store, "a", b"hello")
    named = PartReceipt(1, part.size, part.etag, crc64(b"other"))

    with pytest.raises(InvalidPartError):
        store.complete_upload("a", upload_id, [named])


def test_a_copy_onto_itself_may_change_what_it_carries(store: LocalStore) -> None:
    options = BlobOptions(storage_class="GLACIER", encryption="aws:kms", encryption_key="key-1")
    store.put("a", b"hello")
    store.copy("a", "a", options=options)

    assert store.options_of("a").encryption_key == "key-1"
    assert store.head("a").storage_class == "GLACIER"
    assert content(store, "a") == b"hello"


# --- several processes -------------------------------------------------------------------------------------------


def test_of_many_processes_that_create_a_blob_exactly_one_wins(store: LocalStore) -> None:
    for number in range(10):
        start = time.monotonic() + 0.03

        def create(key: str = f"d/{number}", start: float = start) -> None:
            time.sleep(max(0.0, start - time.monotonic()))
            try:
                store.put(key, str(os.getpid()).encode(), condition=Condition(if_none_match=True))
            except PreconditionFailedError:
                os._exit(7)

        pids = [in_child(create) for _ in range(4)]
        codes = {pid: status(pid) for pid in pids}

        assert sorted(codes.values()) == [0, 7, 7, 7]
        assert codes[int(content(store, f"d/{number}"))] == 0


def test_no_step_is_lost_that_processes_make_with_if_match(store: LocalStore) -> None:
    store.put("d/counter", b"0")

    def add() -> None:
        for _ in range(15):
            while True:
                etag = store.head("d/counter").etag
                try:
                    with store.get("d/counter", if_match=etag) as reader:
                        number = int(reader.read())
                    store.put("d/counter", str(number + 1).encode(), condition=Condition(if_match=etag))
                    break
                except PreconditionFailedError:
                    continue

    assert [status(pid) for pid in [in_child(add) for _ in range(4)]] == [0] * 4
    assert content(store, "d/counter") == b"60"


def test_of_many_processes_that_complete_an_upload_exactly_one_does(store: LocalStore, path: Path) -> None:
    upload_id, parts = upload(store, "a", os.urandom(MIB), b"2")

    def complete() -> None:
        try:
            store.complete_upload("a", upload_id, parts)
        except UploadNotFoundError:
            os._exit(7)

    assert sorted(status(pid) for pid in [in_child(complete) for _ in range(4)]) == [0, 7, 7, 7]
    assert len(files(path)) == 1


def test_puts_and_deletes_next_to_each_other_do_not_take_away_each_others_directory(store: LocalStore) -> None:
    def come_and_go() -> None:
        for _ in range(40):
            store.put(f"d/e/{os.getpid()}", b"x")
            assert content(store, f"d/e/{os.getpid()}") == b"x"
            store.delete_batch([f"d/e/{os.getpid()}"])

    assert [status(pid) for pid in [in_child(come_and_go) for _ in range(4)]] == [0] * 4
    assert all_keys(store) == []


def test_a_fork_takes_no_connection_along_even_while_threads_write(store: LocalStore, path: Path) -> None:
    """SQLite counts the locks of a process in memory: a child that had its parent's connections would lose writes."""
    stop = threading.Event()

    def write(name: str) -> None:
        for number in count():
            store.put(f"{name}/{number % 7}", str(number).encode())
            if stop.is_set():
                return

    def child() -> None:
        opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert [name for name in opened if "index.db" in name] == []
        for number in range(5):
            store.put(f"child/{os.getpid()}", str(number).encode())
        assert content(store, f"child/{os.getpid()}") == b"4"

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, f"thread{number}") for number in range(4)]
        pids = []
        for _ in range(5):
            pids.append(in_child(child))
        codes = [status(pid) for pid in pids]
        stop.set()
        for writer in writers:
            writer.result()

    assert codes == [0] * 5
    assert {key for key in all_keys(store) if key.startswith("child")} == {f"child/{pid}" for pid in pids}
    with store._index.read() as rows:
        assert rows.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        named = {name for (name,) in rows.db.execute("SELECT file FROM blobs")}
    assert named == set(os.listdir(path / "files"))


def test_an_index_that_one_process_leaves_stays_that_of_its_children(store: LocalStore, path: Path) -> None:
    """The last connection to be closed removes SQLite's log: that of a parent must not be taken for the last."""
    store.put("a", OLD)
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        store.put("a", NEW)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        store.put("b", NEW)

    pid = in_child(child)
    os.read(ready[0], 1)
    content(store, "a")
    store.close()
    os.write(go[1], b"x")

    assert status(pid) == 0
    for fd in (*ready, *go):
        os.close(fd)
    assert [content(LocalStore(path), key) for key in ("a", "b")] == [NEW, NEW]


# --- symbolic links ----------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    return place


@pytest.mark.parametrize("planted", ["files", "index.db"])
def test_no_symbolic_link_is_followed_to_the_store(store: LocalStore, path: Path, outside: Path, planted: str) -> None:
    path.mkdir(parents=True)
    (path / planted).symlink_to(outside if planted == "files" else outside / "secret")
    attempts: list[Callable[[], object]] = [
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: store.put("a", NEW),
        lambda: store.copy("a", "b"),
        lambda: store.create_upload("a"),
        lambda: store.delete_batch(["a"], if_match='"0123"'),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionDeniedError, match="symbolic link"):
            attempt()
    assert [failure.code for failure in store.delete_batch(["a"])] == ["permission_denied"]
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def test_no_symbolic_link_is_followed_to_bytes_a_part_the_journal_or_the_reserve(
    store: LocalStore, path: Path, outside: Path
) -> None:
    path.mkdir(parents=True)
    (path / "reserve").symlink_to(outside / "secret")
    store.put("a", NEW)
    (data,) = (path / "files").iterdir()
    data.unlink()
    data.symlink_to(outside / "secret")
    with pytest.raises(PermissionDeniedError):
        store.get("a")

    upload_id, parts = upload(store, "b", NEW)
    (part,) = (file for file in (path / "files").iterdir() if file != data)
    shutil.move(part, outside / "part")
    part.symlink_to(outside / "part")
    with pytest.raises(PermissionDeniedError):
        store.complete_upload("b", upload_id, parts)

    (path / "journal").unlink()
    (path / "journal").symlink_to(outside / "secret")
    with pytest.raises(PermissionDeniedError):
        store.put("a", OLD)
    assert (outside / "secret").read_text() == "secret"
    assert (outside / "part").read_bytes() == NEW


def test_the_directory_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStore(tmp_path / "link").put("a", b"hello")

    assert content(LocalStore(tmp_path / "real"), "a") == b"hello"


# --- disks that refuse -------------------------------------------------------------------------------------------


@contextmanager
def small_disk(store: LocalStore) -> Iterator[None]:
    path = Path(store.bucket)
    path.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs: the limit on file sizes below stands in for it")
    try:
        yield
    finally:
        store.close()
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_is_told_and_nothing_is_left_half_written(store: LocalStore, path: Path) -> None:
    with small_disk(store):
        store.put("a", OLD)
        upload_id, parts = upload(store, "u", bytes(2 * MIB), b"2")
        before = files(path)
        full: list[Callable[[], object]] = [
            lambda: store.put("a", bytes(5 * MIB)),
            lambda: store.put("d/b", ReusedBuffer(bytes(5 * MIB))),
            lambda: store.upload_part("u", upload_id, 3, bytes(5 * MIB)),
            lambda: store.complete_upload("u", upload_id, parts),
            lambda: store.copy_part("u", upload_id, 3, "filler", 0, MIB),
        ]
        store.put("filler", bytes(MIB))
        for call in full:
            with pytest.raises(StoreUnavailableError, match="disk is full"):
                call()
        store.delete_batch(["filler"])

        assert files(path) == before
        assert content(store, "a") == OLD
        store.upload_part("u", upload_id, 1, b"1")
        store.complete_upload("u", upload_id, list(store.list_parts("u", upload_id)))
        assert content(store, "u") == b"12"


def test_a_disk_without_a_free_byte_still_lets_blobs_be_deleted(store: LocalStore, path: Path) -> None:
    with small_disk(store):
        for number in range(3):
            store.put(f"d/{number}", bytes(MIB))
        with suppress(OSError), (path / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4 * KIB))
        with pytest.raises(StoreUnavailableError, match="disk is full"):
            store.put("d/0", NEW)
        assert store.delete_batch(["d/0", "d/1"]) == []
        store.put("d/2", NEW)

        assert all_keys(store) == ["d/2"]
        assert len(files(path)) == 1
        assert (path / "reserve").stat().st_blocks * 512 == 256 * KIB  # for the next time


@pytest.mark.parametrize("is_killed", [False, True], ids=["closed", "with the log of a killed process"])
def test_a_disk_that_is_read_only_reads(store: LocalStore, path: Path, is_killed: bool) -> None:
    def put() -> None:
        store.put("a", OLD)
        if not is_killed:
            store.close()

    with small_disk(store):
        assert status(in_child(put)) == 0
        assert (path / "index.db-wal").exists() == is_killed
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)

        assert content(store, "a") == OLD
        assert all_keys(store) == ["a"]
        with pytest.raises(PermissionDeniedError, match="read-only"):
            store.put("a", NEW)
        assert [failure.code for failure in store.delete_batch(["a"])] == ["permission_denied"]


def test_a_limit_on_file_sizes_is_told_and_nothing_is_left_half_written(store: LocalStore, path: Path) -> None:
    store.put("a", OLD)
    upload_id, parts = upload(store, "u", bytes(MIB), b"2")
    before = files(path)

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        for call in (
            lambda: store.put("a", bytes(5 * MIB)),
            lambda: store.upload_part("u", upload_id, 3, ReusedBuffer(bytes(5 * MIB))),
            lambda: store.complete_upload("u", upload_id, parts),
        ):
            with pytest.raises(InvalidStoreRequestError, match="no file of this size"):
                call()

    assert status(in_child(write)) == 0
    assert files(path) == before
    assert content(store, "a") == OLD
    store.complete_upload("u", upload_id, parts)


def test_a_directory_of_somebody_elses_is_permission_denied() -> None:
    with tempfile.TemporaryDirectory() as place:
        store = LocalStore(Path(place))
        store.put("a", OLD)
        for directory in (Path(place), *Path(place).rglob("*")):
            directory.chmod(0o555)

        def write() -> None:
            if os.geteuid() == 0:
                os.setuid(65_534)
            with pytest.raises(PermissionDeniedError):
                store.put("a", NEW)
            with pytest.raises(PermissionDeniedError):
                store.create_upload("a")
            assert content(store, "a") == OLD
            assert len(store.delete_batch(["a"])) == 1

        assert status(in_child(write)) == 0
        for directory in (Path(place), *Path(place).rglob("*")):
            directory.chmod(0o755)


@pytest.mark.parametrize("number", [*LOCAL_ERRORS, errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENAMETOOLONG])
def test_errors_of_the_kernel_come_out_as_ours(number: int) -> None:
    expected, _ = LOCAL_ERRORS.get(number, (StoreUnavailableError, ""))

    with (
        pytest.raises(expected, match=re.escape("local: cannot put 'a' in '/bucket': ")) as raised,
        local_errors("/bucket", "put", "a"),
    ):
        raise OSError(number, os.strerror(number))
    assert isinstance(raised.value.__cause__, OSError)


def test_where_the_kernel_cannot_copy_between_two_files_it_sends_one_to_the_other(tmp_path: Path) -> None:
    source = os.memfd_create("source")  # in no file system that tmp_path could be in
    with open(source, "w+b", buffering=0) as there, (tmp_path / "here").open("w+b", buffering=0) as here:
        there.write(b"0123456789")
        here.seek(3)
        LocalFiles("").append_range(here, there, 2, 5)
        assert (tmp_path / "here").read_bytes() == bytes(3) + b"23456"
        with pytest.raises(OSError, match="shorter than its record"):
            LocalFiles("").append_range(here, there, 8, 5)


# --- large blobs -------------------------------------------------------------------------------------------------


class Zeros(ReusedBuffer):
    """A body of zeros that is not in memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0
        self._piece = memoryview(bytes(MIB))

    def read(self, size: int = -1, /) -> memoryview:
        wanted = min(MIB, self._size - self._at, size if size >= 0 else MIB)
        self._at += wanted
        return self._piece[:wanted]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset
        return offset

    def __len__(self) -> int:
        return self._size


@pytest.mark.long
def test_two_gibibytes_are_joined_without_passing_through_python(store: LocalStore) -> None:
    upload_id = store.create_upload("large")
    parts = [store.upload_part("large", upload_id, number, Zeros(GIB // 2)) for number in range(1, 5)]
    tracemalloc.start()
    began = time.perf_counter()
    store.complete_upload("large", upload_id, parts, size=2 * GIB)
    took = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sys.stdout.write(f"2 GiB completed in {took:.1f} s, {2048 / took:.0f} MiB/s\n")

    assert peak < MIB
    assert store.head("large").size == 2 * GIB
    with store.get("large", 2 * GIB - 3) as reader:
        assert reader.read() == bytes(3)
    store.delete_batch(["large"])
