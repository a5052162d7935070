"""The part plan: which bytes are which part. Pure arithmetic; fixed before the first byte is sent.

Because a part's number says its range, a gap in what the store holds is just a missing part.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from worker.errors import PlanError
from worker.stores.blob_values import Limits
from worker.units import MIB


@dataclass(frozen=True, slots=True)
class PartRange:
    """Part ``number`` is bytes ``[offset, offset + size)`` of the blob."""

    number: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class PartPlan:
    """``size`` bytes in parts of ``part_size``; the store copies the first ``prefix_parts`` itself.

    All parts but the last have one size, because some stores take no others (Cloudflare R2).
    """

    size: int
    part_size: int
    prefix_parts: int = 0

    @property
    def prefix(self) -> int:
        """The number of bytes that the store copies itself."""
        return min(self.prefix_parts * self.part_size, self.size)

    @property
    def count(self) -> int:
        """The number of parts."""
        return _ceil(self.size, self.part_size)

    def part(self, number: int) -> PartRange:
        """Return the range of a part. Raises IndexError for a number outside of ``1..count``."""
        if not 1 <= number <= self.count:
            raise IndexError(f"part {number} of {self.count}")
        offset = (number - 1) * self.part_size
        return PartRange(number, offset, min(self.part_size, self.size - offset))

    def __iter__(self) -> Iterator[PartRange]:
        return map(self.part, range(1, self.count + 1))

    def copied(self) -> Iterator[PartRange]:
        """The parts that the store copies."""
        return map(self.part, range(1, self.prefix_parts + 1))

    def sent(self) -> Iterator[PartRange]:
        """The parts that are sent."""
        return map(self.part, range(self.prefix_parts + 1, self.count + 1))


def plan_parts(size: int, *, part_size: int, limits: Limits, prefix: int = 0, copy_size: int = 32 * MIB) -> PartPlan:
    """Plan the parts of ``size`` bytes. Raises PlanError if no part sizes within the limits fit.

    The end of a prefix that fills no part is read and sent with the bytes behind it.

    Args:
        size: of the blob in bytes.
        part_size: wanted size of the parts in bytes; larger if needed to stay within ``limits.max_parts``.
        limits: those of the store.
        prefix: bytes at the beginning that the store may copy itself; 0, or all of the blob, or less.
        copy_size: wanted size of the parts in bytes if the store copies all of them.
    """
    is_copy = 0 < prefix == size
    wanted = copy_size if is_copy else part_size
    if limits.min_part_size <= prefix <= part_size and prefix < size <= 2 * prefix:
        wanted = prefix  # one part that is copied, and one that is sent and not larger
    part_size = _fitting(size, wanted, limits, limits.max_parts)
    return PartPlan(size, part_size, _ceil(size, part_size) if is_copy else prefix // part_size)


def plan_prefix(prefix: int, *, part_size: int, limits: Limits, known: int = 0) -> PartPlan:
    """Plan the parts of a prefix that a stream of unknown length follows.

    What fills no part is not in the plan; the stream begins with it. Raises PlanError if not even the known bytes fit.

    Args:
        prefix: bytes that the store copies.
        part_size: wanted size of the parts in bytes; larger if needed.
        limits: those of the store.
        known: the least number of bytes that the blob will have. They get half of all part numbers, where the largest
            parts allow that, and the rest is left to what is not known.
    """
    known = max(known, prefix)
    half = max(limits.max_parts // 2, 1)
    most = half if known <= half * limits.max_part_size else limits.max_parts
    if limits.min_part_size <= prefix <= part_size and not limits.equal_parts and known <= most * prefix:
        part_size = prefix
    part_size = _fitting(known, part_size, limits, most)
    count = prefix // part_size
    return PartPlan(count * part_size, part_size, count)


def _fitting(size: int, part_size: int, limits: Limits, most: int) -> int:
    """The part size for ``size`` bytes in at most so many parts."""
    part_size = min(max(part_size, limits.min_part_size), limits.max_part_size)
    if size > most * part_size:
        part_size = min(_ceil(_ceil(size, most), MIB) * MIB, limits.max_part_size)
    if size > most * part_size:
        bound = most * limits.max_part_size
        raise PlanError(f"{size} bytes are more than the {bound} that fit into {most} parts")
    return part_size


@dataclass(frozen=True, slots=True)
class Ladder:
    """Part sizes for a stream of unknown length: doubled after each tenth of all part numbers.

    From 16 MiB that is 12 TiB in 10,000 parts, with no tuning. Where all parts must have one size, none is doubled.
    """

    part_size: int
    limits: Limits
    prefix_parts: int = 0  #: part numbers used before the first one here

    def parts(self, offset: int) -> Iterator[PartRange]:
        """Yield the parts from ``offset`` on, up to the last possible part number."""
        first = min(max(self.part_size, self.limits.min_part_size), self.limits.max_part_size)
        rung = self.limits.max_parts if self.limits.equal_parts else max(self.limits.max_parts // 10, 1)
        for index in range(self.limits.max_parts - self.prefix_parts):
            size = min(first << (index // rung), self.limits.max_part_size)
            yield PartRange(self.prefix_parts + index + 1, offset, size)
            offset += size


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
