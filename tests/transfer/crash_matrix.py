"""The crash matrix: a process dies at every call of its store, checkpoint or directory, before or after its effect.

A later process on the same checkpoint must bring the same bytes, and readers see the old ones or the new ones.
"""

from collections.abc import Callable
from typing import Protocol

import pytest

from tests.doubles import Fuse, When

MOST_CALLS = 200


class CrashWorld(Protocol):
    """What outlives a process."""

    def live(self, fuse: Fuse) -> bool:
        """One process; True if it got to the end."""
        ...

    def assert_all_is_well(self, deaths: int) -> None: ...


def die_at_any_call(make: Callable[[], CrashWorld], when: When, *, at_least: int) -> None:
    """One death, at each call in turn; an undisturbed process makes at least so many."""
    for fail_at in range(1, MOST_CALLS):
        world, fuse = make(), Fuse(fail_at, when)
        finished = world.live(fuse)
        assert finished != fuse.blown, fuse.calls
        if not finished:
            assert world.live(Fuse()), fuse.calls
        world.assert_all_is_well(deaths=not finished)
        if finished:
            assert fail_at > at_least
            return
    pytest.fail("it never ends")


def die_at_any_two_calls(make: Callable[[], CrashWorld], first_when: Callable[[int], When], *, at_least: int) -> None:
    """Two deaths in a row, at each pair of calls; there are at least so many pairs."""
    pairs = 0
    for first in range(1, MOST_CALLS):
        for second in range(1, MOST_CALLS):
            world = make()
            if world.live(Fuse(first, first_when(second))):
                assert pairs > at_least
                return
            # The two die at different sides of a call, so that all four mixtures occur.
            alive = world.live(Fuse(second, "after" if (first + second) % 2 else "before"))
            if not alive:
                assert world.live(Fuse())
                pairs += 1
            world.assert_all_is_well(deaths=2)
            if alive:
                break
    pytest.fail("it never ends")


def die_again_and_again(world: CrashWorld) -> None:
    """Each life gets a few calls further than the one before it; the job ends all the same."""
    for calls in range(1, MOST_CALLS):
        if world.live(Fuse(calls, "after")):
            world.assert_all_is_well(deaths=calls)
            return
    pytest.fail("it never ends")
