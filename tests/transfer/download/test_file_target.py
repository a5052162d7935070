"""The end of a download: which run may commit, over which file, and what the next run finds after a death."""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from blobferry.contract import UploadState
from tests.doubles import DeathError, Fuse, HookedStore
from tests.transfer.bench import at, saved
from tests.transfer.download.downloads import DATA, OLD, World, interrupt
from worker.errors import (
    BlobExistsError,
    DestinationNotAllowedError,
    DestinationUnavailableError,
    LeaseLostError,
    OutcomeUnknownError,
    SupersededError,
)
from worker.transfer.download.partial_file import PartialFile, new_upload_id, remove_partial

STEPS = {True: "rename", False: "link"}  #: which commits, with and without overwrite
both_ways = pytest.mark.parametrize("overwrite", STEPS)
OTHERS = b"somebody else's file"


@dataclass
class Meanwhile(Fuse):
    """Something happens once, right before a step of a run that is ``in_state``."""

    world: World
    step: str
    work: Callable[[], object]
    in_state: str = "completing"
    happened: bool = False

    def call(self, name: str, work: Callable[[], Any]) -> Any:
        upload = self.world.checkpoint.upload
        if name == self.step and not self.happened and upload and upload.state == self.in_state:
            self.happened = True
            self.work()
        return work()


@pytest.fixture
def empty(tmp_path: Path) -> World:
    """There is no file yet."""
    return World(tmp_path / "srv")


def run_while(fuse: Meanwhile, **how: Any) -> None:
    checkpoint, destination = fuse.world.fenced(), fuse.world.destination()
    destination.fuse = fuse
    fuse.world.run(checkpoint=checkpoint, destination=destination, **how)


def die_before(world: World, step: str, **how: Any) -> None:
    """A run that dies between ``completing`` and this step."""

    def die() -> None:
        raise DeathError(step)

    with pytest.raises(DeathError):
        run_while(Meanwhile(world, step, die), **how)


# --- zombies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overwrite", "step"), [(True, "rename"), (False, "link"), (True, "sync"), (False, "sync")])
def test_a_run_that_lost_its_job_beside_its_commit_commits_no_second_time(
    overwrite: bool, step: str, empty: World
) -> None:
    """Right before, it has no name to commit; right after, the next run confirms it."""
    with pytest.raises(LeaseLostError):
        run_while(Meanwhile(empty, step, lambda: empty.run(overwrite=overwrite)), overwrite=overwrite)
    empty.assert_all_is_well()
    assert empty.fetched() == [0, 10, 20, 30]


def test_a_run_that_lost_its_job_within_a_part_does_not_touch_the_committed_file(world: World) -> None:
    """By then the file belongs to its readers: one has appended to it already."""

    def next_run() -> None:
        world.run()
        with world.path.open("r+b") as file:
            file.write(b"changed")

    with pytest.raises(DestinationUnavailableError, match="is gone"):
        world.run(store=HookedStore(world.memory, after=at("get", next_run, 1)))
    assert (world.seen(), world.partials()) == (b"changed" + DATA[7:], [])


def test_a_run_that_lost_its_job_before_it_made_its_partial_file_leaves_none(world: World) -> None:
    with pytest.raises(LeaseLostError):
        run_while(Meanwhile(world, "create", world.run, in_state="open"))
    world.assert_all_is_well()


@pytest.mark.parametrize("step", ["names", "rename"])
def test_a_run_that_lost_its_job_does_not_adopt_the_file_of_a_later_one(step: str, world: World) -> None:
    interrupt(world)
    with pytest.raises(LeaseLostError):
        run_while(Meanwhile(world, step, lambda: interrupt(world, 1), in_state="open"))
    world.finish()
    assert world.fetched() == [0, 10, 20, 30]


# --- overwriting -----------------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_not_overwritten_and_nothing_is_fetched(world: World) -> None:
    with pytest.raises(BlobExistsError):
        world.run(overwrite=False)
    assert (world.seen(), world.partials(), world.fetched()) == (OLD, [], [])


@pytest.mark.parametrize(("step", "state"), [("open_file", "open"), ("link", "completing")])
def test_a_file_that_appears_meanwhile_is_not_overwritten(step: str, state: str, empty: World) -> None:
    interrupt(empty)
    with pytest.raises(BlobExistsError):
        run_while(Meanwhile(empty, step, lambda: empty.path.write_bytes(OTHERS), state), overwrite=False)
    assert empty.seen() == OTHERS


def test_a_file_that_appears_meanwhile_is_replaced_if_it_may_be(world: World) -> None:
    interrupt(world)
    world.path.write_bytes(OTHERS)
    world.finish()


# --- resolving a commit ----------------------------------------------------------------------------------------------


@both_ways
def test_a_partial_file_that_was_about_to_be_published_is_published(overwrite: bool, empty: World) -> None:
    die_before(empty, STEPS[overwrite], overwrite=overwrite)
    empty.finish(overwrite=overwrite)


@both_ways
def test_another_file_that_appeared_meanwhile_is_left_alone(overwrite: bool, empty: World) -> None:
    die_before(empty, STEPS[overwrite], overwrite=overwrite)
    empty.path.write_bytes(OTHERS)
    with pytest.raises(SupersededError if overwrite else BlobExistsError):
        empty.run(overwrite=overwrite)
    assert empty.seen() == OTHERS


@pytest.mark.parametrize("others", [OTHERS, bytes(reversed(DATA)), DATA + b"more", DATA[:-1]])
def test_another_file_in_the_place_of_the_published_one_is_left_alone(others: bytes, world: World) -> None:
    """Even one of the same size."""
    die_before(world, "sync")
    world.path.unlink()
    world.path.write_bytes(others)
    with pytest.raises(SupersededError):
        world.run()
    assert world.seen() == others


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_file_published_by_another_host_is_not_fetched_again(is_recorded: bool, world: World) -> None:
    if is_recorded:
        world.run()
    else:
        die_before(world, "sync")
    world.checkpoint.upload = replace(saved(world.checkpoint), is_elsewhere=True)
    world.finish()
    assert world.fetched() == [0, 10, 20, 30]


@pytest.mark.parametrize("state", [UploadState.COMPLETING, UploadState.COMPLETED])
def test_another_file_in_the_place_of_one_published_by_another_host_is_left_alone(
    state: UploadState, world: World
) -> None:
    die_before(world, "sync")
    world.path.unlink()
    world.path.write_bytes(OTHERS)
    world.checkpoint.upload = replace(saved(world.checkpoint), state=state, is_elsewhere=True)
    with pytest.raises(SupersededError):
        world.run()
    assert world.seen() == OTHERS


def test_a_symlink_in_the_place_of_the_published_file_is_not_followed(world: World, tmp_path: Path) -> None:
    die_before(world, "sync")
    world.path.rename(tmp_path / "taken")
    world.path.symlink_to(tmp_path / "taken")
    with pytest.raises(SupersededError):
        world.run()


def test_a_published_file_that_was_taken_away_is_not_fetched_again(world: World) -> None:
    """Somebody may have waited for it, and be done with it."""
    die_before(world, "sync")
    world.path.unlink()
    with pytest.raises(OutcomeUnknownError):
        world.run()
    assert (world.seen(), world.fetched()) == (None, [0, 10, 20, 30])


def test_with_the_old_file_there_and_no_partial_file_the_download_begins_again(world: World) -> None:
    die_before(world, "rename")
    world.partial.unlink()
    world.finish()
    assert world.fetched() == [0, 10, 20, 30] * 2


def test_a_published_file_is_known_by_its_bytes_also_after_it_was_copied_back(world: World) -> None:
    die_before(world, "sync")
    world.path.unlink()
    world.path.write_bytes(DATA)
    world.finish()


# --- permissions -----------------------------------------------------------------------------------------------------


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mode", "later"), [(0o600, 0o640), (0o640, 0o600), (0o777, 0o700), (0o4755, 0o4755)], ids=oct)
def test_a_new_and_its_partial_file_have_the_mode_of_the_old_but_no_setuid_bit(
    mode: int, later: int, world: World
) -> None:
    world.path.chmod(mode)
    interrupt(world)
    assert mode_of(world.partial) == mode & 0o777
    world.path.chmod(later)  # the one that counts is the last
    world.run()
    assert mode_of(world.path) == later & 0o777


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_new_file_has_the_mode_that_the_umask_leaves(umask: int, empty: World) -> None:
    old = os.umask(umask)
    try:
        empty.run()
    finally:
        os.umask(old)
    assert mode_of(empty.path) == 0o666 & ~umask


# --- what stands in the place of files -------------------------------------------------------------------------------


def test_a_symlink_at_the_final_name_is_replaced_and_not_followed(empty: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    empty.path.symlink_to(tmp_path / "secret")
    empty.run()
    assert not empty.path.is_symlink()
    empty.assert_all_is_well()
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_dangling_symlink_is_something_too(empty: World, tmp_path: Path) -> None:
    empty.path.symlink_to(tmp_path / "nothing")
    with pytest.raises(BlobExistsError):
        empty.run(overwrite=False)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "plant",
    [Path.symlink_to, Path.hardlink_to, lambda planted, victim: os.mkfifo(planted)],
    ids=["a symlink", "a hard link", "a FIFO"],
)
def test_what_is_planted_as_the_partial_file_is_not_written_through_and_blocks_nobody(
    plant: Callable[[Path, Path], object], world: World, tmp_path: Path
) -> None:
    interrupt(world)
    victim, planted = tmp_path / "victim", world.partial
    victim.write_bytes(DATA[:20])
    planted.unlink()
    plant(planted, victim)
    world.finish()
    assert victim.read_bytes() == DATA[:20]
    assert world.fetched() == [0, 10, 0, 10, 20, 30]


def test_a_directory_that_takes_the_final_name_meanwhile_is_left_alone(empty: World) -> None:
    interrupt(empty)
    empty.path.mkdir()
    with pytest.raises(DestinationNotAllowedError, match="not a regular file"):
        empty.run()
    empty.path.rmdir()
    empty.finish()


def test_a_directory_swapped_for_a_symlink_leads_nobody_astray(world: World, tmp_path: Path) -> None:
    elsewhere, moved = tmp_path / "elsewhere", tmp_path / "moved"
    elsewhere.mkdir()

    def swap() -> None:
        world.root.rename(moved)
        world.root.symlink_to(elsewhere)

    with pytest.raises(DestinationUnavailableError, match=" is now "):
        world.run(store=HookedStore(world.memory, after=at("get", swap, 1)))
    assert os.listdir(elsewhere) == []
    assert (moved / "7.mp4").read_bytes() == OLD


# --- the ledger ------------------------------------------------------------------------------------------------------


def given_up(world: World) -> tuple[str, str]:
    upload = saved(world.checkpoint)
    return upload.key, str(upload.upload_id)


def test_a_given_up_partial_file_is_removed_whichever_run_had_it(world: World) -> None:
    interrupt(world)
    shutil.copy(world.partial, world.root / (given_up(world)[1] + "-0.part"))
    remove_partial(*given_up(world))
    assert (world.seen(), world.partials()) == (OLD, [])
    remove_partial(*given_up(world))


def test_the_partial_file_of_another_download_to_the_same_name_is_left_alone(world: World) -> None:
    interrupt(world)
    other = new_upload_id("7.mp4", mark="f" * 32, version="")
    with closing(world.destination()) as destination:
        PartialFile.create(destination, other, 1, 0).close()
    remove_partial(*given_up(world))
    assert world.partials() == [f"{other}-1.part"]


def test_nothing_to_remove_is_fine(world: World, tmp_path: Path) -> None:
    for path in (world.path, tmp_path / "gone" / "7.mp4", world.path / "7.mp4"):
        remove_partial(str(path), new_upload_id("7.mp4", mark="f", version=""))


@pytest.mark.parametrize("upload_id", ["", "7.mp4", "../7.mp4", ".7.mp4.blobferry-f-0-0", "*"])
def test_only_names_of_ours_are_removed(upload_id: str, world: World) -> None:
    with pytest.raises(DestinationNotAllowedError):
        remove_partial(str(world.path), upload_id)
    assert world.seen() == OLD


@pytest.mark.parametrize("name", ["7.mp4", "a" * 255, "ä" * 127, "with space", "\n"])
def test_the_partial_file_of_any_name_has_one_that_the_file_system_takes(name: str, tmp_path: Path) -> None:
    upload_id = new_upload_id(name, mark="f" * 32, version='"etag"')
    (tmp_path / f"{upload_id}-{2**63}.part").touch()
    assert (upload_id.isascii(), upload_id.isprintable()) == (True, True)
    remove_partial(str(tmp_path / name), upload_id)
    assert os.listdir(tmp_path) == []
