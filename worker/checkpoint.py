"""The checkpoint of a job: SQL rows, each written in a transaction that first says the run's token."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final, Protocol

from blobferry.clock import db_now
from blobferry.contract import PAST_RETURN, Phase, UploadState
from models import Database, Job, Upload, queries
from worker.errors import ConfigurationError, SourceChangedError, TooManyRestartsError
from worker.transfer.checkpoint import Base, SavedUpload, SentPart
from worker.transfer.control import Interrupted
from worker.transfer.settling import expected_blob
from worker.transfer.visible import Expected

LATE_CREATE: Final = 3600.0  #: seconds after which a lost Create is looked for once more


def mark_of(job_id: str) -> str:
    """The mark by which a job knows its blob again; a job id may hold what a header cannot."""
    return sha256(job_id.encode()).hexdigest()[:32]


class Place(Protocol):
    """Where uploads lie: a store, or the directory of a file."""

    bucket: str
    endpoint: str


class SqlCheckpoint:
    """The checkpoint of one run. Every method raises LeaseLostError once another run owns the job."""

    def __init__(
        self,
        database: Database,
        job: Job,
        place: Place,
        *,
        max_restarts: int,
        storage: str | None = None,
        begins_again_elsewhere: bool = False,
    ) -> None:
        """``storage`` is the name of the storage that is written to, if that is not the job's own.

        An upload of another place is begun again if ``begins_again_elsewhere``, as for a file on another host; else it
        is an error, for it must not be forgotten.
        """
        self.mark = mark_of(job.id)
        self.progressed = False  #: bytes went out in this run
        self.past_return = job.phase in PAST_RETURN  #: readers may see the blob any moment
        self._database = database
        self._job = job
        self._place = place
        self._storage = storage or job.storage
        self._max_restarts = max_restarts
        self._begins_again_elsewhere = begins_again_elsewhere
        self._row: Upload | None = None

    def pin_source(self, size: int, fingerprint: Mapping[str, Any]) -> None:
        """Remember the source, or compare it with the one that an earlier run has read."""
        known = self._job.source_fingerprint
        if known is not None and known != dict(fingerprint):
            raise SourceChangedError(
                f"{self._job.source}: was {known} at the first attempt, is {dict(fingerprint)} now"
            )
        self._job.size, self._job.source_fingerprint = size, dict(fingerprint)
        self._write(size=size, source_fingerprint=dict(fingerprint), phase=self._job.phase or Phase.UPLOADING)

    def load(self) -> SavedUpload | None:
        """The newest upload that is neither gone nor being aborted, with its parts."""
        with self._database.begin() as session:
            queries.update_owned(session, self._job.id, self._job.token)
            row = self._row = queries.newest_upload(session, self._job.id)
            if row is None:
                return None
            is_elsewhere = (row.bucket, row.endpoint) != (self._place.bucket, self._place.endpoint)
            if is_elsewhere and not self._begins_again_elsewhere:
                problem = f"this job's upload is in bucket {row.bucket!r}, the storage now names {self._place.bucket!r}"
                raise ConfigurationError(f"storages.{row.storage}", problem)
            parts = queries.parts_of(session, row.id)
        if is_elsewhere:
            self.abandon(gone=False)
            return None
        return SavedUpload(
            key=row.key,
            size=row.size or 0,
            part_size=row.part_size,
            base=Base(row.base_etag or "", row.base_mod_time),
            opened_at=row.opened_at,
            state=UploadState(row.state),
            upload_id=row.upload_id,
            parts={
                part.part_number: SentPart(part.part_number, part.offset, part.size, part.etag, part.checksum)
                for part in parts
            },
            etag=self._job.etag,
            head=row.head,
            head_parts=row.head_parts,
        )

    def opening(
        self, key: str, *, size: int, part_size: int | None, base: Base, head: int = 0, head_parts: int = 0
    ) -> None:
        """The ledger's row, before the store hears of the upload."""
        row = Upload(
            job_id=self._job.id,
            storage=self._storage,
            bucket=self._place.bucket,
            endpoint=self._place.endpoint,
            key=key,
            size=size,
            part_size=part_size,
            head=head,
            head_parts=head_parts,
            state=UploadState.OPENING,
            base_etag=base.etag,
            base_mod_time=base.mod_time,
        )
        with self._database.begin() as session:
            queries.update_owned(session, self._job.id, self._job.token, phase=Phase.UPLOADING)
            session.add(row)
        self._row = row

    def opened(self, upload_id: str) -> None:
        """The store has answered."""
        self._write(upload={"upload_id": upload_id, "state": UploadState.OPEN})

    def record(self, parts: Sequence[SentPart], *, bytes_sent: int, progressed: bool = True) -> None:
        """Rows for parts that the store holds."""
        self.progressed = self.progressed or progressed
        with self._database.begin() as session:
            queries.update_owned(
                session,
                self._job.id,
                self._job.token,
                bytes_done=Job.bytes_done + sum(part.size for part in parts),
                bytes_sent=Job.bytes_sent + bytes_sent,
            )
            queries.record_parts(session, self._upload.id, [asdict(part) for part in parts])
            queries.add_bytes_sent(session, self._job, bytes_sent)

    def drop(self, part_numbers: Collection[int]) -> None:
        """Their rows were wrong."""
        with self._database.begin() as session:
            queries.update_owned(session, self._job.id, self._job.token)
            dropped = queries.drop_parts(session, self._upload.id, part_numbers)
            queries.update_owned(session, self._job.id, self._job.token, bytes_done=Job.bytes_done - dropped)

    def completing(self, base: Base) -> None:
        """The point of no return: a cancel that came first wins, a later one is too late."""
        with self._database.begin() as session:
            won = queries.begin_completing(session, self._job, base_etag=base.etag)
            if won:
                values = {"base_etag": base.etag, "base_mod_time": base.mod_time, "state": UploadState.COMPLETING}
                queries.update_upload(session, self._upload.id, **values)
        if not won:
            raise Interrupted
        self.past_return = True

    def completed(self, etag: str | None, version_id: str | None, *, bytes_sent: int = 0) -> None:
        """Readers see the blob; what is left is to look."""
        self._job.etag, self._job.version_id = etag, version_id
        with self._database.begin() as session:
            queries.update_owned(
                session,
                self._job.id,
                self._job.token,
                phase=Phase.VERIFYING,
                etag=etag,
                version_id=version_id,
                bytes_done=self._upload.size,
                bytes_sent=Job.bytes_sent + bytes_sent,
            )
            queries.update_upload(session, self._upload.id, state=UploadState.COMPLETED)
            queries.add_bytes_sent(session, self._job, bytes_sent)

    def abandon(self, *, gone: bool) -> None:
        """Begin again from byte 0. An upload that never got an id had no bytes to lose and does not count."""
        restarts = self._job.restarts + (self._upload.upload_id is not None)
        if restarts > self._max_restarts:
            raise TooManyRestartsError(f"{self._upload.key}: the upload was lost {restarts} times")
        self._job.restarts = restarts
        self.past_return = False
        upload: dict[str, Any] = {"state": UploadState.GONE if gone else UploadState.ABORTING}
        if gone and self._upload.upload_id is None:  # a Create may still be on its way to the store
            upload["recheck_at"] = db_now(LATE_CREATE)
        self._write(
            upload=upload,
            restarts=restarts,
            bytes_done=0,
            phase=Phase.UPLOADING,
        )

    def known_upload_ids(self, key: str) -> set[str]:
        """Ids in the ledger, of any job."""
        with self._database.begin() as session:
            return queries.known_upload_ids(session, self._place.bucket, self._place.endpoint, key)

    def expected(self) -> Expected:
        """The blob that Stat has to show, once the upload is completed."""
        upload = self.load()
        assert upload is not None, "a job that is verifying has an upload"
        return expected_blob(upload, self.mark, self._job.etag)

    def deleting_source(self) -> None:
        """Stat has shown the copy of a move: from now on a source that is gone is no error."""
        self._write(phase=Phase.DELETING_SOURCE)

    @property
    def _upload(self) -> Upload:
        assert self._row is not None, "an upload is loaded or opened before anything is said of it"
        return self._row

    def _write(self, *, upload: Mapping[str, Any] | None = None, **values: Any) -> None:
        with self._database.begin() as session:
            queries.update_owned(session, self._job.id, self._job.token, **values)
            if upload:
                queries.update_upload(session, self._upload.id, **upload)
        for name, value in (upload or {}).items():
            setattr(self._upload, name, value)
