"""An upload as its rows have it, and as the engine knows it."""

from collections.abc import Sequence
from typing import Any

from blobferry.contract import UploadState
from models import PartRow, UploadRow
from models.upload import Place
from worker.errors import ConfigurationError
from worker.transfer.checkpoint import SavedUpload, SentPart, VisibleVersion


def columns_of(upload: SavedUpload, place: Place) -> dict[str, Any]:
    """The columns of a new upload's row, apart from its job and storage."""
    return {
        "bucket": place.bucket,
        "endpoint": place.endpoint,
        "identity": place.identity,
        "key": upload.key,
        "size": upload.size,
        "part_size": upload.part_size,
        "head": upload.prefix,
        "head_parts": upload.prefix_parts,
        "state": upload.state,
        "base_etag": upload.base.etag,
        "base_mod_time": upload.base.mod_time,
    }


def refuse_other_bucket(row: UploadRow, place: Place) -> None:
    """Raise ConfigurationError if the upload is in another bucket than the storage names now."""
    if row.bucket != place.bucket:
        problem = f"this job's upload is in bucket {row.bucket!r}, but the storage now names {place.bucket!r}"
        raise ConfigurationError(f"storages.{row.storage}", problem)


def saved_upload(row: UploadRow, parts: Sequence[PartRow], etag: str | None) -> SavedUpload:
    """The upload of these rows; ``etag`` is that of the blob, once completed."""
    return SavedUpload(
        key=row.key,
        size=row.size or 0,
        part_size=row.part_size,
        base=VisibleVersion(row.base_etag or "", row.base_mod_time),
        opened_at=row.opened_at,
        state=UploadState(row.state),
        upload_id=row.upload_id,
        parts={
            part.part_number: SentPart(part.part_number, part.offset, part.size, part.etag, part.checksum)
            for part in parts
        },
        etag=etag,
        prefix=row.head,
        prefix_parts=row.head_parts,
    )
