"""The crash matrix of downloads: death at every call of store, checkpoint and directory.

No partial file is left, and no part that has a row is fetched again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.doubles import DeathError, Fuse, When
from tests.transfer.bench import KEY
from tests.transfer.crash_matrix import MOST_CALLS, die_again_and_again, die_at_any_call, die_at_any_two_calls
from tests.transfer.download.downloads import DATA, OLD, World

pytestmark = pytest.mark.no_cover


@dataclass(frozen=True)
class Scene:
    """What is downloaded, over what, by how many threads."""

    data: bytes
    old: bytes | None
    threads: int = 1
    offset: int = 0
    overwrite: bool = True


class CrashingWorld(World):
    def __init__(self, scene: Scene, root: Path) -> None:
        super().__init__(root, scene.data, scene.old, offset=scene.offset)
        self.scene = scene

    def live(self, fuse: Fuse) -> bool:
        upload = self.checkpoint.upload
        rows = {part.offset for part in upload.parts.values()} if upload else set()
        before = len(self.fetched())
        try:
            self.life(fuse, threads=self.scene.threads, overwrite=self.scene.overwrite)
        except DeathError:
            return False
        finally:
            assert not rows & set(self.fetched()[before:]), fuse.calls
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
    die_at_any_call(lambda: CrashingWorld(scene, next(roots)), when, at_least=15)


@pytest.mark.parametrize("name", ["two parts over an old file", "two parts, never over an old file"])
def test_two_deaths_in_a_row_at_any_two_calls_lose_and_tear_nothing(name: str, roots: Iterator[Path]) -> None:
    def first_when(second: int) -> When:
        return "before" if second % 2 else "after"

    die_at_any_two_calls(lambda: CrashingWorld(SCENES[name], next(roots)), first_when, at_least=200)


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_process_that_dies_at_every_other_call_still_gets_there(scene: Scene, tmp_path: Path) -> None:
    die_again_and_again(CrashingWorld(scene, tmp_path / "root"))


@pytest.mark.parametrize("name", ["two parts over an old file", "two parts, never over an old file", "an empty blob"])
def test_past_the_point_of_no_return_the_source_is_not_needed_any_more(name: str, roots: Iterator[Path]) -> None:
    """A reader of the new file may delete the blob before a row says that the file is there."""
    resolved = 0
    for fail_at in range(1, MOST_CALLS):
        world = CrashingWorld(SCENES[name], next(roots))
        if world.live(Fuse(fail_at, "after")):
            assert resolved >= 3
            return
        if world.checkpoint.upload and world.checkpoint.upload.state == "completing":
            world.memory.delete_batch([KEY])
            world.finish(overwrite=SCENES[name].overwrite)
            resolved += 1
    pytest.fail("it never ends")
