"""The part plan: every byte is in exactly one part, and what cannot be planned fails before the first byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import PlanError
from worker.stores.values import Limits
from worker.transfer.plan import PartPlan, PartRange, plan_parts
from worker.units import GIB, MIB, TIB

LIMITS = Limits()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, []),
        (1, [(1, 0, 1)]),
        (9, [(1, 0, 9)]),
        (10, [(1, 0, 10)]),
        (11, [(1, 0, 10), (2, 10, 1)]),
        (25, [(1, 0, 10), (2, 10, 10), (3, 20, 5)]),
    ],
)
def test_a_plan_cuts_at_every_part_size(size: int, expected: list[tuple[int, int, int]]) -> None:
    plan = PartPlan(size, 10)
    assert list(plan) == [PartRange(*part) for part in expected]
    assert plan.count == len(expected)


@given(size=st.integers(0, 60 * TIB), part_size=st.integers(1, 6 * GIB))
def test_a_plan_is_within_the_limits_and_holds_every_byte_or_is_refused(size: int, part_size: int) -> None:
    if size > LIMITS.max_parts * LIMITS.max_part_size:
        with pytest.raises(PlanError, match=str(size)):
            plan_parts(size, part_size=part_size, limits=LIMITS)
        return
    plan = plan_parts(size, part_size=part_size, limits=LIMITS)
    assert plan.count <= LIMITS.max_parts
    assert LIMITS.min_part_size <= plan.part_size <= LIMITS.max_part_size
    if plan.count:
        first, last = plan.part(1), plan.part(plan.count)
        assert first.offset == 0
        assert 0 < last.size <= plan.part_size
        assert last.offset + last.size == size
        middle = plan.part((plan.count + 1) // 2)
        assert middle.offset == (middle.number - 1) * plan.part_size


@pytest.mark.parametrize(
    ("size", "part_size"),
    [
        (10_000 * 16 * MIB, 16 * MIB),  # just fits
        (10_000 * 16 * MIB + 1, 17 * MIB),  # one byte too many: the next whole MiB
        (10_000 * 5 * GIB, 5 * GIB),  # 48.8 TiB, the most that S3 takes
    ],
)
def test_the_part_size_grows_so_that_10_000_parts_suffice(size: int, part_size: int) -> None:
    plan = plan_parts(size, part_size=16 * MIB, limits=LIMITS)
    assert plan.part_size == part_size
    assert plan.count <= 10_000


def test_more_than_48_8_tib_cannot_be_planned() -> None:
    with pytest.raises(PlanError):
        plan_parts(10_000 * 5 * GIB + 1, part_size=16 * MIB, limits=LIMITS)


@pytest.mark.parametrize(("wished", "given_"), [(1, 5 * MIB), (16 * MIB, 16 * MIB), (6 * GIB, 5 * GIB)])
def test_a_wished_part_size_is_kept_within_the_limits(wished: int, given_: int) -> None:
    assert plan_parts(1, part_size=wished, limits=LIMITS).part_size == given_


@pytest.mark.parametrize("number", [-1, 0, 4])
def test_a_part_that_is_not_in_the_plan_is_an_index_error(number: int) -> None:
    with pytest.raises(IndexError):
        PartPlan(25, 10).part(number)
