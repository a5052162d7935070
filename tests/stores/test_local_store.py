"""What the local store promises beyond the contract that all stores share."""

import errno
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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.doubles import blob
from tests.stores.contract import checksum, error_of, pages
from tests.stores.local_buckets import FREE, NEW, OLD, all_keys, exit_codes, files, in_child, status
from tests.stores.open_upload import OpenUpload
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
from worker.stores.blob_values import BlobOptions, Condition
from worker.stores.local import LocalStore
from worker.stores.local.local_errors import LOCAL_ERRORS, local_errors
from worker.stores.local.local_files import LocalFiles
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.units import GIB, KIB, MIB

#: Calls that a directory in a wrong state refuses.
CALLS: dict[str, Callable[[LocalStore], object]] = {
    "head": lambda store: store.head("a"),
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("a", NEW),
    "copy": lambda store: store.copy("a", "b"),
    "list_page": lambda store: store.list_page(""),
    "create_upload": lambda store: store.create_upload("a"),
    "delete_batch": lambda store: store.delete_batch(["a"], if_match='"0123"'),
}
OURS = ["files", "index.db", "index.db-shm", "index.db-wal", "journal", "reserve"]
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
    assert (all_keys(store), list(store.list_uploads()), store.delete_batch(["a"])) == ([], [], [])
    assert error_of(store.get, "a") is KeyNotFoundError
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

    assert blob(copy, "a/b") == b"hello"
    assert (copy.head("a/b").mod_time, copy.options_of("a/b")) == (store.head("a/b").mod_time, store.options_of("a/b"))


def test_nothing_is_left_of_blobs_that_are_deleted(store: LocalStore, path: Path) -> None:
    for key in ("a", "a/b", "a/b/c", "a/b/c"):
        store.put(key, b"x")
    OpenUpload(store, "a/b", b"1", b"2").complete()
    OpenUpload(store, "a/b/c", b"1").abort()
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
        blob(store, "a/b")
        store.copy("a/b", "c")
        upload = OpenUpload(store, "u", b"1", b"2")
        upload.copy(3, "c", 0, 3)
        upload.complete()
        assert None not in (error_of(store.get, "a/b", 100), error_of(store.get, "no"), error_of(store.head, "a/x"))
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
    assert all(blob(store, key) == key.encode() for key in NASTY_KEYS)
    assert os.listdir(path.parent) == ["bucket"]
    assert sorted(os.listdir(path)) == OURS
    for key in NASTY_KEYS:
        store.delete_batch([key])
    assert files(path) == []


@pytest.mark.parametrize("upload_id", ["..", "", "../blobs", "0" * 31, "0" * 32 + "\n", "/" + "0" * 31])
def test_no_upload_id_leaves_the_directory(store: LocalStore, upload_id: str) -> None:
    store.put("a", b"hello")

    assert error_of(store.abort_upload, "a", upload_id) is UploadNotFoundError
    assert error_of(store.upload_part, "a", upload_id, 1, b"x") is UploadNotFoundError


def test_a_key_that_is_no_text_and_a_token_that_is_none_are_refused(store: LocalStore) -> None:
    store.put("a", b"x")
    assert error_of(store.put, "\ud800", b"") is InvalidStoreRequestError
    assert error_of(store.list_page, "", token="ä!") is InvalidStoreRequestError


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
    def listed(store: Store) -> list[object]:
        for key in keys:
            store.put(key, key.encode())
        return [
            ([(entry.key, entry.size, entry.etag) for entry in page.entries], page.prefixes)
            for page in pages(store, prefix, delimiter=delimiter, limit=limit)
        ]

    with tempfile.TemporaryDirectory() as place:
        assert listed(LocalStore(Path(place))) == listed(MemoryStore())


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


def fill(path: Path, keys: Iterable[str]) -> None:
    """Give the one blob that there is further keys, quicker than by puts."""
    with closing(sqlite3.connect(path / "index.db")) as index, index:
        ((_, *row),) = index.execute("SELECT * FROM blobs").fetchall()
        rows = ((key.encode(), *row) for key in keys)
        index.executemany("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def test_a_page_of_many_keys_takes_little_memory(store: LocalStore, path: Path) -> None:
    store.put("d/0", b"x")
    fill(path, (f"d/{number}" for number in range(1, 20_000)))
    store.list_page("", limit=10)
    tracemalloc.start()
    page = store.list_page("d/", limit=10, token=store.list_page("d/", limit=10).next_token)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [entry.key for entry in page.entries] == [f"d/{number}" for number in sorted(map(str, range(20_000)))[10:20]]
    assert peak < 300 * KIB


def test_no_page_looks_at_the_keys_in_front_of_it(store: LocalStore, path: Path) -> None:
    store.put("d/0", b"x")
    fill(path, (f"d{number % 50:02}/{number}" for number in range(20_000)))
    steps: list[None] = []
    with store._index.read() as found:
        found.db.set_progress_handler(lambda: steps.append(None), 1)
    last = store.list_page("", delimiter="/", limit=50).next_token
    assert len(steps) < 50 * 100
    del steps[:]
    assert store.list_page("", delimiter="/", token=last).prefixes == ["d49/"]
    assert len(store.list_page("d49/", limit=10).entries) == 10

    assert len(steps) < 1_000


# --- reading -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("call", [CALLS["head"], CALLS["put"]], ids=["head", "put"])
def test_a_damaged_index_and_a_missing_one_are_told(
    store: LocalStore, path: Path, call: Callable[[LocalStore], object]
) -> None:
    store.put("a", OLD)
    store.close()
    index = (path / "index.db").read_bytes()
    for damaged in (b"x" * len(index), index[:4096] + b"x" * (len(index) - 4096)):
        (path / "index.db").write_bytes(damaged)
        with pytest.raises(StoreUnavailableError, match=r"index\.db is damaged: restore"):
            call(store)
        store.close()
    (path / "index.db").unlink()
    with pytest.raises(StoreUnavailableError, match=r"index\.db' is missing: restore"):
        call(store)
    (path / "index.db").write_bytes(index)
    assert blob(store, "a") == OLD


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("others", ["blobs", "uploads"])
def test_a_directory_of_an_older_version_is_refused(
    store: LocalStore, path: Path, others: str, call: Callable[[LocalStore], object]
) -> None:
    (path / "locks").mkdir(parents=True)
    (path / others).mkdir()
    with pytest.raises(ConfigurationError, match=r"older Blobferry .* name an empty directory"):
        call(store)
    assert not (path / "index.db").exists()


def test_a_directory_that_was_removed_is_made_again(store: LocalStore, path: Path) -> None:
    store.put("a", OLD)
    shutil.rmtree(path)

    assert all_keys(store) == []
    store.put("b", NEW)
    assert all_keys(LocalStore(path)) == ["b"]


def test_a_part_named_with_another_checksum_completes_nothing(store: LocalStore) -> None:
    upload = OpenUpload(store, "a", b"hello")
    named = replace(upload.parts[0], checksum=checksum("CRC64NVME", b"other"))
    assert error_of(upload.complete, named) is InvalidPartError


# --- several processes -------------------------------------------------------------------------------------------

# Without coverage: a child of a covered process writes all that its parent has covered, for seconds.
in_processes = pytest.mark.no_cover


@in_processes
def test_of_many_processes_that_create_a_blob_exactly_one_wins(store: LocalStore) -> None:
    for number in range(10):
        start = time.monotonic() + 0.03

        def create(key: str = f"d/{number}", start: float = start) -> None:
            time.sleep(max(0.0, start - time.monotonic()))
            condition = Condition(if_none_match=True)
            if error_of(store.put, key, str(os.getpid()).encode(), condition=condition) is PreconditionFailedError:
                os._exit(7)

        pids = [in_child(create) for _ in range(4)]
        codes = {pid: status(pid) for pid in pids}

        assert sorted(codes.values()) == [0, 7, 7, 7]
        assert codes[int(blob(store, f"d/{number}") or b"")] == 0


@in_processes
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

    assert exit_codes(add, 4) == [0] * 4
    assert blob(store, "d/counter") == b"60"


@in_processes
def test_of_many_processes_that_complete_an_upload_exactly_one_does(store: LocalStore, path: Path) -> None:
    upload = OpenUpload(store, "a", os.urandom(MIB), b"2")

    def complete() -> None:
        if error_of(upload.complete) is UploadNotFoundError:
            os._exit(7)

    assert sorted(exit_codes(complete, 4)) == [0, 7, 7, 7]
    assert len(files(path)) == 1


@in_processes
def test_puts_and_deletes_next_to_each_other_do_not_take_away_each_others_directory(store: LocalStore) -> None:
    def come_and_go() -> None:
        for _ in range(40):
            store.put(f"d/e/{os.getpid()}", b"x")
            assert blob(store, f"d/e/{os.getpid()}") == b"x"
            store.delete_batch([f"d/e/{os.getpid()}"])

    assert exit_codes(come_and_go, 4) == [0] * 4
    assert all_keys(store) == []


@in_processes
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
        assert blob(store, f"child/{os.getpid()}") == b"4"

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, f"thread{number}") for number in range(4)]
        pids = [in_child(child) for _ in range(5)]
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


@in_processes
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
    blob(store, "a")
    store.close()
    os.write(go[1], b"x")

    assert status(pid) == 0
    for fd in (*ready, *go):
        os.close(fd)
    assert [blob(LocalStore(path), key) for key in ("a", "b")] == [NEW, NEW]


# --- symbolic links ----------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    return place


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("planted", ["files", "index.db"])
def test_no_symbolic_link_is_followed_to_the_store(
    store: LocalStore, path: Path, outside: Path, planted: str, call: Callable[[LocalStore], object]
) -> None:
    path.mkdir(parents=True)
    (path / planted).symlink_to(outside if planted == "files" else outside / "secret")
    with pytest.raises(PermissionDeniedError, match="symbolic link"):
        call(store)
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
    assert error_of(store.get, "a") is PermissionDeniedError

    upload = OpenUpload(store, "b", NEW)
    (part,) = (file for file in (path / "files").iterdir() if file != data)
    shutil.move(part, outside / "part")
    part.symlink_to(outside / "part")
    assert error_of(upload.complete) is PermissionDeniedError

    (path / "journal").unlink()
    (path / "journal").symlink_to(outside / "secret")
    assert error_of(store.put, "a", OLD) is PermissionDeniedError
    assert (outside / "secret").read_text() == "secret"
    assert (outside / "part").read_bytes() == NEW


def test_the_directory_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStore(tmp_path / "link").put("a", b"hello")

    assert blob(LocalStore(tmp_path / "real"), "a") == b"hello"


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
        upload = OpenUpload(store, "u", bytes(2 * MIB), b"2")
        before = files(path)
        full: list[Callable[[], object]] = [
            lambda: store.put("a", bytes(5 * MIB)),
            lambda: store.put("d/b", ReusedBuffer(bytes(5 * MIB))),
            lambda: upload.send(3, bytes(5 * MIB)),
            lambda: upload.complete(),
            lambda: upload.copy(3, "filler", 0, MIB),
        ]
        store.put("filler", bytes(MIB))
        for call in full:
            with pytest.raises(StoreUnavailableError, match="disk is full"):
                call()
        store.delete_batch(["filler"])

        assert files(path) == before
        assert blob(store, "a") == OLD
        upload.send(1, b"1")
        upload.complete(*upload.listed())
        assert blob(store, "u") == b"12"


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

        assert (all_keys(store), blob(store, "a")) == (["a"], OLD)
        with pytest.raises(PermissionDeniedError, match="read-only"):
            store.put("a", NEW)
        assert [failure.code for failure in store.delete_batch(["a"])] == ["permission_denied"]


def test_a_limit_on_file_sizes_is_told_and_nothing_is_left_half_written(store: LocalStore, path: Path) -> None:
    store.put("a", OLD)
    upload = OpenUpload(store, "u", bytes(MIB), b"2")
    before = files(path)

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        for call in (
            lambda: store.put("a", bytes(5 * MIB)),
            lambda: upload.send(3, ReusedBuffer(bytes(5 * MIB))),
            lambda: upload.complete(),
        ):
            with pytest.raises(InvalidStoreRequestError, match="no file of this size"):
                call()

    assert status(in_child(write)) == 0
    assert files(path) == before
    assert blob(store, "a") == OLD
    upload.complete()


def test_a_directory_of_somebody_elses_is_permission_denied() -> None:
    with tempfile.TemporaryDirectory() as place:
        store = LocalStore(Path(place))
        store.put("a", OLD)
        for directory in (Path(place), *Path(place).rglob("*")):
            directory.chmod(0o555)

        def write() -> None:
            if os.geteuid() == 0:
                os.setuid(65_534)
            assert error_of(store.put, "a", NEW) is error_of(store.create_upload, "a") is PermissionDeniedError
            assert blob(store, "a") == OLD
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
    upload = OpenUpload(store, "large")
    parts = [upload.send(number, Zeros(GIB // 2)) for number in range(1, 5)]
    tracemalloc.start()
    began = time.perf_counter()
    upload.complete(*parts, size=2 * GIB)
    took = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sys.stdout.write(f"2 GiB completed in {took:.1f} s, {2048 / took:.0f} MiB/s\n")

    assert peak < MIB
    assert store.head("large").size == 2 * GIB
    with store.get("large", 2 * GIB - 3) as reader:
        assert reader.read() == bytes(3)
    store.delete_batch(["large"])
