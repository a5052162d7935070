"""Jobs: tasks that have a row and survive their worker."""

from collections.abc import Mapping
from typing import Any

from celery import shared_task

from worker.delivery import JobTask


@shared_task(bind=True, base=JobTask, name="blobferry.write_stream")
def write_stream(self: JobTask, **arguments: Any) -> Mapping[str, Any] | None:
    """Write a source to a path: ``path, source, offset=0, storage="default", …``."""
    return self.deliver("write_stream", arguments)
