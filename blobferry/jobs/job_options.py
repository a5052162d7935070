"""What the methods of Client that submit jobs take by keyword."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict

from blobferry.jobs.submission import Transaction


class JobOptions(TypedDict, total=False):
    """What every job may be submitted with."""

    storage: str  #: the name of a storage that the worker knows; "default"
    priority: int  #: 0 to 9, higher first; 0
    not_before: datetime | None
    deadline: datetime | None  #: a job that is not done by then fails
    labels: Mapping[str, str] | None  #: the app's own
    idempotency_key: str | None  #: the same request again returns the first job, another raises ConflictError
    session: Transaction | None  #: the row joins this transaction


class WriteOptions(JobOptions, total=False):
    """What a job that writes a blob may be submitted with."""

    overwrite: bool  #: False: it fails if there is a blob already
    metadata: Mapping[str, str] | None  #: the blob's; None, of a write at an offset: as it was
    content_type: str | None  #: the same
