"""Keyword arguments of the methods of Client and NewJob that make jobs."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

from blobferry.checks.django_tasks import DjangoTask
from blobferry.jobs.submission import Transaction

Labels = Mapping[str, str | int | UUID]
EndReceiver = Mapping[str, Any] | DjangoTask


class RequestOptions(TypedDict, total=False):
    """Options of every job."""

    storage: str  #: the name of a storage that the worker knows; "default"
    priority: int  #: 0 to 9, higher first; 0
    not_before: datetime | timedelta | None  #: a duration counts from now, by this host's clock
    deadline: datetime | timedelta | None  #: a job that has not succeeded by then fails
    labels: Labels | None  #: the app's own; kept as strings
    idempotency_key: str | None  #: repeating the request returns the first job; another request raises ConflictError
    #: "failed": a new job takes the key of one that failed or was cancelled, which ``Job.replaces`` names
    reuse: str | None
    on_done: EndReceiver | None  #: a Celery signature, or a @task of Django's, told once the job has succeeded
    on_failed: EndReceiver | None  #: the same, once it has failed or was cancelled
    webhook: str | None  #: the URL that each end is posted to, signed by Standard Webhooks
    webhook_secret: str | None  #: the name of the worker's secret that signs; "default"


class WriteRequestOptions(RequestOptions, total=False):
    """Options of a job that writes a blob."""

    overwrite: bool  #: False: the job fails if the path has a blob
    metadata: Mapping[str, str] | None  #: of the blob; None: as before if the write has an offset, else none
    content_type: str | None  #: of the blob; None as above


class StreamRequestOptions(WriteRequestOptions, total=False):
    """Options of a write_stream."""

    #: True: the worker removes the source, a file, once the job has succeeded. None: if the source is spooled.
    delete_source: bool | None


class JobOptions(RequestOptions, total=False):
    """Those of a job that is submitted at once."""

    session: Transaction | None  #: the row joins this transaction


class WriteOptions(WriteRequestOptions, JobOptions, total=False):
    """Those of a job that writes a blob and is submitted at once."""


class StreamOptions(StreamRequestOptions, WriteOptions, total=False):
    """Those of a write_stream that is submitted at once."""
