"""Makes the rows of parts agree with the parts that the store lists."""

from collections.abc import Iterable

from worker.stores.blob_values import PartReceipt
from worker.stores.checksums import checksum_of, md5_etag_of
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import Checkpoint, SavedUpload, SentPart
from worker.transfer.parts import PartThreads
from worker.transfer.plan import PartPlan, PartRange
from worker.transfer.sources.source import Source


def reconcile(
    upload: SavedUpload,
    plan: PartPlan,
    listed: Iterable[PartReceipt],
    *,
    source: Source,
    algorithm: str,
    threads: PartThreads,
    checkpoint: Checkpoint,
) -> dict[int, SentPart]:
    """Return the parts that need not be sent, by number; the checkpoint then has rows for just these.

    A row whose part the store lacks, or lists with another size or ETag, is dropped. A part without a row (the run died
    before its commit) is adopted if its checksum or ETag equals that of the source's bytes there, which are read but
    not sent again. A copied part without a row is copied again, which costs less than reading it.

    Args:
        upload: the saved upload.
        plan: the ranges of its parts.
        listed: the parts that the store lists.
        source: read again to compare it with parts without rows.
        algorithm: that of the parts' checksums: "crc64nvme", "crc32c", "md5" or "none".
        threads: lends a buffer.
        checkpoint: drops and records parts.
    """
    held = {receipt.part_number: receipt for receipt in listed}
    wrong = [number for number, part in upload.parts.items() if not _agree(part, held.get(number))]
    if wrong:
        checkpoint.drop(wrong)
    have = {number: part for number, part in upload.parts.items() if number not in wrong}
    for number, receipt in held.items():
        if number in have or not plan.prefix_parts < number <= plan.count or receipt.size != plan.part(number).size:
            continue

        def compare(part: PartRange, buffer: memoryview, receipt: PartReceipt = receipt) -> SentPart:
            body = PartBody(source, part, buffer)
            checksum = checksum_of(body, algorithm)
            is_ours = _has_bytes(receipt, checksum, body)
            return SentPart(part.number, part.offset, part.size, receipt.etag if is_ours else "", checksum)

        adopted = threads.run(compare, plan.part(number))
        if adopted.etag:
            have[number] = adopted
            checkpoint.record([adopted], bytes_sent=0, progressed=False)
    return have


def _agree(part: SentPart, receipt: PartReceipt | None) -> bool:
    return receipt is not None and (part.size, part.etag.strip('"')) == (receipt.size, receipt.etag.strip('"'))


def _has_bytes(receipt: PartReceipt, checksum: str | None, body: PartBody) -> bool:
    if checksum and receipt.checksum and receipt.checksum.partition(":")[0] == checksum.partition(":")[0]:
        return receipt.checksum == checksum
    return receipt.etag.strip('"') == md5_etag_of(body)
