"""ClaimedJob: a job as the run that has claimed it knows it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from blobferry.jobs.needs import needs_of
from blobferry.sql.tables import jobs

FIRST_TOKEN: Final = 1  #: of a job that no run has claimed before


@dataclass(slots=True)
class ClaimedJob:
    """What the claim returned, and what the run has written since. Columns as in ``blobferry_jobs``.

    Only the run that holds the lease changes these columns, so it need not read them again.
    """

    seq: int
    id: str
    operation: str
    storage: str
    path: str | None
    source: str | None
    request: dict[str, Any] | None
    contents: bytes | None = field(repr=False)  #: of a put_content; in a row of an earlier version the request has them
    deadline: datetime | None
    publish_seq: int
    state: str
    phase: str | None
    cancel_requested: bool
    pause_requested: bool
    token: int
    worker: str | None
    attempt: int
    failures: int
    crashes: int
    restarts: int
    polls: int
    size: int | None
    source_fingerprint: dict[str, Any] | None
    bytes_done: int
    bytes_sent: int
    base_etag: str | None
    etag: str | None
    version_id: str | None
    cutoff: datetime | None
    deleted_any: bool
    on_end: dict[str, Any] | None  #: who is told of its end
    removes_source: bool
    #: Whether a batch has begun it under this token, so that it may have rows.
    was_in_batch: bool = False
    #: Whether its worker was perhaps seen to lack something.
    may_lack: bool = True
    #: Attempts on the wire by verb, of all runs of this attempt.
    sent: Counter[str] = field(default_factory=Counter)
    #: The job's ``bytes_sent`` when its attempt began.
    sent_before: int = 0

    @property
    def is_first_run(self) -> bool:
        """Whether no run has claimed the job before: then it has no upload, no lock and no earlier attempt."""
        return self.token == FIRST_TOKEN and not self.was_in_batch

    @property
    def needs(self) -> frozenset[str]:
        """The names of what the job needs of its worker."""
        return needs_of({"storage": self.storage, "source": self.source, "request": self.request})

    def take(self, values: Mapping[str, Any]) -> None:
        """Have the columns that the run has written. Expressions, which the database evaluates, are left out."""
        for name, value in values.items():
            if name in _WRITTEN:
                setattr(self, name, value)


#: The columns that a claim returns.
CLAIMED: Final = tuple(jobs.c[name] for name in ClaimedJob.__slots__ if name in jobs.c)
#: Those that a run writes as plain values and reads again.
_WRITTEN: Final = frozenset(
    (
        "phase",
        "restarts",
        "size",
        "source_fingerprint",
        "bytes_done",
        "bytes_sent",
        "base_etag",
        "etag",
        "version_id",
        "cutoff",
        "deleted_any",
    )
)
