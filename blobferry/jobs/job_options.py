"""Keyword arguments of the methods of Client that submit jobs."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict

from blobferry.jobs.submission import Transaction


class JobOptions(TypedDict, total=False):
    """Options of every job."""

    storage: str  #: the name of a storage that the worker knows; "default"
    priority: int  #: 0 to 9, higher first; 0
    not_before: datetime | None
    deadline: datetime | None  #: a job that has not succeeded by then fails
    labels: Mapping[str, str] | None  #: the app's own
    idempotency_key: str | None  #: repeating the request returns the first job; another request raises ConflictError
    session: Transaction | None  #: the row joins this transaction


class WriteOptions(JobOptions, total=False):
    """Options of a job that writes a blob."""

    overwrite: bool  #: False: the job fails if the path has a blob
    metadata: Mapping[str, str] | None  #: of the blob; None: as before if the write has an offset, else none
    content_type: str | None  #: of the blob; None as above
