"""The checkpoint of a job: SQL rows, each written in a transaction that first checks the run's token.

Every write may be repeated, since the answer to its COMMIT may be lost. So counts are set, never added to.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from blobferry.contract import PAST_POINT_OF_NO_RETURN, Phase, UploadState
from blobferry.sql.clock import db_now
from models import PartRow, UploadRow, queries
from models.upload import Place
from worker.errors import ConfigurationError, StoreUnavailableError, TooManyRestartsError
from worker.jobs.lease import Lease
from worker.jobs.mark import mark_of
from worker.jobs.upload_rows import saved_upload
from worker.transfer.checkpoint import SavedUpload, SentPart, VisibleVersion
from worker.transfer.fingerprint import pinned
from worker.transfer.stop import Interrupted
from worker.transfer.upload.commit import expected_blob
from worker.transfer.visible import Expected

LATE_CREATE: Final = 3600.0  #: seconds after which the upload of an unanswered Create is searched for once more


class SqlCheckpoint:
    """The checkpoint of one run. Every method raises LeaseLostError once another run owns the job."""

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
            may_lie_elsewhere: load an upload from another place too. False: ask for it, or raise ConfigurationError for
                another bucket.
            is_found: asks the place for an upload, or the blob with this mark, that has another endpoint in its row.
        """
        job = lease.job
        self.mark = mark_of(job.id)
        self.progressed = False  #: whether this run has sent bytes
        self.past_point_of_no_return = job.phase in PAST_POINT_OF_NO_RETURN  #: whether readers may see the blob
        self._lease = lease
        self._job = job
        self._place = place
        self._storage = storage or job.storage
        self._max_restarts = max_restarts
        self._may_lie_elsewhere = may_lie_elsewhere
        self._is_found = is_found
        self._row: UploadRow | None = None

    def pin_source(self, size: int, fingerprint: Mapping[str, Any], *, is_compared: bool = False) -> bool:
        """Save the source's fingerprint, or compare it with the saved one; False if the bytes must be compared."""
        known = self._job.source_fingerprint
        found = pinned(known, fingerprint, source=str(self._job.source), is_compared=is_compared)
        if found is None:
            return False
        self._job.size, self._job.source_fingerprint = size, found
        self._write(size=size, source_fingerprint=found, phase=self._job.phase or Phase.UPLOADING)
        return True

    def load(self) -> SavedUpload | None:
        """The upload to resume, with its parts; None if there is none."""
        row, parts = self._lease.write(self._read)
        self._row = row
        if row is None:
            return None
        upload = saved_upload(row, parts, self._job.etag)
        if row.is_at(self._place):
            return upload
        if self._may_lie_elsewhere:
            return replace(upload, is_elsewhere=True)
        return upload if self._is_here(row, upload) else None

    def _is_here(self, row: UploadRow, upload: SavedUpload) -> bool:
        """Whether the upload is at the place, though saved under another name of it; if not, begin again."""
        place = self._place
        if row.bucket != place.bucket:
            problem = f"this job's upload is in bucket {row.bucket!r}, but the storage now names {place.bucket!r}"
            raise ConfigurationError(f"storages.{row.storage}", problem)
        if self._is_found(upload, self.mark):
            self._write(upload={"endpoint": place.endpoint, "identity": place.identity})
            return True
        reason = f"was opened at {row.endpoint or 'AWS'} and is not to be found at {place.endpoint or 'AWS'}"
        self._forget(self._job.restarts + 1, {"state": UploadState.ABORTING}, reason)
        if self._job.phase in (Phase.VERIFYING, Phase.DELETING_SOURCE):  # this run would not send it again
            raise StoreUnavailableError(f"{row.key}: its upload {reason}; the job begins again")
        return False

    def opening(
        self, key: str, *, size: int, part_size: int | None, base: VisibleVersion,
        prefix: int = 0, prefix_parts: int = 0,
    ) -> None:  # fmt: skip
        """Insert the upload's row before Create is sent, so that the upload is found if Create goes unanswered."""
        values = {
            "job_id": self._job.id,
            "storage": self._storage,
            "bucket": self._place.bucket,
            "endpoint": self._place.endpoint,
            "identity": self._place.identity,
            "key": key,
            "size": size,
            "part_size": part_size,
            "head": prefix,
            "head_parts": prefix_parts,
            "state": UploadState.OPENING,
            "base_etag": base.etag,
            "base_mod_time": base.mod_time,
        }

        def add(session: Session) -> UploadRow:
            row = queries.newest_upload(session, self._job.id)
            if row is None:  # otherwise an earlier try has worked and only its answer was lost
                row = UploadRow(**values)
                session.add(row)
            return row

        self._row = self._lease.write(add, phase=Phase.UPLOADING, bytes_done=0)
        self._job.bytes_done = 0

    def opened(self, upload_id: str) -> None:
        """Save the upload id that the store has returned."""
        self._write(upload={"upload_id": upload_id, "state": UploadState.OPEN})

    def record(self, parts: Sequence[SentPart], *, bytes_sent: int, progressed: bool = True) -> None:
        """Save parts that the store holds. ``bytes_sent``: sent for them in this call; 0 if they were found there."""
        self.progressed = self.progressed or progressed
        done, sent = self._job.bytes_done + sum(part.size for part in parts), self._job.bytes_sent + bytes_sent

        def add(session: Session) -> None:
            queries.record_parts(session, self._upload.id, [asdict(part) for part in parts])
            queries.count_bytes_sent(session, self._job, sent)

        self._lease.write(add, bytes_done=done)
        self._job.bytes_done, self._job.bytes_sent = done, sent

    def drop(self, part_numbers: Collection[int]) -> None:
        """Delete the rows of parts that the store lacks or shows differently."""

        def forget(session: Session) -> int:
            done = queries.drop_parts(session, self._upload.id, part_numbers)
            queries.update_owned(session, self._job.id, self._job.token, bytes_done=done)
            return done

        self._job.bytes_done = self._lease.write(forget)

    def completing(self, base: VisibleVersion) -> None:
        """Pass the point of no return. Raises Interrupted if a cancel came first; a later one comes too late."""
        values = {"base_etag": base.etag, "base_mod_time": base.mod_time, "state": UploadState.COMPLETING}

        def begin(session: Session) -> bool:
            won = queries.begin_completing(session, self._job, base_etag=base.etag)
            if won:
                queries.update_upload(session, self._upload.id, **values)
            return won

        if not self._lease.write(begin):
            raise Interrupted
        self.past_point_of_no_return = True

    def refused(self) -> None:
        """Take the point of no return back: readers certainly do not see the blob."""
        state = UploadState.OPEN if self._upload.upload_id else UploadState.OPENING
        self._write(upload={"state": state}, phase=Phase.UPLOADING)
        self.past_point_of_no_return = False

    def completed(self, etag: str | None, version_id: str | None, *, bytes_sent: int = 0) -> None:
        """Save that readers see the blob; it remains to verify it."""
        self._job.etag, self._job.version_id = etag, version_id
        done, sent = self._upload.size, self._job.bytes_sent + bytes_sent

        def close(session: Session) -> None:
            queries.update_upload(session, self._upload.id, state=UploadState.COMPLETED)
            queries.count_bytes_sent(session, self._job, sent)

        self._lease.write(close, phase=Phase.VERIFYING, etag=etag, version_id=version_id, bytes_done=done)
        self._job.bytes_done, self._job.bytes_sent = done or 0, sent

    def abandon(self, *, gone: bool) -> None:
        """Begin again from byte 0. Counts as a restart if the upload had an id. Raises TooManyRestartsError."""
        restarts = self._job.restarts + (self._upload.upload_id is not None)
        if restarts > self._max_restarts:
            raise TooManyRestartsError(f"{self._upload.key}: the upload was lost {restarts} times")
        upload: dict[str, Any] = {"state": UploadState.GONE if gone else UploadState.ABORTING}
        if gone and self._upload.upload_id is None:  # the Create may still be on its way to the store
            upload["recheck_at"] = db_now(LATE_CREATE)
        self._forget(restarts, upload, "had vanished" if gone else "could not be gone on with")

    def _forget(self, restarts: int, upload: Mapping[str, Any], reason: str) -> None:
        counts, lost = restarts > self._job.restarts, self._job.bytes_done

        def forget(session: Session) -> None:
            queries.update_upload(session, self._upload.id, **upload)
            if counts:
                queries.remark(session, self._job, f"its upload {reason} at byte {lost}: begun again from byte 0")

        self._lease.write(forget, restarts=restarts, bytes_done=0, phase=Phase.UPLOADING)
        self._upload.state = upload["state"]
        self._job.restarts, self._job.bytes_done = restarts, 0
        self.past_point_of_no_return = False

    def found_here(self, key: str) -> None:
        """Save that an upload that was opened elsewhere is seen here."""
        self._write(upload={"bucket": self._place.bucket, "endpoint": self._place.endpoint, "key": key})

    def known_upload_ids(self, key: str) -> set[str]:
        """The ids of all recorded uploads at the key, of any job."""
        return self._lease.write(lambda session: queries.known_upload_ids(session, key))

    def now(self) -> datetime:
        """The time by the database's clock."""
        return self._lease.write(queries.time_now)

    def expected(self) -> Expected:
        """What Stat must show once the upload is completed."""
        upload = self.load()
        assert upload is not None, "a job that is verifying has an upload"
        return expected_blob(upload, self.mark)

    def deleting_source(self) -> None:
        """Save that Stat has shown the copy of a move. From now on a missing source is no error."""
        self._write(phase=Phase.DELETING_SOURCE)

    @property
    def _upload(self) -> UploadRow:
        assert self._row is not None, "an upload is loaded or opened first"
        return self._row

    def _read(self, session: Session) -> tuple[UploadRow | None, Sequence[PartRow]]:
        row = queries.newest_upload(session, self._job.id)
        return row, queries.parts_of(session, row.id) if row else ()

    def _write(self, *, upload: Mapping[str, Any] | None = None, **values: Any) -> None:
        def change(session: Session) -> None:
            if upload:
                queries.update_upload(session, self._upload.id, **upload)

        self._lease.write(change, **values)
        for name, value in (upload or {}).items():
            setattr(self._upload, name, value)
