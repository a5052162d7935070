"""The part plan: every byte is in exactly one part, and what cannot be planned fails before the first byte."""

from dataclasses import replace
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
def test_a_plan_with_a_head_has_parts_of_one_size(size: int, head: int, part_size: int, copy_size: int) -> None:
    size, head = max(size, head), min(size, head)
    try:
        plan = plan_parts(size, part_size=part_size, limits=LIMITS, prefix=head, copy_size=copy_size)
    except PlanError:
        assert size > LIMITS.max_parts * LIMITS.max_part_size
        return
    assert plan.count <= LIMITS.max_parts
    sizes = {plan.part(number).size for number in {1, 2, plan.count // 2, plan.count - 1} if 1 <= number < plan.count}
    assert sizes <= {plan.part_size}, "some stores take no parts of other sizes"
    assert LIMITS.min_part_size <= plan.part_size <= LIMITS.max_part_size
    if plan.count:
        last = plan.part(plan.count)
        assert (last.offset + last.size, last.size <= plan.part_size) == (size, True)
    assert head - plan.part_size < plan.prefix <= head
    assert plan.prefix == head or head < size


@pytest.mark.parametrize(
    ("head", "sent", "copied"),
    [
        (10 * MIB, 1, 10 * MIB),  # all of it, and one part more
        (10 * MIB, 10 * MIB, 10 * MIB),
        (10 * MIB, 10 * MIB + 1, 0),  # one part would be larger than the one before it
        (64 * MIB, 1, 64 * MIB),
        (65 * MIB, 1, 64 * MIB),  # the rest is read and sent
        (MIB, 1, 0),  # S3 copies no such part
    ],
)
def test_of_a_head_whole_parts_are_copied(head: int, sent: int, copied: int) -> None:
    plan = plan_parts(head + sent, part_size=16 * MIB, limits=LIMITS, prefix=head)
    assert plan.prefix == copied


def test_all_of_a_blob_is_copied_in_parts_of_the_wished_size() -> None:
    plan = plan_parts(100 * MIB, part_size=16 * MIB, limits=LIMITS, prefix=100 * MIB, copy_size=32 * MIB)
    assert [part.size // MIB for part in plan.copied()] == [32, 32, 32, 4]
    assert list(plan.sent()) == []


@pytest.mark.parametrize(
    ("prefix", "part_size", "count"),
    [(0, 16 * MIB, 0), (10 * MIB, 10 * MIB, 1), (40 * MIB, 16 * MIB, 2), (4 * TIB, 839 * MIB, 4_999)],
)
def test_a_stream_has_half_of_all_part_numbers_left(prefix: int, part_size: int, count: int) -> None:
    """4 TiB and a reader of unknown length fit: before the first byte is sent, the parts of the prefix are planned."""
    plan = plan_prefix(prefix, part_size=16 * MIB, limits=LIMITS)
    assert (plan.part_size, plan.prefix_parts, plan.size) == (part_size, count, part_size * count)
    assert prefix - plan.size < part_size


def test_where_all_parts_must_have_one_size_the_ladder_has_one_rung() -> None:
    limits = replace(LIMITS, equal_parts=True)
    assert {part.size for part in Ladder(16 * MIB, limits).parts(0)} == {16 * MIB}
    assert plan_prefix(10 * MIB, part_size=16 * MIB, limits=limits).prefix_parts == 0


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


@pytest.mark.parametrize("max_parts", [10_000, 1_000], ids=["s3", "scaleway"])
@pytest.mark.parametrize("equal_parts", [False, True], ids=["any sizes", "equal sizes"])
@pytest.mark.parametrize("kept", [0, 1, 5 * MIB, TIB, 4 * TIB - 1, 4 * TIB, 20 * TIB, 30 * TIB, 48 * TIB])
@pytest.mark.parametrize("gap", [0, 1, TIB, 20 * TIB])
def test_what_a_stream_follows_fits_or_fails_before_the_first_part(
    kept: int, gap: int, max_parts: int, equal_parts: bool
) -> None:
    """The bytes before those of the reader are known: all of them must have a part, with room for more."""
    limits = Limits(max_parts=max_parts, equal_parts=equal_parts)
    known = kept + gap + 1
    if known > max_parts * limits.max_part_size:
        with pytest.raises(PlanError):
            plan_prefix(kept, part_size=16 * MIB, limits=limits, known=known)
        return
    plan = plan_prefix(kept, part_size=16 * MIB, limits=limits, known=known)
    parts = list(Ladder(plan.part_size, limits, plan.prefix_parts).parts(plan.size))
    assert plan.prefix_parts + len(parts) == max_parts
    assert plan.size <= kept
    assert parts[-1].offset + parts[-1].size >= known
    assert max(part.size for part in parts) <= limits.max_part_size
