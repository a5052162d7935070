"""The spool directory as an app writes to it: a file appears under its name once it is whole and on the disk."""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from blobferry.errors import ConfigurationError, InvalidRequestError
from blobferry.redaction import short_repr
from blobferry.spooling.open_upload import OpenUpload, open_upload
from blobferry.spooling.spooled import Spooled, SpooledName, new_part_name

PIECE: Final = 1024 * 1024  #: bytes that are held in memory


_NOT_SET: Final = (
    "is not set; give it a directory that the workers see, too: Client(spool_dir=…), BLOBFERRY_SPOOL_DIR in the "
    "environment or in Flask's app.config, or SPOOL_DIR in BLOBFERRY of Django's settings"
)


class SpoolDirectory:
    """A directory that app and workers see under one path. Any number of processes may write to it at once."""

    def __init__(self, directory: str | os.PathLike[str] | None) -> None:
        path = Path(directory) if directory else None
        if path is not None and not path.is_absolute():
            raise ConfigurationError("spool_dir", f"needs an absolute path, got {str(path)!r}")
        self._path = path

    def take(self, upload: Any, *, size: int | None = None, digest: bool = True, move: bool = False) -> Spooled:
        """Bring the upload into the directory; :meth:`blobferry.Client.spool` says how. Holds ``PIECE`` in memory."""
        directory, opened = self._directory(), open_upload(upload)
        sizes = [known for known in (size, opened.size) if known is not None]
        may_move = opened.path is not None and (move or opened.is_temporary)
        spooled = _renamed(opened.path, directory, sizes, digest=digest) if may_move and opened.path else None
        if spooled is None:
            spooled = _copied(opened, directory, sizes, digest=digest)
            if move and opened.path is not None:
                opened.path.unlink(missing_ok=True)
        return spooled

    def _directory(self) -> Path:
        if self._path is None:
            raise ConfigurationError("spool_dir", _NOT_SET)
        if not self._path.is_dir():
            problem = f"{self._path} is no directory on host {gethostname()}; make it, or mount it there"
            raise ConfigurationError("spool_dir", problem)
        return self._path


@contextmanager
def _part(directory: Path) -> Iterator[Path]:
    """An empty file with the permissions of any new file, removed unless the block renames it."""
    part = directory / new_part_name()
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield part
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _renamed(path: Path, directory: Path, sizes: Sequence[int], *, digest: bool) -> Spooled | None:
    """Rename the file, in one step: it always has its old name or its new one. None: it lies on another file system."""
    if path.is_symlink() or not path.is_file() or path.stat().st_dev != directory.stat().st_dev:
        return None
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_size(size, sizes)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest() if digest else None
        with _part(directory) as part:  # the worker, another user, may not read what mkstemp has made
            os.fchmod(file.fileno(), part.stat().st_mode & 0o7777)
        _settle(file.fileno())
    spooled = _named(directory, size, sha256)
    try:
        os.rename(path, spooled.path)
    except OSError as error:
        if error.errno == errno.EXDEV:  # two mounts of one file system
            return None
        raise
    _sync(directory)
    return spooled


def _copied(upload: OpenUpload, directory: Path, sizes: Sequence[int], *, digest: bool) -> Spooled:
    sha256, size = hashlib.sha256() if digest else None, 0
    with _part(directory) as part:
        with _source(upload) as source, open(part, "wb") as target:
            while piece := source.read(PIECE):
                if not isinstance(piece, bytes | bytearray | memoryview):
                    problem = f"must give bytes, got {short_repr(piece)}; open it in binary mode"
                    raise InvalidRequestError(f"upload: {problem}")
                target.write(piece)
                size += len(piece)
                if sha256 is not None:
                    sha256.update(piece)
            _check_size(size, sizes)
            target.flush()
            _settle(target.fileno())
        spooled = _named(directory, size, None if sha256 is None else sha256.hexdigest())
        os.rename(part, spooled.path)
    _sync(directory)
    return spooled


def _named(directory: Path, size: int, sha256: str | None) -> Spooled:
    return Spooled(directory / SpooledName.new(size, sha256).name, size, sha256)


def _check_size(found: int, sizes: Sequence[int]) -> None:
    for wanted in sizes:
        if wanted != found:
            raise InvalidRequestError(f"upload: has {found} bytes and should have {wanted}: it was cut off, or changed")


def _settle(descriptor: int) -> None:
    """Have the bytes on the disk, and the date of now by the file system's clock: the sweep spares young files."""
    os.utime(descriptor)
    os.fsync(descriptor)


@contextmanager
def _source(upload: OpenUpload) -> Iterator[Any]:
    if upload.path is None:
        yield upload.file  # the caller closes it
        return
    try:
        if not upload.path.is_file():  # a FIFO would block, a device might never end
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        file = open(upload.path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InvalidRequestError(f"upload: {upload.path} is no file that can be read: {error.strerror}") from error
    with file:
        yield file


def _sync(directory: Path) -> None:
    """Have the name on the disk, too: only then may a job name it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
