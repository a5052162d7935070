"""FerryStorage: a storage of Django's. Its files are in the spool at once, and in the store when their job succeeds."""

import errno
import io
import mimetypes
import posixpath
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.files import File
from django.core.files.storage import Storage
from django.db import transaction
from django.utils.deconstruct import deconstructible
from django.utils.encoding import filepath_to_uri
from django.utils.timezone import make_naive

from blobferry.checks.safe_paths import safe_path
from blobferry.contract import JobState
from blobferry.django.ferries import Ferry, ferry
from blobferry.django.listed_files import listed_files
from blobferry.django.owned_files import FilePlace, OwnedFile
from blobferry.django.owned_names import latest_job, lock_name, owner_key, release_name
from blobferry.django.random_names import random_name
from blobferry.django.rolled_back import remove_rolled_back, remove_unless_committed
from blobferry.django.spooled_content import SpooledContent, binary
from blobferry.django.spooled_views import temporary_url
from blobferry.django.stored_files import StoredFiles
from blobferry.errors import BlobferryError, ConflictError, InvalidRequestError, TooLateError
from blobferry.values import FileInfo, Job


@deconstructible(path="blobferry.django.storage.FerryStorage")
class FerryStorage(Storage):
    """Files by name, for STORAGES and FileField.

    ``save`` writes into the spool directory, and submits the job that brings the file into the store, in the
    transaction that is open. Until that job has succeeded the spooled file is read; then the store's. What the rows of
    jobs do not tell is asked of a worker: UnreachableError if none answers in time.

    Args:
        storage: the worker's name for the storage.
        location: the directory in it that the names are relative to. What is below it is this storage's alone.
        base_url: where the files below ``location`` are public, such as a CDN; without it URLs are signed.
        expiry: seconds for which a signed URL is good, at most 7 days.
        timeout: seconds to wait for the answer of a worker.
        using: the alias in DATABASES of the transactions to join; that of BLOBFERRY unless given.
        job_options: of the jobs that write, such as ``labels``, ``priority`` and ``on_done``.
    """

    def __init__(
        self,
        *,
        storage: str = "default",
        location: str = "/",
        base_url: str | None = None,
        expiry: int = 3600,
        timeout: float = 5.0,
        using: str | None = None,
        job_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.storage = storage
        self.location = "/" + location.strip("/")
        self.base_url = base_url
        self.expiry = expiry
        self.timeout = timeout
        self.using = using
        self.job_options = dict(job_options or {})

    @property
    def ferry(self) -> Ferry:
        """The client whose transactions it joins."""
        return ferry if self.using is None else ferry.using(self.using)

    def path_of(self, name: str) -> str:
        """The path in the store. Raises SuspiciousFileOperation for a name that leads out of ``location``."""
        if name.startswith("/") or ".." in name.split("/"):
            raise SuspiciousFileOperation(f"the name {name!r} leads out of {self.location}")
        return posixpath.join(self.location, name)

    def job(self, name: str) -> Job | None:
        """The latest job of the file, which writes or deletes it; None if there was none, or it was pruned."""
        return latest_job(self.ferry._engine, self.storage, self.path_of(name))

    @property
    def _stored(self) -> StoredFiles:
        return StoredFiles(self.ferry, self.storage, self.timeout, self.expiry)

    # --- names -------------------------------------------------------------------------------------------------------

    def get_valid_name(self, name: str) -> str:
        """The name with nothing that its path may not hold."""
        valid: str = super().get_valid_name(name)
        return valid if self.ferry.takes_any_keys else safe_path(valid)[1:]

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        """Whether the name is free and nobody else is taking it. If so, nobody does until the transaction ends."""
        if max_length is not None and len(name) > max_length:
            return False
        is_stored = self._stored.info(self.path_of(name)) is not None  # before the lock, for which others may wait
        if not lock_name(self.ferry._engine, self.storage, self.path_of(name)):
            return False
        file = OwnedFile(self.job(name))
        return not file.is_owned and (file.place is FilePlace.NOWHERE or not is_stored)

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """The name if it is free; else, or if the store does not answer, one with a random part that nobody has.

        That one is not asked for: on SQLite the workers may wait for this transaction, and it would wait for them.
        """
        name = str(name).replace("\\", "/")
        try:
            is_free = self.is_name_available(name, max_length)
        except InvalidRequestError:
            raise
        except BlobferryError:
            is_free = False
        return name if is_free else random_name(name, max_length)

    # --- writing -----------------------------------------------------------------------------------------------------

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Spool the content, then submit its job in the transaction that is open; return the name that it got."""
        name = content.name if name is None else name
        spooled = self.ferry.spool(binary(content))
        with transaction.atomic(using=self.ferry.alias):
            try:
                saved: str = super().save(name, SpooledContent(spooled, name), max_length)
            except BaseException:  # not of the COMMIT, which may have happened although it raises
                spooled.discard()
                raise
            remove_rolled_back()
        return saved

    def _save(self, name: str, content: SpooledContent) -> str:
        path, spooled = self.path_of(name), content.spooled
        options = {"content_type": mimetypes.guess_type(name)[0], **self.job_options}
        options |= {"storage": self.storage, "overwrite": False, "idempotency_key": owner_key(path)}
        with suppress(ConflictError):
            job = self.ferry.write_stream(path, spooled, **options)
            if job.source == spooled.url:
                remove_unless_committed(self.ferry.alias, job.id, spooled.path)
                return name
        problem = "was taken by a transaction that this one does not see: begin this one again"
        raise FileExistsError(errno.EEXIST, problem, name)

    def delete(self, name: str) -> None:
        """Have the file deleted once the transaction that is open has committed. Nothing happens without a file."""
        if not name:
            raise ValueError("The name must be given to delete().")
        path = self.path_of(name)
        with transaction.atomic(using=self.ferry.alias):
            lock_name(self.ferry._engine, self.storage, path)
            file = OwnedFile(self.job(name))
            is_there = self._is_there(file, name, is_file=True)
            is_stopped = file.spooled is not None and self._is_stopped(file)
            if is_there or file.is_owned:
                release_name(self.ferry._engine, self.storage, path)
            if is_there and not is_stopped:
                self.ferry.delete(path, storage=self.storage, idempotency_key=owner_key(path))

    def _is_stopped(self, file: OwnedFile) -> bool:
        """Whether the job that writes the file takes a cancel, so that nobody will ever see it in the store."""
        assert file.job is not None
        try:
            job = self.ferry.cancel(file.job.id)
        except TooLateError:
            return False
        if job.state != JobState.RUNNING and file.spooled is not None:
            remove = partial(file.spooled.unlink, missing_ok=True)
            transaction.on_commit(remove, using=self.ferry.alias, robust=True)
        return True

    # --- reading -----------------------------------------------------------------------------------------------------

    def exists(self, name: str) -> bool:
        """Whether there is such a file, or a directory of this name."""
        return self._is_there(OwnedFile(self.job(name)), name)

    def _is_there(self, file: OwnedFile, name: str, *, is_file: bool = False) -> bool:
        if file.place is not FilePlace.UNKNOWN:
            return file.place is not FilePlace.NOWHERE
        info = self._stored.info(self.path_of(name))
        if info is not None and info.is_dir and is_file:
            raise IsADirectoryError(errno.EISDIR, "is a directory", name)
        return info is not None

    def _open(self, name: str, mode: str = "rb") -> File:
        if mode not in ("rb", "r"):
            raise io.UnsupportedOperation(f"mode {mode!r}: a file is read by open(), and written by save()")
        file = OwnedFile(self.job(name))
        if file.spooled is not None:
            with suppress(FileNotFoundError):
                return File(open(file.spooled, "rb"), name)
            file = OwnedFile(self.job(name))  # it may have succeeded meanwhile
        if file.place is FilePlace.SPOOL:
            raise file.not_found(name)
        return File(self._stored.open(self.path_of(name), self._size(name, file)), name)

    def size(self, name: str) -> int:
        """Bytes; 0 for a directory."""
        return self._size(name, OwnedFile(self.job(name)))

    def _size(self, name: str, file: OwnedFile) -> int:
        return self._info(name, file).size if file.size is None else file.size

    def get_modified_time(self, name: str) -> datetime:
        """When it was saved; once it is in the store, when it came there. Aware if USE_TZ is set."""
        file = OwnedFile(self.job(name))
        found = file.changed_at or self._info(name, file).mod_time
        if found is None:
            raise IsADirectoryError(errno.EISDIR, "is a directory, which has no time", name)
        return found if settings.USE_TZ else make_naive(found)

    def _info(self, name: str, file: OwnedFile) -> FileInfo:
        info = None if file.place is FilePlace.NOWHERE else self._stored.info(self.path_of(name))
        if info is None:
            raise file.not_found(name)
        return info

    def url(self, name: str | None) -> str:
        """Where a browser gets the file: of this project until the job has succeeded, then of the store."""
        if not name:
            raise ValueError("The name must be given to url().")
        file = OwnedFile(self.job(name))
        public = None if self.base_url is None else f"{self.base_url.rstrip('/')}/{filepath_to_uri(name)}"
        if file.job is not None and file.spooled is not None:
            return temporary_url(self.ferry.alias, file.job, public, self.expiry)
        return self._stored.url(self.path_of(name)) if public is None else public

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """The directories and the files in the directory. It asks for the names of all files below it."""
        return listed_files(self._stored, self.path_of(path).rstrip("/") or "/")
