"""Content on its way from ``Storage.save`` to the job: bytes, then a file in the spool."""

import io
from typing import Any

from django.core.files import File

from blobferry.spooling import Spooled


class SpooledContent(File):
    """Content that is in the spool."""

    def __init__(self, spooled: Spooled, name: str | None) -> None:
        super().__init__(None, name)
        self.spooled = spooled


def binary(content: Any) -> Any:
    """The content as ``spool`` takes it. Text, such as that of a ContentFile, is encoded as UTF-8."""
    file = getattr(content, "file", content)
    if not isinstance(file, io.TextIOBase):
        return content
    file.seek(0)
    return io.BytesIO(file.read().encode())
