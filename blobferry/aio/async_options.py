"""Keyword arguments of the methods of AsyncClient that make jobs: those of Client, but for the session."""

from blobferry.jobs.job_options import RequestOptions, StreamRequestOptions, WriteRequestOptions
from blobferry.sql.async_transactions import AsyncTransaction


class AsyncJobOptions(RequestOptions, total=False):
    """Those of a job that is submitted at once."""

    session: AsyncTransaction | None  #: the row joins this transaction


class AsyncWriteOptions(WriteRequestOptions, AsyncJobOptions, total=False):
    """Those of a job that writes a blob and is submitted at once."""


class AsyncStreamOptions(StreamRequestOptions, AsyncWriteOptions, total=False):
    """Those of a write_stream that is submitted at once."""
