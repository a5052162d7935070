"""Server-side copy: the store copies the bytes; they never pass through the worker."""

import re
from dataclasses import dataclass
from typing import Final

from worker.stores.blob_values import BlobHead
from worker.stores.capabilities import Capability
from worker.transfer.probe import holds
from worker.transfer.upload.target import Target
from worker.units import MIB

_MD5: Final = re.compile(r'"?[0-9a-f]{32}"?')


@dataclass(frozen=True, slots=True)
class Copying:
    """Sizes and parallelism of copies. Source of the defaults: the distribution registry's S3 driver."""

    threshold: int = 32 * MIB  #: bytes; a larger blob is copied in parts
    part_size: int = 32 * MIB  #: bytes, approximately
    threads: int = 100  #: copies at once; they cost the store's time, not this machine's

    def is_one_call(self, prefix: "CopiedPrefix", target: Target) -> bool:
        """True if the prefix is a small whole blob whose copy can be recognised afterwards.

        May probe the store, once in its life: a copy that loses its metadata must not be made. Not with
        ``overwrite=False``: fewer stores honour that condition for a copy than for a completion.
        """
        is_known = bool(target.checkpoint.mark or prefix.checksum or prefix.has_md5)
        most = min(self.threshold, target.store.limits.max_part_size)
        is_small = prefix.is_whole and target.overwrite and is_known and 0 < prefix.size <= most
        return is_small and holds(target.store, Capability.COPY_OPTIONS)


@dataclass(frozen=True, slots=True)
class CopiedPrefix:
    """The first ``size`` bytes of one version of a blob in the same bucket, which the store can copy itself."""

    key: str
    etag: str
    size: int
    is_whole: bool = False  #: the new blob is a copy of the whole blob
    checksum: str | None = None  #: that of the whole blob, if the store shows one
    has_md5: bool = False  #: the ETag is the MD5 of the bytes, so that a copy has the same

    @classmethod
    def of(cls, blob: BlobHead, size: int | None = None) -> "CopiedPrefix":
        """Take all of a blob, or its first ``size`` bytes."""
        if size is None:
            has_md5 = bool(_MD5.fullmatch(blob.etag)) and not (blob.encryption or "").startswith("aws:kms")
            return cls(blob.key, blob.etag, blob.size, is_whole=True, checksum=blob.checksum, has_md5=has_md5)
        return cls(blob.key, blob.etag, min(size, blob.size))
