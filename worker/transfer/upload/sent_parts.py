"""Compares parts that were sent with their source, where its fingerprint no longer proves that they are its bytes."""

import logging
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from worker.errors import SourceChangedError
from worker.stores.checksums import checksum_of, md5_etag_of
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import SavedUpload, SentPart
from worker.transfer.parts import PartThreads, run_all
from worker.transfer.plan import PartPlan, PartRange
from worker.transfer.sources.source import Source
from worker.transfer.stop import Stop
from worker.transfer.upload.target import Target

logger = logging.getLogger(__name__)

MAX_COMPARISONS: Final = 3  #: of one run with a source whose fingerprint changes each time
_MD5: Final = re.compile('"?[0-9a-fA-F]{32}"?')


def pin(target: Target, source: Source, threads: PartThreads) -> None:
    """Save the source's fingerprint; where it leaves a doubt, only after the sent parts were found to be its bytes.

    Until then nothing is saved, so that a run that dies meanwhile leaves the doubt to the next one. Raises
    SourceChangedError, Interrupted.
    """
    checkpoint = target.checkpoint
    for _ in range(MAX_COMPARISONS):
        fingerprint = source.fingerprint
        if checkpoint.pin_source(source.size, fingerprint):
            return
        upload = checkpoint.load()
        if upload is not None and upload.part_size is not None:
            logger.info("comparing sent parts with the source", extra={"key": target.key, "parts": len(upload.parts)})
            checkpoint.drop(_not_comparable(upload, source, threads, target.stop))
        source.check()
        if source.fingerprint == fingerprint:
            checkpoint.pin_source(source.size, fingerprint, is_compared=True)
            return
    raise touched_again(source)


def touched_again(source: Source) -> SourceChangedError:
    """The error for a source that does not stay the same for as long as a comparison takes."""
    return SourceChangedError(f"{source.url}: changed each time that its bytes were compared with those that were sent")


def _not_comparable(upload: SavedUpload, source: Source, threads: PartThreads, stop: Stop) -> Collection[int]:
    """Compare each sent part; return the numbers of those that nothing can be compared by, to be sent again.

    Raises SourceChangedError if a part differs.
    """
    assert upload.part_size is not None, "a put has no parts"
    plan = PartPlan(upload.size, upload.part_size, upload.prefix_parts)

    def compare(part: PartRange, buffer: memoryview) -> SentPart:
        row, body = upload.parts[part.number], PartBody(source, part, buffer)
        if row.checksum is None:
            is_equal = bool(_MD5.fullmatch(row.etag)) and md5_etag_of(body) == row.etag.strip('"').lower()
            return row if is_equal else replace(row, etag="")
        if checksum_of(body, row.checksum.partition(":")[0]) != row.checksum:
            raise _other_bytes(source, part)
        return row

    sent = [part for part in plan.sent() if part.number in upload.parts]
    found = run_all(
        threads.executor, threads.count, sent, lambda part: threads.task(compare, part), lambda parts: None, stop
    )
    unequal = [part.part_number for part in found if not part.etag]
    if unequal and len(unequal) < len(found):  # the ETags of this store are MD5s: one that differs proves other bytes
        raise _other_bytes(source, plan.part(min(unequal)))
    return unequal


def _other_bytes(source: Source, part: PartRange) -> SourceChangedError:
    end = part.offset + part.size
    return SourceChangedError(f"{source.url}: bytes {part.offset} to {end} of the blob are not those that were sent")
