"""Removes the file of a source, if it is still the one that was read."""

import os
import stat
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from socket import gethostname
from typing import Any

from blobferry.jobs.needs import directory_need
from blobferry.spooling.spooled import SpooledName
from worker.errors import SourceNotAllowedError
from worker.transfer.fingerprint import INSTANCE, INSTANCES
from worker.transfer.sources.file_source import path_of

_OF_INSTANCE = slice(1, None)  #: inode and time of status; the device has another number on each host of a mount


class Removal(Enum):
    """What became of a file that was to be removed."""

    REMOVED = "removed"
    GONE = "is not there any more"
    CHANGED = "has changed since it was read, or is no regular file"
    NOT_ALLOWED = "lies below neither spool_dir nor sources.delete_roots"
    NOT_SEEN = "lies in a directory that is not there, or not mounted"


def remove_source(url: str, known: Mapping[str, Any], *, spool: Path | None, roots: Iterable[Path]) -> Removal:
    """Remove the file of a ``file:`` URL. May be repeated. Raises OSError. Takes as long as its mount does.

    The file is opened in its directory, whose symlinks are resolved first, and compared with the fingerprint right
    before it is unlinked. An upload's name is unguessable and never used twice, so its size and date suffice.

    Args:
        url: of the source.
        known: its fingerprint when it was read.
        spool: the directory of uploads; only those are removed there.
        roots: other directories below which files may be removed.
    """
    path = Path(path_of(url))
    parent, in_spool, is_allowed = _place(path, spool, roots)
    if not is_allowed:
        return Removal.NOT_ALLOWED
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return Removal.NOT_SEEN
    try:
        status = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or not _is_known(status, known, is_upload=in_spool):
            return Removal.CHANGED
        os.unlink(path.name, dir_fd=directory)
    except FileNotFoundError:
        with os.scandir(directory) as entries:  # an empty one may be a mount point with nothing mounted
            return Removal.GONE if next(entries, None) is not None else Removal.NOT_SEEN
    finally:
        os.close(directory)
    return Removal.REMOVED


def refuse_unremovable(url: str, *, spool: Path | None, roots: Iterable[Path]) -> None:
    """Raise SourceNotAllowedError unless ``remove_source`` may remove the source: to say so later helps nobody."""
    is_file = url.startswith("file:")
    if is_file and _place(Path(path_of(url)), spool, roots)[2]:
        return
    where = "spool_dir, which is not set here," if spool is None else f"spool_dir, {spool} here,"
    problem = f"lies below neither {where} nor sources.delete_roots" if is_file else "is no file"
    refused = SourceNotAllowedError(f"{url}: may not be removed by worker host {gethostname()}: it {problem}")
    if is_file:
        refused.lacks, refused.certainly_lacks = directory_need(url), True
    raise refused


def _place(path: Path, spool: Path | None, roots: Iterable[Path]) -> tuple[Path, bool, bool]:
    """The directory without symlinks, whether it is that of uploads, and whether the file may be removed there."""
    parent = Path(os.path.realpath(path.parent))
    if spool is not None and parent == Path(os.path.realpath(spool)):
        return parent, True, SpooledName.parse(path.name) is not None
    return parent, False, any(parent.is_relative_to(os.path.realpath(root)) for root in roots)


def _is_known(status: os.stat_result, known: Mapping[str, Any], *, is_upload: bool) -> bool:
    if (status.st_size, status.st_mtime_ns) != (known.get("size"), known.get("mtime_ns")):
        return False
    instances = [*known.get(INSTANCES, ()), known.get(INSTANCE) or ()]
    now = [status.st_dev, status.st_ino, status.st_ctime_ns]
    return is_upload or any(list(instance)[_OF_INSTANCE] == now[_OF_INSTANCE] for instance in instances)
