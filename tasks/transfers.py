"""Jobs: tasks with a row, which survive the death of their worker."""

from collections.abc import Mapping
from typing import Any

from celery import shared_task

from worker.celery.job_task import JobTask


@shared_task(bind=True, base=JobTask, name="blobferry.put_content")
def put_content(self: JobTask, /, **arguments: Any) -> Mapping[str, Any] | None:
    """Make some bytes the whole blob: ``path, contents, storage="default", …``."""
    return self.deliver("put_content", arguments)


@shared_task(bind=True, base=JobTask, name="blobferry.write_stream")
def write_stream(self: JobTask, /, **arguments: Any) -> Mapping[str, Any] | None:
    """Write a source to a path: ``path, source, offset=0, storage="default", …``."""
    return self.deliver("write_stream", arguments)


@shared_task(bind=True, base=JobTask, name="blobferry.read_stream")
def read_stream(self: JobTask, /, **arguments: Any) -> Mapping[str, Any] | None:
    """Write a blob to a file: ``path, dest, offset=0, storage="default", …``."""
    return self.deliver("read_stream", arguments)


@shared_task(bind=True, base=JobTask, name="blobferry.move")
def move(self: JobTask, /, **arguments: Any) -> Mapping[str, Any] | None:
    """Move a blob: ``source_path, dest_path, dest_storage=None, storage="default", …``."""
    return self.deliver("move", arguments)


@shared_task(bind=True, base=JobTask, name="blobferry.delete")
def delete(self: JobTask, /, **arguments: Any) -> Mapping[str, Any] | None:
    """Delete a blob and everything under its path: ``path, storage="default", …``."""
    return self.deliver("delete", arguments)
