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
    """``size`` bytes: ``prefix`` bytes that the store copies itself, then bytes sent in parts of ``part_size``.

    The prefix is divided evenly, so that none of its parts is too small. Only the very last part may be smaller.
    """

    size: int
    part_size: int
    prefix: int = 0
    prefix_parts: int = 0

    @property
    def count(self) -> int:
        """The number of parts."""
        return self.prefix_parts + _ceil(self.size - self.prefix, self.part_size)

    def part(self, number: int) -> PartRange:
        """Return the range of a part. Raises IndexError for a number outside of ``1..count``."""
        if not 1 <= number <= self.count:
            raise IndexError(f"part {number} of {self.count}")
        if number <= self.prefix_parts:
            offset = (number - 1) * self.prefix // self.prefix_parts
            return PartRange(number, offset, number * self.prefix // self.prefix_parts - offset)
        offset = self.prefix + (number - self.prefix_parts - 1) * self.part_size
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

    Args:
        size: of the blob in bytes.
        part_size: wanted size of sent parts in bytes; larger if needed to stay within ``limits.max_parts``.
        limits: those of the store.
        prefix: bytes at the beginning that the store copies itself.
        copy_size: approximate size of copied parts in bytes.
    """
    part_size = min(max(part_size, limits.min_part_size), limits.max_part_size)
    sent = size - prefix
    prefix_parts = 0
    if prefix:  # where part numbers are scarce, copies get the fewest: they send no bytes
        spare = limits.max_parts - _ceil(sent, part_size)
        prefix_parts = max(_ceil(prefix, limits.max_part_size), min(prefix // copy_size, spare), 1)
    left = max(limits.max_parts - prefix_parts, 0)
    if left and sent > left * part_size:
        part_size = min(_ceil(_ceil(sent, left), MIB) * MIB, limits.max_part_size)
    if sent > left * part_size or prefix_parts > limits.max_parts:
        most = limits.max_parts * limits.max_part_size
        raise PlanError(f"{size} bytes are more than the {most} that fit into {limits.max_parts} parts")
    return PartPlan(size, part_size, prefix, prefix_parts)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Part sizes for a stream of unknown length: doubled after each tenth of all part numbers.

    From 16 MiB that is 12 TiB in 10,000 parts, with no tuning.
    """

    part_size: int
    limits: Limits
    prefix_parts: int = 0  #: part numbers used before the first one here

    def parts(self, offset: int) -> Iterator[PartRange]:
        """Yield the parts from ``offset`` on, up to the last possible part number."""
        first = min(max(self.part_size, self.limits.min_part_size), self.limits.max_part_size)
        rung = max(self.limits.max_parts // 10, 1)
        for index in range(self.limits.max_parts - self.prefix_parts):
            size = min(first << (index // rung), self.limits.max_part_size)
            yield PartRange(self.prefix_parts + index + 1, offset, size)
            offset += size


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
