"""Uploads in the spool directory: whole, on the disk, under a name that nobody can guess, and nothing half-done."""

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from werkzeug.datastructures import FileStorage

from blobferry.errors import ConfigurationError, InvalidRequestError
from blobferry.spooling.spool_directory import PIECE, SpoolDirectory
from blobferry.spooling.spooled import SpooledName

DATA = bytes(number % 251 for number in range(PIECE + 1000))


class Around:
    """An upload as Starlette and Django have it: awaited or own methods around a file."""

    def __init__(self, file: Any, size: int | None = None) -> None:
        self.file = file
        self.size = size

    async def read(self, size: int = -1) -> bytes:
        raise AssertionError("the file inside can be read without a loop")


class Temporary(Around):
    """Django's TemporaryUploadedFile, which ignores that its file is gone when it is closed."""

    def temporary_file_path(self) -> str:
        return str(self.file.name)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path) -> SpoolDirectory:
    return SpoolDirectory(directory)


@pytest.mark.parametrize("kind", ["file object", "upload", "Flask's upload", "path", "path as text", "moved path"])
def test_all_kinds_of_uploads_become_a_file_with_their_bytes(
    spool: SpoolDirectory, directory: Path, tmp_path: Path, kind: str
) -> None:
    own = tmp_path / "own.bin"
    own.write_bytes(DATA)
    uploads: dict[str, Any] = {
        "file object": io.BytesIO(DATA), "upload": Around(io.BytesIO(DATA), len(DATA)),
        "Flask's upload": FileStorage(io.BytesIO(DATA), "a.mp4"),
        "path": own, "path as text": str(own), "moved path": own,
    }  # fmt: skip
    spooled = spool.take(uploads[kind], move=kind == "moved path")
    assert (spooled.size, spooled.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert spooled.path.read_bytes() == DATA
    assert os.listdir(directory) == [spooled.path.name], "nothing else is left"
    assert own.exists() == (kind != "moved path")
    name = SpooledName.of_url(spooled.url)
    assert name is not None
    assert (name.size, name.has_digest_of(spooled.sha256 or ""), name.has_digest_of("00" * 32)) == (
        len(DATA),
        True,
        False,
    )


def test_two_uploads_of_the_same_bytes_are_two_files(spool: SpoolDirectory) -> None:
    assert spool.take(io.BytesIO(b"a")).path != spool.take(io.BytesIO(b"a")).path


def test_an_upload_is_read_from_its_beginning_and_left_open(spool: SpoolDirectory) -> None:
    file = io.BytesIO(b"whole")
    file.read(3)
    assert spool.take(file).path.read_bytes() == b"whole"
    assert not file.closed


def test_a_temporary_file_on_the_same_file_system_is_renamed(spool: SpoolDirectory, tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=tmp_path, delete=False) as file:
        file.write(DATA)
        file.flush()
        os.utime(file.name, (1, 1))
        before = os.stat(file.name)
        spooled = spool.take(Temporary(file, len(DATA)))
    after = spooled.path.stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime > 1_000_000, "the sweep goes by the date, and a young upload is spared"
    assert after.st_mode & 0o777 == (directory_mode := 0o666 & ~current_umask()), directory_mode
    assert spooled.path.read_bytes() == DATA


def test_a_file_of_another_file_system_is_copied(spool: SpoolDirectory) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        if os.stat(file.name).st_dev == os.stat(tempfile.gettempdir()).st_dev:
            pytest.skip("/dev/shm is on the file system of the other temporary files")
        file.write(DATA)
        file.flush()
        assert spool.take(Temporary(file, len(DATA))).path.read_bytes() == DATA
        assert Path(file.name).exists(), "its framework removes it"


def test_without_a_digest_a_rename_reads_nothing_and_the_name_promises_none(
    spool: SpoolDirectory, tmp_path: Path
) -> None:
    (tmp_path / "own").write_bytes(b"x")
    spooled = spool.take(tmp_path / "own", move=True, digest=False)
    assert spooled.sha256 is None
    name = SpooledName.parse(spooled.path.name)
    assert name is not None
    assert name.has_digest_of("00" * 32)


def current_umask() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask"))
    return int(line.split()[1], 8)


@pytest.mark.parametrize("moved", [False, True])
def test_an_upload_that_was_cut_off_is_refused_and_leaves_nothing(
    spool: SpoolDirectory, directory: Path, tmp_path: Path, moved: bool
) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"12345")
    upload: Any = own if moved else Around(io.BytesIO(b"12345"), 6)
    with pytest.raises(InvalidRequestError, match="has 5 bytes and should have 6"):
        spool.take(upload, size=6, move=moved)
    assert os.listdir(directory) == []
    assert own.exists()


class Failing(io.RawIOBase):
    """A client that goes away in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        if self.reads > 1:
            raise ConnectionResetError
        return b"first"


def test_an_upload_that_fails_on_the_way_leaves_nothing(spool: SpoolDirectory, directory: Path) -> None:
    with pytest.raises(ConnectionResetError):
        spool.take(Failing())
    assert os.listdir(directory) == []


def closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize(
    ("upload", "says"),
    [
        (b"bytes", "needs an open binary file"),
        (7, "needs an open binary file"),
        (Around(None), "needs an open binary file"),
        (io.StringIO("text"), "open it in binary mode"),
        (closed(), "is closed"),
        ("/nowhere/at/all", "no file that can be read"),
        ("/dev/zero", "no file that can be read"),
    ],
)
def test_what_is_no_upload_is_refused_by_name(spool: SpoolDirectory, directory: Path, upload: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        spool.take(upload)
    assert os.listdir(directory) == []


def test_memory_stays_bounded(spool: SpoolDirectory) -> None:
    class Endless(io.RawIOBase):
        left, largest = 64, 0

        def read(self, size: int = -1) -> bytes:
            Endless.largest = max(Endless.largest, size)
            Endless.left -= 1
            return b"x" * size if Endless.left >= 0 else b""

    assert spool.take(Endless()).size == 64 * PIECE
    assert Endless.largest == PIECE


@pytest.mark.parametrize(
    ("path", "says"), [(None, "is not set"), ("relative", "absolute"), ("/nowhere/spool", "no directory on host")]
)
def test_a_directory_that_is_none_is_named(path: str | None, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        SpoolDirectory(path).take(io.BytesIO(b"x"))
    assert refused.value.name == "spool_dir"


def test_discard_may_be_repeated(spool: SpoolDirectory) -> None:
    spooled = spool.take(io.BytesIO(b"x"))
    spooled.discard()
    spooled.discard()
    assert not spooled.path.exists()


@pytest.mark.parametrize(
    "name",
    ["7.mp4", "ferry-1-2-3", f"ferry-{'a' * 32}-01-0", f"ferry-{'a' * 32}-1-0.part", f"xferry-{'a' * 32}-1-0", ""],
)
def test_other_names_are_not_taken_for_uploads(name: str) -> None:
    assert SpooledName.parse(name) is None
    assert SpooledName.of_url(f"file:///srv/{name}") is None
    assert SpooledName.of_url(f"https://host/{SpooledName.new(1, None).name}") is None
