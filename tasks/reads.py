"""Reads: tasks without a row, whose result is the answer."""

from typing import Any

from celery import shared_task

from worker.celery.read_task import ReadTask


@shared_task(bind=True, base=ReadTask, name="blobferry.get_content")
def get_content(self: ReadTask, /, **arguments: Any) -> Any:
    """The bytes of a blob of at most 1 MiB: ``path, storage="default"``."""
    return self.answer("get_content", arguments)


@shared_task(bind=True, base=ReadTask, name="blobferry.stat")
def stat(self: ReadTask, /, **arguments: Any) -> Any:
    """``path, size, mod_time, is_dir`` of a path: ``path, storage="default"``."""
    return self.answer("stat", arguments)


@shared_task(bind=True, base=ReadTask, name="blobferry.list")
def list_(self: ReadTask, /, **arguments: Any) -> Any:
    """The paths of the direct children of a path: ``path, storage="default"``."""
    return self.answer("list", arguments)


@shared_task(bind=True, base=ReadTask, name="blobferry.url_for")
def url_for(self: ReadTask, /, **arguments: Any) -> Any:
    """A URL that needs no credentials: ``path, options=None, storage="default"``."""
    return self.answer("url_for", arguments)


@shared_task(bind=True, base=ReadTask, name="blobferry.urls_for")
def urls_for(self: ReadTask, /, **arguments: Any) -> Any:
    """Signed URLs of many blobs."""
    return self.answer("urls_for", arguments)
