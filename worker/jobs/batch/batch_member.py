"""One job of a batch: its requests to the store, and how far it has come. It knows no SQL."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blobferry.contract import Phase, UploadState
from models.queries import BatchedJob
from worker.driver import Driver
from worker.jobs.batch.batch_lease import BatchLease
from worker.jobs.mark import mark_of
from worker.stores.attempts import asked_before_attempts
from worker.stores.blob_values import BlobHead, BlobOptions, Condition, PutReceipt
from worker.stores.checksums import checksum_of, md5_etag_of
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import MemoryCheckpoint, VisibleVersion
from worker.transfer.plan import PartRange
from worker.transfer.sources.source import MemorySource
from worker.transfer.upload.commit import PUT, commit, expected_blob
from worker.transfer.upload.pace import Pace
from worker.transfer.upload.target import Target
from worker.transfer.visible import look


@dataclass(slots=True, eq=False)
class Member:
    """A job of a batch. ``look`` and ``send`` run in threads, one after the other; they raise what went wrong."""

    job: BatchedJob
    target: Target
    checkpoint: MemoryCheckpoint  #: what a single run would have in SQL; the batch writes it there for all members
    lease: BatchLease
    pace: Pace
    threads: int  #: number of parallel requests, for the pace
    read: MemorySource | None = None  #: its bytes, once they are read; without them nothing is done for it
    attempts: Counter[str] = field(default_factory=Counter)  #: on the wire, by verb
    base: VisibleVersion = field(default_factory=VisibleVersion)  #: what readers see before
    has_passed: bool = False  #: whether its row says that it is past the point of no return
    receipt: PutReceipt | None = None  #: the store has answered that the blob is there
    head: BlobHead | None = None  #: the blob, as Stat has shown it
    error: Exception | None = None  #: why it leaves the lane, if there is more to say than that it has to

    @property
    def source(self) -> MemorySource:
        """Its bytes."""
        assert self.read is not None, "they are read before anything is sent"
        return self.read

    def look(self) -> None:
        """See what readers see. Raises BlobExistsError, StoreError, LeaseLostError."""
        with asked_before_attempts(self._before_attempt):
            self.base = self.target.base()

    def send(self) -> None:
        """Put the blob, on the condition that readers still see the base, and look at it. Raises as ``commit`` does."""
        store, key, mark = self.target.store, self.target.key, self.checkpoint.mark
        upload = self.checkpoint.opening(key, size=self.source.size, part_size=None, base=self.base)
        body = PartBody(self.source, PartRange(1, 0, self.source.size), self.source.data, filled=self.source.size)
        checksum, options = checksum_of(body, store.checksum), self.target.marked_options
        expected = replace(expected_blob(upload, mark, md5_etag_of(body)), checksum=checksum)

        def put(condition: Condition | None) -> PutReceipt:
            def send() -> PutReceipt:
                return store.put(key, body, checksum=checksum, condition=condition, options=options)

            return self.pace.once(send, self.threads, self.target.stop)

        with asked_before_attempts(self._before_attempt):
            self.receipt = commit(self.target, PUT, put, base=self.base, expected=expected)
            head = look(store, key)
            if replace(expected, answered=self.receipt.etag).difference(store, head) is None:
                self.head = head

    @property
    def is_certain(self) -> bool:
        """Whether no put of this member has had an effect, or can have one later."""
        return self.checkpoint.upload is None or self.checkpoint.upload.state != UploadState.COMPLETING

    def progress(self) -> Mapping[str, Any]:
        """What its rows have to say of how far it has come, as :func:`models.queries.end_batch` takes it."""
        common = {"seq": self.job.seq, "job_id": self.job.id, "attempt": self.job.attempt, "sent": dict(self.attempts)}
        if self.receipt is not None:
            receipt, common = self.receipt, {**common, "size": self.source.size}
            return {
                **common,
                "phase": Phase.VERIFYING,
                "upload_state": UploadState.COMPLETED,
                "etag": receipt.etag,
                "version_id": receipt.version_id,
            }
        if (
            self.has_passed and self.is_certain
        ):  # as if it had never passed: a later look must not call others' bytes ours
            return {**common, "phase": Phase.UPLOADING, "upload_state": UploadState.OPENING}
        return {**common, "phase": None}

    def _before_attempt(self, verb: str) -> None:
        self.lease.check(self.job.seq)
        self.attempts[verb] += 1


def member_of(job: BatchedJob, driver: Driver, lease: BatchLease, pace: Pace, threads: int) -> Member:
    """The member for a claimed job, whose bytes have yet to be read."""
    request, checkpoint = job.request, MemoryCheckpoint(mark_of(job.id))

    def stop() -> bool:
        lease.check(job.seq)
        return False

    target = Target(
        store=driver.store,
        key=driver.key(job.path),
        checkpoint=checkpoint,
        stop=stop,
        options=BlobOptions(request.get("content_type"), request.get("metadata") or {}),
        overwrite=request.get("overwrite", True),
    )
    return Member(job, target, checkpoint, lease, pace, threads)
