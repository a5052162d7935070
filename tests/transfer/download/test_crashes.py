"""The crash matrix of downloads: death at every call of store, checkpoint and directory, before or after its effect.

Whatever the moment, a later run brings the same bytes, readers see the old file or the new one and nothing else, no
partial file is left, and no part that has a row is fetched again.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.doubles import DeathError, Fuse, When
from tests.transfer.download.downloads import DATA, OLD, PART, World
from worker.transfer.download.file_target import FileTarget
from worker.transfer.parts import PartThreads

MOST_CALLS = 200


@dataclass(frozen=True)
class Scene:
    """What is downloaded, over what, by how many threads."""

    data: bytes
    old: bytes | None
    threads: int = 1
    offset: int = 0
    overwrite: bool = True

    def world(self, root: Path) -> World:
        return World(root, self.data, self.old, offset=self.offset)

    def live(self, world: World, fuse: Fuse) -> bool:
        """One process; True if it got to the end."""
        upload = world.checkpoint.upload
        rows = {part.offset for part in upload.parts.values()} if upload else set()
        before = len(world.fetched())
        try:
            world.life(fuse, threads=self.threads, overwrite=self.overwrite)
        except DeathError:
            return False
        finally:
            assert not rows & set(world.fetched()[before:]), fuse.calls
        return True


SCENES = {
    "a new file": Scene(DATA, None),
    "an empty blob": Scene(b"", OLD),
    "from an offset": Scene(DATA, OLD, offset=13),
    "two parts over an old file": Scene(DATA[:15], OLD),
    "two parts, never over an old file": Scene(DATA[:15], None, overwrite=False),
    "by three threads": Scene(bytes(range(75)), OLD, threads=3),
}


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Path]:
    """A new directory for each world."""
    return (tmp_path / str(number) for number in count())


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_call_loses_and_tears_nothing(scene: Scene, when: When, roots: Iterator[Path]) -> None:
    for fail_at in range(1, MOST_CALLS):
        world, fuse = scene.world(next(roots)), Fuse(fail_at, when)
        finished = scene.live(world, fuse)
        assert finished != fuse.blown, fuse.calls
        if not finished:
            assert scene.live(world, Fuse()), fuse.calls
        world.assert_all_is_well()
        if finished:
            assert fail_at > 15
            return
    pytest.fail("it never ends")


@pytest.mark.parametrize("name", ["two parts over an old file", "two parts, never over an old file"])
def test_two_deaths_in_a_row_at_any_two_calls_lose_and_tear_nothing(name: str, roots: Iterator[Path]) -> None:
    scene, pairs = SCENES[name], 0
    for first in range(1, MOST_CALLS):
        for second in range(1, MOST_CALLS):
            world = scene.world(next(roots))
            if scene.live(world, Fuse(first, "before" if second % 2 else "after")):
                assert pairs > 200
                return
            # The two die at different sides of a call, so that all four mixtures occur.
            alive = scene.live(world, Fuse(second, "after" if (first + second) % 2 else "before"))
            if not alive:
                assert scene.live(world, Fuse())
                pairs += 1
            world.assert_all_is_well()
            if alive:
                break
    pytest.fail("it never ends")


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_process_that_dies_at_every_other_call_still_gets_there(scene: Scene, tmp_path: Path) -> None:
    """Each life gets a few calls further than the one before it; the job ends all the same."""
    world = scene.world(tmp_path / "root")
    for calls in range(1, MOST_CALLS):
        if scene.live(world, Fuse(calls, "after")):
            world.assert_all_is_well()
            return
    pytest.fail("it never ends")


@pytest.mark.parametrize("name", ["two parts over an old file", "two parts, never over an old file", "an empty blob"])
def test_past_the_point_of_no_return_the_source_is_not_needed_any_more(name: str, roots: Iterator[Path]) -> None:
    """Whoever reads the new file may delete the blob, before anybody has recorded that it is there."""
    scene, settled = SCENES[name], 0
    for fail_at in range(1, MOST_CALLS):
        world = scene.world(next(roots))
        if scene.live(world, Fuse(fail_at, "after")):
            assert settled >= 3
            return
        upload = world.checkpoint.upload
        if upload and upload.state == "completing":
            threads = PartThreads(1, PART)
            with closing(world.destination()) as destination:
                checkpoint = world.fenced()
                target = FileTarget(
                    destination=destination,
                    checkpoint=checkpoint,
                    token=world.token,
                    threads=threads,
                    overwrite=scene.overwrite,
                )
                assert target.resolve_commit()
            threads.close()
            world.assert_all_is_well()
            settled += 1
    pytest.fail("it never ends")
