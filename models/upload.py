"""UploadRow: an upload that a job has opened in a store; it outlives the run, so that it can be resumed or aborted."""

from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Mapped

from blobferry.sql.tables import uploads
from models.base import Base


class Place(Protocol):
    """Where an upload lies: a bucket of a store, or the directory of a file."""

    bucket: str
    endpoint: str

    @property
    def identity(self) -> str | None:
        """Equal for all names of the place; None if it has but one."""
        ...


class UploadRow(Base):
    """A row of ``blobferry_uploads``. A single put also has one, without ``upload_id`` and ``part_size``."""

    __table__ = uploads

    id: Mapped[int]
    job_id: Mapped[str]
    upload_id: Mapped[str | None]
    storage: Mapped[str]
    bucket: Mapped[str]
    endpoint: Mapped[str]
    identity: Mapped[str | None]
    key: Mapped[str]
    size: Mapped[int | None]
    part_size: Mapped[int | None]
    head: Mapped[int]
    head_parts: Mapped[int]
    state: Mapped[str]
    opened_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    base_etag: Mapped[str | None]
    base_mod_time: Mapped[datetime | None]
    recheck_at: Mapped[datetime | None]

    def is_at(self, place: Place) -> bool:
        """Whether the upload lies there, as far as names tell."""
        is_same = self.identity is not None and self.identity == place.identity
        return is_same or (self.bucket, self.endpoint) == (place.bucket, place.endpoint)
