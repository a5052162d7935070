"""The part plan: which bytes are which part. Pure arithmetic; fixed before the first byte is sent.

Because a part's number says its range, a gap in what the store holds is just a missing part.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from worker.errors import PlanError
from worker.stores.values import Limits
from worker.units import MIB


@dataclass(frozen=True, slots=True)
class PartRange:
    """Part ``number`` is bytes ``[offset, offset + size)`` of the blob."""

    number: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class PartPlan:
    """``size`` bytes in parts of ``part_size``; the last one may be smaller."""

    size: int
    part_size: int

    @property
    def count(self) -> int:
        """How many parts there are."""
        return -(-self.size // self.part_size)

    def part(self, number: int) -> PartRange:
        """The range of a part. Raises IndexError for a number outside of ``1..count``."""
        if not 1 <= number <= self.count:
            raise IndexError(f"part {number} of {self.count}")
        offset = (number - 1) * self.part_size
        return PartRange(number, offset, min(self.part_size, self.size - offset))

    def __iter__(self) -> Iterator[PartRange]:
        return (self.part(number) for number in range(1, self.count + 1))


def plan_parts(size: int, *, part_size: int, limits: Limits) -> PartPlan:
    """A plan for ``size`` bytes with the wished part size, or the next larger whole MiB that makes it fit.

    Raises PlanError if no part size within the limits does, before anything is sent.
    """
    part_size = min(max(part_size, limits.min_part_size), limits.max_part_size)
    needed = -(-size // limits.max_parts)
    if needed > part_size:
        part_size = -(-needed // MIB) * MIB
    if part_size > limits.max_part_size:
        most = limits.max_parts * limits.max_part_size
        raise PlanError(f"{size} bytes are more than the {most} that fit into {limits.max_parts} parts")
    return PartPlan(size, part_size)
