"""The part plan: every byte is in exactly one part, and what cannot be planned fails before the first byte."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import PlanError
from worker.stores.blob_values import Limits
from worker.transfer.plan import Ladder, PartPlan, PartRange, plan_parts, plan_prefix
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
    assert (list(plan), plan.count) == ([PartRange(*part) for part in expected], len(expected))


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
        last = plan.part(plan.count)
        assert 0 < last.size <= plan.part_size
        assert (plan.part(1).offset, last.offset + last.size) == (0, size)
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


@given(
    size=st.integers(0, 50 * TIB),
    head=st.integers(0, 50 * TIB),
    part_size=st.integers(1, 6 * GIB),
    copy_size=st.integers(5 * MIB, 5 * GIB),
)
def test_a_plan_with_a_head_copies_what_of_it_fills_parts_and_sends_the_rest(
    size: int, head: int, part_size: int, copy_size: int
) -> None:
    size, head = max(size, head), min(size, head)
    try:
        plan = plan_parts(size, part_size=part_size, limits=LIMITS, prefix=head, copy_size=copy_size)
    except PlanError:
        assert size > LIMITS.max_parts * LIMITS.max_part_size
        return
    assert plan.count <= LIMITS.max_parts
    edges = [1, plan.prefix_parts, plan.prefix_parts + 1, plan.count]
    for number in {number for number in edges if 1 <= number <= plan.count}:
        part, is_last = plan.part(number), number == plan.count
        assert 0 < part.size <= LIMITS.max_part_size
        assert is_last or part.size == plan.part_size >= LIMITS.min_part_size
        assert (part.offset + part.size == size) == is_last
        assert (part.offset + part.size <= head) == (number <= plan.prefix_parts)
    if plan.prefix_parts > 0:
        last = plan.part(plan.prefix_parts)
        assert last.offset + last.size == plan.prefix
    assert head - plan.prefix < plan.part_size


def test_a_whole_copy_is_of_parts_of_the_size_that_copies_have() -> None:
    plan = plan_parts(100 * MIB, part_size=16 * MIB, limits=LIMITS, prefix=100 * MIB, copy_size=32 * MIB)
    assert [part.size // MIB for part in plan.copied()] == [32, 32, 32, 4]
    assert list(plan.sent()) == []


def test_the_end_of_a_head_that_fills_no_part_is_sent_with_what_follows() -> None:
    plan = plan_parts(100 * MIB + 1, part_size=16 * MIB, limits=LIMITS, prefix=100 * MIB, copy_size=32 * MIB)
    assert {part.size for part in plan.copied()} == {16 * MIB}
    assert (plan.prefix_parts, plan.prefix) == (6, 96 * MIB)
    assert [(part.number, part.size) for part in plan.sent()] == [(7, 4 * MIB + 1)]


def test_parts_grow_with_a_head_as_well_where_part_numbers_are_scarce() -> None:
    head, sent = 100 * GIB, 9_990 * 5 * GIB - 95 * GIB
    plan = plan_parts(head + sent, part_size=16 * MIB, limits=LIMITS, prefix=head, copy_size=32 * MIB)
    assert plan.count <= 10_000
    assert (plan.part_size, plan.prefix_parts) == (5_116 * MIB, 20)


@pytest.mark.parametrize(
    ("prefix", "part_size", "count"),
    [
        (15 * MIB, 16 * MIB, 0),
        (100 * MIB, 16 * MIB, 6),
        (5_000 * 16 * MIB, 16 * MIB, 5_000),
        (100 * GIB, 21 * MIB, 4_876),
    ],
)
def test_a_prefix_that_a_stream_follows_takes_at_most_half_of_the_part_numbers(
    prefix: int, part_size: int, count: int
) -> None:
    plan = plan_prefix(prefix, part_size=16 * MIB, limits=LIMITS)
    assert (plan.part_size, plan.count, plan.prefix_parts) == (part_size, count, count)
    assert prefix - plan.size < part_size


def test_the_ladder_holds_12_tib_with_no_tuning() -> None:
    parts = list(Ladder(16 * MIB, LIMITS).parts(0))
    assert [parts[index].size // MIB for index in (0, 999, 1000, 1999, 7999, 8000, 8999, 9999)] == [
        16, 16, 32, 32, 2048, 4096, 4096, 5120,
    ]  # fmt: skip
    assert parts[-1].number == 10_000
    assert parts[-1].offset + parts[-1].size > 12 * TIB
    assert all(after.offset == before.offset + before.size for before, after in pairwise(parts))


def test_the_ladder_goes_on_after_the_copied_parts() -> None:
    parts = list(Ladder(16 * MIB, LIMITS, prefix_parts=9_990).parts(7 * GIB))
    assert (parts[0].number, parts[0].offset, len(parts), parts[-1].number) == (9_991, 7 * GIB, 10, 10_000)
