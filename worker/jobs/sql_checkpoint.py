"""The checkpoint of a job: SQL rows, each written in a transaction that first checks the run's token.

Every write may be repeated, since the answer to its COMMIT may be lost. So counts are set, never added to.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy.orm import Session

from blobferry.contract import PAST_POINT_OF_NO_RETURN, Phase, UploadState
from blobferry.sql.clock import db_now
from models import UploadRow, queries
from models.upload import Place
from worker.errors import StoreUnavailableError, TooManyRestartsError
from worker.jobs.lease import Lease
from worker.jobs.mark import mark_of
from worker.jobs.upload_rows import columns_of, refuse_other_bucket, saved_upload
from worker.transfer.checkpoint import SavedUpload, SentPart, VisibleVersion
from worker.transfer.fingerprint import pinned
from worker.transfer.stop import Interrupted
from worker.transfer.upload.commit import expected_blob
from worker.transfer.visible import Expected

LATE_CREATE: Final = 3600.0  #: seconds after which the upload of an unanswered Create is searched for once more


class SqlCheckpoint:
    """The checkpoint of one run. Every write raises LeaseLostError once another run owns the job.

    It reads the rows once. From then on it holds what it has written, as nobody else writes them.
    """

    def __init__(
        self, lease: Lease, place: Place, *, max_restarts: int, storage: str | None = None,
        may_lie_elsewhere: bool = False, is_found: Callable[[SavedUpload, str], bool] = lambda upload, mark: False,
    ) -> None:  # fmt: skip
        """Make the checkpoint of a run.

        Args:
            lease: the lease of the run; every write goes through it.
            place: where new uploads are opened.
            max_restarts: how often the job may begin again from byte 0.
            storage: the storage that is written to, if it is not the job's own.
            may_lie_elsewhere: load one from elsewhere too. False: ask for it; ConfigurationError for another bucket.
            is_found: asks the place for an upload, or the blob with this mark, that has another endpoint in its row.
        """
        self._job = lease.job
        self.mark = mark_of(self._job.id)
        self.progressed = False  #: whether this run has sent bytes
        self._lease = lease
        self._place = place
        self._storage = storage or self._job.storage
        self._max_restarts = max_restarts
        self._may_lie_elsewhere = may_lie_elsewhere
        self._is_found = is_found
        self._is_read = self._job.is_first_run  # which has no rows
        self._upload: SavedUpload | None = None  # without its parts
        self._parts: dict[int, SentPart] = {}
        self._row: int | None = None  # its id; None for an upload of one call, whose row comes with its commit call

    @property
    def past_point_of_no_return(self) -> bool:
        """Whether readers may see the blob."""
        return self._job.phase in PAST_POINT_OF_NO_RETURN

    def pin_source(self, size: int, fingerprint: Mapping[str, Any], *, is_compared: bool = False) -> bool:
        """Save the source's fingerprint, or compare it with the saved one; False if the bytes must be compared.

        Before there is an upload, it is saved with the run's next write: nothing depends on it yet.
        """
        known = self._job.source_fingerprint
        found = pinned(known, fingerprint, source=str(self._job.source), is_compared=is_compared)
        if found is None:
            return False
        phase = self._job.phase or Phase.UPLOADING
        values: dict[str, Any] = {"size": size, "source_fingerprint": found, "phase": phase}
        if self.load() is None:
            self._lease.defer(**values)
        elif (size, found) != (self._job.size, known):
            self._lease.write(**values)
        return True

    def load(self) -> SavedUpload | None:
        """The upload to resume, with its parts; None if there is none."""
        if not self._is_read:
            self._read()
            self._is_read = True
        return replace(self._upload, parts=dict(self._parts)) if self._upload else None

    def _read(self) -> None:
        row, parts = self._lease.write(queries.read_upload, self._job.id)
        if row is None:
            return
        upload, is_here = saved_upload(row, parts, self._job.etag), row.is_at(self._place)
        self._row, self._parts = row.id, dict(upload.parts)
        self._upload = replace(upload, is_elsewhere=self._may_lie_elsewhere and not is_here)
        if not (is_here or self._may_lie_elsewhere):
            self._look_here(row, upload)

    def _look_here(self, row: UploadRow, upload: SavedUpload) -> None:
        """Begin again unless the upload is at the place, though it was saved under another name of it."""
        place = self._place
        refuse_other_bucket(row, place)
        if self._is_found(upload, self.mark):
            self._change({"endpoint": place.endpoint, "identity": place.identity})
            return
        reason = f"was opened at {row.endpoint or 'AWS'} and is not to be found at {place.endpoint or 'AWS'}"
        is_sent = self._job.phase in (Phase.VERIFYING, Phase.DELETING_SOURCE)  # this run would not send it again
        self._forget(self._job.restarts + 1, {"state": UploadState.ABORTING}, reason)
        if is_sent:
            raise StoreUnavailableError(f"{row.key}: its upload {reason}; the job begins again")

    def opening(
        self, key: str, *, size: int, part_size: int | None, base: VisibleVersion,
        prefix: int = 0, prefix_parts: int = 0,
    ) -> SavedUpload:  # fmt: skip
        """Insert the upload's row before Create is sent, so that the upload is found if Create goes unanswered.

        The row of an upload of one call is inserted right before that call, by :meth:`completing`.
        """
        upload = SavedUpload(key, size, part_size, base, datetime.now(UTC), prefix=prefix, prefix_parts=prefix_parts)
        self._upload, self._parts, self._row = upload, {}, None
        begun: dict[str, Any] = {"phase": Phase.UPLOADING, "bytes_done": 0}
        if part_size is None:
            self._lease.defer(**begun)
        else:
            self._lease.write(self._insert, upload, **begun)
        return self._held

    def _insert(self, session: Session, upload: SavedUpload) -> None:
        """Insert the row, unless an earlier try has worked and only its answer was lost."""
        found = queries.newest_upload(session, self._job.id) if self._lease.is_repeating else None
        if found is not None:
            self._row = found.id
            return
        of_job = {"job_id": self._job.id, "storage": self._storage}
        self._row, opened_at = queries.insert_upload(session, **of_job, **columns_of(upload, self._place))
        self._upload = replace(upload, opened_at=opened_at)

    def opened(self, upload_id: str) -> SavedUpload:
        """Save the upload id that the store has returned."""
        opened: dict[str, Any] = {"upload_id": upload_id, "state": UploadState.OPEN}
        return self._change(opened, **opened)

    def record(self, parts: Sequence[SentPart], *, bytes_sent: int, progressed: bool = True) -> None:
        """Save parts that the store holds. ``bytes_sent``: sent for them in this call; 0 if they were found there."""
        self.progressed = self.progressed or progressed
        before = sum(self._parts[part.part_number].size for part in parts if part.part_number in self._parts)
        done = self._job.bytes_done + sum(part.size for part in parts) - before
        rows, sent = [asdict(part) for part in parts], self._job.bytes_sent + bytes_sent
        self._lease.write(queries.record_parts, self._saved_row, rows, bytes_done=done, bytes_sent=sent)
        self._parts |= {part.part_number: part for part in parts}

    def drop(self, part_numbers: Collection[int]) -> None:
        """Delete the rows of parts that the store lacks or shows differently."""
        kept = {number: part for number, part in self._parts.items() if number not in part_numbers}
        done = sum(part.size for part in kept.values())
        self._lease.write(queries.drop_parts, self._saved_row, part_numbers, bytes_done=done)
        self._parts = kept

    def completing(self, base: VisibleVersion) -> None:
        """Pass the point of no return. Raises Interrupted if a cancel came first; a later one comes too late."""
        upload = replace(self._held, state=UploadState.COMPLETING, base=base)
        change: Callable[[Session], object] = partial(self._insert, upload=upload)
        if self._row is not None:
            columns: dict[str, Any] = {"base_etag": base.etag, "base_mod_time": base.mod_time, "state": upload.state}
            change = partial(queries.update_upload, upload=self._row, **columns)
        if not self._lease.pass_point_of_no_return(change, phase=Phase.COMPLETING, base_etag=base.etag):
            raise Interrupted
        self._upload = replace(upload, opened_at=self._held.opened_at)

    def refused(self) -> None:
        """Take the point of no return back: readers certainly do not see the blob."""
        state = UploadState.OPEN if self._held.upload_id else UploadState.OPENING
        self._change({"state": state}, state=state, phase=Phase.UPLOADING)

    def completed(
        self, etag: str | None, version_id: str | None, *, bytes_sent: int = 0, is_recognised: bool = False
    ) -> None:
        """Save that readers see the blob: in the run's next write if a later run would recognise it anyway."""
        upload, sent = self._held, self._job.bytes_sent + bytes_sent
        values = {"phase": Phase.VERIFYING, "etag": etag, "version_id": version_id, "bytes_sent": sent}
        self._lease.defer(completed=self._saved_row, bytes_done=upload.size, **values)
        if not is_recognised:
            self._lease.write()
        self._upload = replace(upload, state=UploadState.COMPLETED, etag=etag)

    def abandon(self, *, gone: bool) -> None:
        """Begin again from byte 0. Counts as a restart if the upload had an id. Raises TooManyRestartsError."""
        upload = self._held
        restarts = self._job.restarts + (upload.upload_id is not None)
        if restarts > self._max_restarts:
            raise TooManyRestartsError(f"{upload.key}: the upload was lost {restarts} times")
        columns: dict[str, Any] = {"state": UploadState.GONE if gone else UploadState.ABORTING}
        if gone and upload.upload_id is None:  # the Create may still be on its way to the store
            columns["recheck_at"] = db_now(LATE_CREATE)
        self._forget(restarts, columns, "had vanished" if gone else "could not be gone on with")

    def _forget(self, restarts: int, columns: Mapping[str, Any], reason: str) -> None:
        remark = f"its upload {reason} at byte {self._job.bytes_done}: begun again from byte 0"
        told = remark if restarts > self._job.restarts else None
        self._lease.write(self._leave, columns, told, restarts=restarts, bytes_done=0, phase=Phase.UPLOADING)
        self._upload, self._parts, self._row = None, {}, None

    def _leave(self, session: Session, columns: Mapping[str, Any], remark: str | None) -> None:
        queries.update_upload(session, self._saved_row, **columns)
        if remark:
            queries.remark(session, self._job, remark)

    def found_here(self, key: str) -> None:
        """Save that an upload that was opened elsewhere is seen here."""
        place = {"bucket": self._place.bucket, "endpoint": self._place.endpoint}
        self._change({**place, "key": key}, key=key, is_elsewhere=False)

    def known_upload_ids(self, key: str) -> set[str]:
        """The ids of all recorded uploads at the key, of any job."""
        return self._lease.write(queries.known_upload_ids, key)

    def now(self) -> datetime:
        """The time by the database's clock."""
        return self._lease.write(queries.time_now)

    def expected(self) -> Expected:
        """What Stat must show once the upload is completed."""
        return expected_blob(self.load() or self._held, self.mark)

    def deleting_source(self) -> None:
        """Save that Stat has shown the copy of a move. From now on a missing source is no error."""
        self._lease.write(phase=Phase.DELETING_SOURCE)

    @property
    def _held(self) -> SavedUpload:
        assert self._upload is not None, "an upload is loaded or opened first"
        return self._upload

    @property
    def _saved_row(self) -> int:
        assert self._row is not None, "the upload has a row from its opening or its commit call on"
        return self._row

    def _change(self, columns: Mapping[str, Any], *, phase: Phase | None = None, **fields: Any) -> SavedUpload:
        """Set columns of the upload's row, and of the upload the fields that follow from them."""
        change = partial(queries.update_upload, upload=self._saved_row, **columns)
        self._lease.write(change, **({"phase": phase} if phase else {}))
        self._upload = upload = replace(self._held, **fields)
        return upload
