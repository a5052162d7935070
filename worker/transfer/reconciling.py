"""Reconciling: making the checkpointed parts agree with those that the store really holds."""

from collections.abc import Iterable

from worker.stores.checksums import checksum_of, md5_etag_of
from worker.stores.values import PartReceipt
from worker.transfer.body import PartBody
from worker.transfer.checkpoint import Checkpoint, SavedUpload, SentPart
from worker.transfer.plan import PartPlan, PartRange
from worker.transfer.sending import PartThreads
from worker.transfer.sources import Source


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
    """The parts that need not be sent, by number; the checkpoint then says the same.

    A row whose part the store lacks, or shows with another size or ETag, is dropped. A part without a row (its commit
    was still to come) is adopted if its checksum or ETag is that of the source's bytes there, re-read but not re-sent.
    A copied part without a row is copied again: that costs less than reading it.
    """
    held = {receipt.part_number: receipt for receipt in listed}
    wrong = [number for number, part in upload.parts.items() if not _same(part, held.get(number))]
    if wrong:
        checkpoint.drop(wrong)
    have = {number: part for number, part in upload.parts.items() if number not in wrong}
    for number, receipt in held.items():
        if number in have or not plan.head_parts < number <= plan.count or receipt.size != plan.part(number).size:
            continue

        def compare(part: PartRange, buffer: memoryview, receipt: PartReceipt = receipt) -> SentPart:
            body = PartBody(source, part, buffer)
            checksum = checksum_of(body, algorithm)
            is_ours = _holds(receipt, checksum, body)
            return SentPart(part.number, part.offset, part.size, receipt.etag if is_ours else "", checksum)

        adopted = threads.run(compare, plan.part(number))
        if adopted.etag:
            have[number] = adopted
            checkpoint.record([adopted], bytes_sent=0, progressed=False)
    return have


def _same(part: SentPart, receipt: PartReceipt | None) -> bool:
    return receipt is not None and (part.size, part.etag.strip('"')) == (receipt.size, receipt.etag.strip('"'))


def _holds(receipt: PartReceipt, checksum: str | None, body: PartBody) -> bool:
    if checksum and receipt.checksum and receipt.checksum.partition(":")[0] == checksum.partition(":")[0]:
        return receipt.checksum == checksum
    return receipt.etag.strip('"') == md5_etag_of(body)
