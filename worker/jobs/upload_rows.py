"""An upload as the engine knows it, from its rows."""

from collections.abc import Sequence

from blobferry.contract import UploadState
from models import PartRow, UploadRow
from worker.transfer.checkpoint import SavedUpload, SentPart, VisibleVersion


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
