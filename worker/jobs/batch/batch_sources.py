"""The bytes of the jobs of a batch: those in their rows, or those of their files, which are read before all else."""

from collections.abc import Iterator, Sequence
from typing import Final

from models.queries import BatchedJob
from models.queries.glances import FILE
from worker.errors import BlobferryError
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
    files = list[tuple[BatchedJob, str]]()
    for job in jobs:
        if job.contents is not None:
            yield job, MemorySource(job.contents)
            continue
        try:
            url = runtime.sealer.opened(str(job.request.get("source")))
        except BlobferryError as error:  # no key opens it
            yield job, error
            continue
        if url.startswith(FILE):
            files.append((job, url))
    if not files:
        return

    def refuse_unremovable(position: int) -> None:
        job, url = files[position]
        if job.removes_source:
            runtime.refuse_unremovable(url)

    urls, roots = [url for _, url in files], runtime.settings.source_roots
    for position, read in read_files(urls, roots, largest_file(runtime), READING, before=refuse_unremovable):
        yield files[position][0], read
