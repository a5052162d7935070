"""Small files, read as a whole: one thread for all of them, since each may lie on a mount that does not answer."""

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from worker.transfer.sources.file_source import FileSource, path_of
from worker.transfer.sources.source import MemorySource

LOOK: Final = 1.0  #: seconds that a look at the status of a file may take
_WAVE: Final = 0.05  #: seconds after which the files that are read no longer wait for the others

Read = MemorySource | Exception | None
"""A file's bytes; why it cannot be read; or None for one that is not to be read as a whole."""


def is_perhaps_small(url: str, most: int) -> bool:
    """Whether the file of a ``file:`` URL has at most ``most`` bytes by its status, if that comes within a second."""
    sizes = list[int]()

    def look() -> None:
        with suppress(OSError, ValueError):
            status = os.stat(path_of(url))
            if stat.S_ISREG(status.st_mode):
                sizes.append(status.st_size)

    thread = threading.Thread(target=look, name="source", daemon=True)
    thread.start()
    thread.join(LOOK)
    return bool(sizes) and sizes[0] <= most


def read_files(
    urls: Sequence[str],
    roots: Iterable[Path],
    most: int,
    seconds: float,
    *,
    before: Callable[[int], object] = lambda position: None,
) -> Iterator[tuple[int, Read]]:
    """Read files of at most ``most`` bytes; yield the position of each, and what came of it.

    None comes of a larger one, of one whose status does not tell its size, and of one that was touched meanwhile, so
    that its bytes have to be compared. Nothing is yielded for files that are not read after so many seconds: their
    mount may hang.

    Args:
        urls: of the files.
        roots: the directories below which they may lie.
        most: bytes of one that is read.
        seconds: for all of them.
        before: called in the same thread before a file is opened, with its position; what it raises comes of the file.
    """
    found, ended, abandoned = list[tuple[int, Read]](), threading.Event(), threading.Event()

    def read_all() -> None:
        for position, url in enumerate(urls):
            found.append((position, _read(url, roots, most, partial(before, position))))
            if abandoned.is_set():
                break
        ended.set()

    threading.Thread(target=read_all, name="source", daemon=True).start()
    taken, waves = 0, int(seconds / _WAVE)
    try:
        while waves and not ended.wait(_WAVE):
            waves -= 1
            count = len(found)
            yield from found[taken:count]
            taken = count
    finally:
        abandoned.set()
    yield from found[taken:]


def _read(url: str, roots: Iterable[Path], most: int, before: Callable[[], object]) -> Read:
    try:
        before()
        source, tells_size = FileSource.open_at_once(url, roots)
        try:
            if not tells_size or source.size > most:
                return None
            fingerprint, data = source.fingerprint, source.whole()
            return MemorySource(data, url=url, fingerprint=fingerprint) if source.fingerprint == fingerprint else None
        finally:
            source.close_at_once()
    except Exception as error:  # raised where the bytes are needed
        return error
