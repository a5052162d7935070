"""Settling: what became of a publishing call of an earlier run, found out by looking. Needs no source."""

from worker.errors import ConfigurationError
from worker.stores.checksums import join_checksums, multipart_etag
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, SavedUpload
from worker.transfer.publishing import was_published
from worker.transfer.visible import Expected


def settle(store: Store, key: str, upload: SavedUpload, checkpoint: Checkpoint) -> bool:
    """True if readers see the upload's blob; the checkpoint then says ``completed``. Raises SupersededError."""
    receipt = was_published(store, key, base=upload.base, expected=expected_blob(upload, checkpoint.mark))
    if receipt:
        checkpoint.completed(receipt.etag, receipt.version_id)
    return receipt is not None


def refuse_other_key(upload: SavedUpload, key: str) -> None:
    """Raise ConfigurationError if the path now has another key: what is there says nothing about the upload."""
    if upload.key != key:
        problem = f"this job's upload is at key {upload.key!r}, its path is now at {key!r}"
        raise ConfigurationError("rootdirectory", problem)


def expected_blob(upload: SavedUpload, mark: str, *etags: str | None) -> Expected:
    """The blob that the upload means to make visible; ``etags`` are those that it is known to get."""
    parts = [part for _, part in sorted(upload.parts.items())]
    checksum = join_checksums((part.checksum, part.size) for part in parts)
    known = (*etags, multipart_etag(part.etag for part in parts))
    return Expected(upload.size, mark, checksum, frozenset(etag.strip('"') for etag in known if etag))
