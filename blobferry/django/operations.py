"""The operations as functions for ``@task`` of django.tasks: ``store = task(backend="ferry")(write_stream)``.

With the backend of :mod:`blobferry.django.task_backend`, to enqueue such a task is to submit the job, as part of the
open transaction. By any other backend they run in its worker, and submit the job there. Each returns the job's id.
"""

from typing import Any

from blobferry.django.ferries import ferry


def write_stream(path: str, source: str, **options: Any) -> str:
    """Write the source, a URL, to the path."""
    return ferry.write_stream(path, source, **options).id


def read_stream(path: str, dest: str, **options: Any) -> str:
    """Write the blob to a ``file:`` URL."""
    return ferry.read_stream(path, dest, **options).id


def move(source_path: str, dest_path: str, **options: Any) -> str:
    """Move a blob."""
    return ferry.move(source_path, dest_path, **options).id


def delete(path: str, **options: Any) -> str:
    """Delete the blob and everything under the path."""
    return ferry.delete(path, **options).id
