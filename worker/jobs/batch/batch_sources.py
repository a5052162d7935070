"""The bytes of the jobs of a batch: those in their rows, or those of their files, which are read before all else."""

from collections.abc import Iterator, Sequence
from typing import Final

from models.queries import BatchedJob
from worker.errors import SourceNotAllowedError
from worker.jobs.batch.small_job import largest_file
from worker.runtime import Runtime
from worker.transfer.sources.small_files import Read, read_files
from worker.transfer.sources.source import MemorySource

READING: Final = 2.0  #: seconds for all files of a batch


def read_sources(runtime: Runtime, jobs: Sequence[BatchedJob]) -> Iterator[tuple[BatchedJob, Read]]:
    """Read what the jobs write, as :func:`read_files` does. Nothing is yielded for a file that does not come in time.

    A file is opened, read and checked by the rules of any run: allowed roots, a regular file, as many bytes as its
    status says and not one more, the same status afterwards.
    """
    of_files = [job for job in jobs if str(job.request.get("source", "")).startswith("file:")]
    if not of_files:
        yield from ((job, MemorySource(job.contents)) for job in jobs)
        return
    of_files, refused = _removable(runtime, of_files)
    yield from refused
    urls = [str(job.request["source"]) for job in of_files]
    roots = runtime.settings.source_roots
    for position, read in read_files(urls, roots, largest_file(runtime), READING):
        yield of_files[position], read


def _removable(
    runtime: Runtime, jobs: Sequence[BatchedJob]
) -> tuple[list[BatchedJob], list[tuple[BatchedJob, SourceNotAllowedError]]]:
    """Those whose source may be read, and why the others' may not: they are to remove what is not theirs to remove."""
    readable, refused = list[BatchedJob](), list[tuple[BatchedJob, SourceNotAllowedError]]()
    for job in jobs:
        try:
            if job.removes_source:
                runtime.refuse_unremovable(str(job.request["source"]))
            readable.append(job)
        except SourceNotAllowedError as error:
            refused.append((job, error))
    return readable, refused
