"""The guarantees that Blobferry wants from a store, and what follows if one is missing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from worker.doctor import probes
from worker.doctor.bench import Bench
from worker.doctor.findings import Finding
from worker.doctor.probes import Probe
from worker.errors import BlobferryError, NotSupportedError
from worker.stores.store import Store


@dataclass(frozen=True, slots=True)
class Guarantee:
    """A guarantee, its probe, and the consequence if it is missing; "" if nothing works without it."""

    what: str
    probe: Probe
    without: str = ""


def examine_store(store: Store, prefix: str, where: str) -> Iterator[Finding]:
    """Probe every guarantee at new keys below ``prefix``. Blobs and uploads are removed even if a probe fails."""
    bench = Bench(store, prefix)
    try:
        for guarantee in GUARANTEES:
            finding = _probed(guarantee, bench, where)
            yield finding
            if finding.state == "broken" and not guarantee.without:
                break
    finally:
        left = bench.clean()
    if left is not None:
        yield Finding(
            where,
            "probes removed",
            "broken",
            f"not everything below {prefix!r} could be removed, remove it by hand: {left}",
        )


def _probed(guarantee: Guarantee, bench: Bench, where: str) -> Finding:
    try:
        instead = guarantee.probe(bench)
    except NotSupportedError:
        instead = "the store does not support it"
    except BlobferryError as error:
        return Finding(where, guarantee.what, "broken", str(error))
    if instead is None:
        return Finding(where, guarantee.what, "ok")
    if not guarantee.without:
        return Finding(where, guarantee.what, "broken", instead)
    return Finding(where, guarantee.what, "missing", f"{instead}, so {guarantee.without}")


_NARROWED: Final = "; a HEAD right before narrows the window"
_TWO_WRITERS: Final = "with overwrite=False, two {} at once may both succeed" + _NARROWED
_LOST_UPDATE: Final = (
    "{} may replace a blob that another writer makes at the same moment, or while our worker is suspended" + _NARROWED
)

GUARANTEES: Final = (
    Guarantee("reachable", probes.reach),
    Guarantee("writable", probes.write),
    Guarantee("uploads in parts", probes.write_parts, "blobs that are larger than a part cannot be written"),
    Guarantee(
        "read of a range", probes.read_range, "reads cannot begin at an offset, nor continue after a dropped connection"
    ),
    Guarantee("copy of a range", probes.copy_range, "moves of large blobs, and writes at large offsets, fail"),
    Guarantee("If-None-Match on put", probes.if_none_match(probes.put), _TWO_WRITERS.format("writers of a small blob")),
    Guarantee(
        "If-None-Match on complete",
        probes.if_none_match(probes.complete),
        _TWO_WRITERS.format("writers of a large blob"),
    ),
    Guarantee("If-None-Match on copy", probes.if_none_match(probes.copy), _TWO_WRITERS.format("moves of a small blob")),
    Guarantee("If-Match on put", probes.if_match(probes.put), _LOST_UPDATE.format("the write of a small blob")),
    Guarantee(
        "If-Match on complete", probes.if_match(probes.complete), _LOST_UPDATE.format("the write of a large blob")
    ),
    Guarantee("If-Match on copy", probes.if_match(probes.copy), _LOST_UPDATE.format("the move of a small blob")),
    Guarantee(
        "If-Match on delete",
        probes.delete_if_match,
        "a move may delete a blob that is written to its source after the copy" + _NARROWED,
    ),
    Guarantee(
        "If-Match on get",
        probes.get_if_match,
        "a blob that is replaced while it is read is noticed only by the ETag of a later answer",
    ),
    Guarantee(
        "If-Match on the source of a copy",
        probes.source_if_match,
        "a small blob that is replaced during a move may be copied in its newer version: the move fails, both stay",
    ),
    Guarantee(
        "If-Match on the source of a copied range",
        probes.source_range_if_match,
        "a large blob that is replaced while it is copied is noticed only by the HEAD before completion",
    ),
    Guarantee(
        "checksum of the whole compared",
        probes.compare_whole,
        "parts that the store mixes up or damages are not noticed when the upload is completed",
    ),
    Guarantee(
        "checksum of the whole shown",
        probes.show_whole,
        "a job recognizes its blob by the ETag, or by the mark in its metadata, not by its bytes",
    ),
    Guarantee(
        "checksum of a part compared", probes.compare_part, "bytes that are damaged on the way are stored damaged"
    ),
    Guarantee(
        "metadata kept",
        probes.keep_metadata,
        "a job that lost the answer to its last call may not recognize its own blob",
    ),
    Guarantee(
        "unfinished uploads listed",
        probes.list_uploads,
        "an upload that a worker opened right before it died is not found: add a lifecycle rule that aborts it",
    ),
    Guarantee(
        "clocks agree",
        probes.agree_on_the_time,
        "URLs expire earlier or later by that much, and from 15 minutes on S3 refuses every request",
    ),
)
