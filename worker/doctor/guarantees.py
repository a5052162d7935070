"""What a store guarantees, found out by really trying, and what is not guaranteed without."""

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
    """What is tried, and what does not hold without it: one plain sentence. "": nothing does."""

    what: str
    probe: Probe
    without: str = ""


def examine_store(store: Store, prefix: str, where: str) -> Iterator[Finding]:
    """Try everything on new keys below ``prefix``; whatever happens, they and their uploads are removed again."""
    bench = Bench(store, prefix)
    try:
        for guarantee in GUARANTEES:
            finding = _tried(guarantee, bench, where)
            yield finding
            if finding.state == "broken" and not guarantee.without:
                break
    finally:
        left = bench.clean()
    if left is not None:
        yield Finding(where, "probes removed", "broken", f"remove by hand what is left below {prefix!r}: {left}")


def _tried(guarantee: Guarantee, bench: Bench, where: str) -> Finding:
    try:
        instead = guarantee.probe(bench)
    except NotSupportedError:
        instead = "the store does not know it"
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
    "{} may replace what somebody else writes at the same moment, or while its worker is suspended right before it"
    + _NARROWED
)

GUARANTEES: Final = (
    Guarantee("reachable", probes.reach),
    Guarantee("writable", probes.write),
    Guarantee("uploads in parts", probes.write_parts, "blobs that are larger than a part cannot be written"),
    Guarantee(
        "read of a range", probes.read_range, "reads cannot begin at an offset, nor go on after a dropped connection"
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
        "a move may delete what somebody writes to its source after it was copied" + _NARROWED,
    ),
    Guarantee(
        "If-Match on get",
        probes.get_if_match,
        "a blob that is replaced while it is read is noticed only by the ETag of a later answer",
    ),
    Guarantee(
        "If-Match on the source of a copy",
        probes.source_if_match,
        "a small blob that is replaced while it is moved may arrive as its newer version: the move fails, both stay",
    ),
    Guarantee(
        "If-Match on the source of a copied range",
        probes.source_range_if_match,
        "a large blob that is replaced while it is copied is noticed only by the HEAD before completion",
    ),
    Guarantee(
        "checksum of the whole compared",
        probes.compare_whole,
        "parts that the store mixes up or damages are not noticed when the blob is published",
    ),
    Guarantee(
        "checksum of the whole shown",
        probes.show_whole,
        "what is visible is recognized by its ETag, or by the mark in its metadata, and not by its bytes",
    ),
    Guarantee("checksum of a part compared", probes.compare_part, "bytes that are damaged on their way are stored so"),
    Guarantee(
        "metadata kept",
        probes.keep_metadata,
        "a job that lost the answer to its last call may not recognize its own blob",
    ),
    Guarantee(
        "unfinished uploads listed",
        probes.list_uploads,
        "one that a worker opened right before it died is not found: have a lifecycle rule abort it",
    ),
    Guarantee(
        "clocks agree",
        probes.agree_on_the_time,
        "URLs live longer or shorter by that, and from 15 minutes on S3 refuses every request",
    ),
)
