"""What a job needs of the worker that runs it, and what a worker may therefore lack, by names that both spell alike."""

import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from blobferry.redaction import is_sealed
from blobferry.sealing import SETTING

MAX_NEED: Final = 512  #: characters of a name, the width of the column
MAX_BUCKET: Final = 255  #: characters of the column of an upload's bucket
STOP_AFTER: Final = 3  #: jobs in a row that failed for want of it, after which a worker leaves the next ones to others
#: What an error lacks that the ``[sources]`` settings of this worker cause; its job's own name for it is source_need.
SOURCES: Final = "sources"
LACKING_FOR: Final = 300.0  #: seconds after the last of them within which it does; then it tries one job again


def needs_of(job: Mapping[str, Any]) -> frozenset[str]:
    """The names of what the job in this row needs: storages, directories of files, keys for a sealed URL."""
    return frozenset(_needs(job))


def storage_need(storage: str) -> str:
    """The name of the need for a storage: that of its settings."""
    return f"storages.{storage}"


def directory_need(url: str) -> str:
    """The name of the need for the directory of a ``file:`` URL."""
    return _short(f"directory {urlsplit(url).path.rpartition('/')[0] or '/'}")


def short_directory(directory: str) -> str:
    """The directory, or a name of its own if it is longer than the column of an upload's bucket."""
    return directory if len(directory) <= MAX_BUCKET else _digest("directory", os.fsencode(directory))


def source_need(url: str) -> str:
    """The name of the need for the server of an ``http(s):`` URL, which the settings of one worker may refuse."""
    return _short(f"source {urlsplit(url).netloc.rpartition('@')[2].lower()}")


def directories_of(url: str) -> Iterator[str]:
    """The ``file:`` URLs of the directories above a file, the nearest first, each with a slash at its end."""
    path = urlsplit(url).path
    while path := path.rstrip("/").rpartition("/")[0]:
        yield f"file://{path}/"
    yield "file:///"


def _needs(job: Mapping[str, Any]) -> Iterator[str]:
    request = job["request"] or {}
    source, dest = request.get("source"), request.get("dest")
    yield storage_need(job["storage"])
    if request.get("dest_storage"):
        yield storage_need(request["dest_storage"])
    if source and is_sealed(source):
        yield SETTING
    elif source and source.startswith("blob:"):
        yield storage_need(urlsplit(source).netloc)
    shown = job["source"] or ""  # readable where the source is sealed
    if shown.startswith(("http:", "https:")):
        yield source_need(shown)
    for url in (shown, dest):
        if url and url.startswith("file:"):
            yield from map(directory_need, directories_of(url))


def _short(name: str) -> str:
    return name if len(name) <= MAX_NEED else _digest(name.partition(" ")[0], name.encode())


def _digest(kind: str, name: bytes) -> str:
    return f"{kind} with the digest {sha256(name).hexdigest()}"
