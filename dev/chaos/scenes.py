"""Scenes: small stories of jobs that share their paths, drawn from a seed."""

import random
from collections.abc import Callable, Mapping
from typing import Final

from dev.chaos.job_model import FIXTURES
from dev.chaos.planned_jobs import Scene
from dev.chaos.scene_draft import LARGE, SMALL, Draft


def overwrites(draft: Draft) -> None:
    """Several writes to one path: the last one stays."""
    for _ in range(draft.chance.randint(2, 4)):
        draft.write(draft.path("blob"))


def large(draft: Draft) -> None:
    """One blob of several parts."""
    draft.write(draft.path("large"), draft.chance.choice(LARGE), via=draft.chance.choice(("file", "http")))


def appends(draft: Draft) -> None:
    """A blob that is written at offsets within, at and past its end."""
    size = draft.size()
    draft.write(draft.path("log"), size)
    for _ in range(draft.chance.randint(1, 3)):
        offset = max(size + draft.chance.choice((-size // 2, -1, 0, 0, 0, 17, 70_000)), 0)
        more = draft.size()
        draft.write(draft.path("log"), more, via="file", offset=offset)
        size = offset + more


def no_clobber(draft: Draft) -> None:
    """Of two that may not overwrite, the first one wins."""
    path = draft.path("once")
    draft.write(path, overwrite=False)
    draft.write(path, overwrite=False)
    if draft.chance.random() < 0.5:
        draft.write(path)


def moves(draft: Draft) -> None:
    """a → b → c, while new blobs come to a."""
    a, b, c = (draft.path(name) for name in "abc")
    draft.write(a)
    draft.move(a, b)
    draft.move(b, c)
    draft.write(a)
    draft.move(a, c, overwrite=draft.chance.random() < 0.5)
    draft.move(b, a)


def moves_in_parts(draft: Draft) -> None:
    """A large blob within its storage, and on to the other one."""
    draft.write(draft.path("from"), draft.chance.choice(LARGE))
    draft.move(draft.path("from"), draft.path("to"))
    if draft.chance.random() < 0.6:
        draft.move(draft.path("to"), draft.path("there"), dest_storage="other")


def across(draft: Draft) -> None:
    """To the other storage and back."""
    draft.write(draft.path("here"))
    draft.move(draft.path("here"), draft.path("there"), dest_storage="other")
    if draft.chance.random() < 0.5:
        draft.move(draft.path("there"), draft.path("home"), storage="other", dest_storage="default")


def trees(draft: Draft) -> None:
    """A tree that is filled, deleted and filled again; its neighbour stays."""
    tree = draft.path("tree")
    for leaf in ("x", "y/z", "y/w"):
        draft.write(f"{tree}/{leaf}", 300)
    draft.write(f"{tree}x", 300)
    draft.submit("delete", {"path": tree})
    draft.write(f"{tree}/y/z")
    if draft.chance.random() < 0.5:
        draft.submit("delete", {"path": f"{tree}/y"})
        draft.submit("delete", {"path": f"{tree}/y"})


def reads(draft: Draft) -> None:
    """Blobs into files."""
    for number, (storage, path) in enumerate(draft.chance.sample(list(FIXTURES), 2)):
        offset = draft.chance.choice((0, 0, 5, 69_999))
        dest = f"file://{{files}}/{draft.name}/{number}"
        draft.submit("read_stream", {"path": path, "storage": storage, "dest": dest, "offset": offset})


def copies(draft: Draft) -> None:
    """Blobs from blobs."""
    for number, (storage, path) in enumerate(draft.chance.sample(list(FIXTURES), 2)):
        to = {"path": draft.path(f"copy{number}"), "storage": draft.chance.choice(("default", "other"))}
        draft.submit("write_stream", {"source": f"blob://{storage}{path}", **to})


def submitted_twice(draft: Draft) -> None:
    """One job for two submits with one key."""
    draft.write(draft.path("twice"), how="twice")


def transactions(draft: Draft) -> None:
    """What an app takes back never runs."""
    draft.write(draft.path("kept"), 40_000, how="committed")
    draft.write(draft.path("kept"), 300, how="rolled_back")
    draft.write(draft.path("never"), 300, how="savepoint")


def bare(draft: Draft) -> None:
    """Messages without rows."""
    for number in range(2):
        draft.write(draft.path(f"bare{number}"), via="file", how="bare", follows_order=False)


def cancelled(draft: Draft) -> None:
    """A cancel races with the bytes; what follows finds what the winner has left."""
    path = draft.path("race")
    draft.write(path, 300)
    name = draft.write(path, draft.chance.choice((*LARGE, 300)), may=frozenset({"cancelled"}))
    draft.write(path, 40_000, via="file", offset=17)
    draft.wait(draft.chance.choice((0, 0.5, 2, 5)))
    draft.then("cancel", name)


def cancelled_move(draft: Draft) -> None:
    """The same with a move."""
    draft.write(draft.path("from"), draft.chance.choice(LARGE))
    draft.submit(
        "move",
        {"source_path": draft.path("from"), "dest_path": draft.path("to"), "dest_storage": "other"},
        may=frozenset({"cancelled"}),
    )
    draft.wait(draft.chance.uniform(0, 8))
    draft.then("cancel", draft.jobs[-1].name)


def paused(draft: Draft) -> None:
    """Stopped for a while, and resumed."""
    name = draft.write(draft.path("paused"), draft.chance.choice(LARGE), follows_order=False)
    draft.wait(draft.chance.uniform(0, 4))
    draft.then("pause", name)
    draft.wait(draft.chance.uniform(2, 10))
    draft.then("resume", name)


def retried(draft: Draft) -> None:
    """It fails for want of its source, and is tried again once that is there."""
    name = draft.write(draft.path("retried"), via="file", follows_order=False)
    draft.hidden.add(name)
    draft.wait(1)
    draft.then("retry", name)  # once it has failed, and its source has appeared


def many_small(draft: Draft) -> None:
    """Many small ones at once, which workers take in batches. Some share a path, and some files are not that small."""
    via = draft.chance.choice((("put",), ("file",), ("put", "file")))
    for number in range(draft.chance.randint(12, 30)):
        size = 900_000 if draft.chance.random() < 0.05 else draft.chance.choice(SMALL)
        draft.write(draft.path(f"small/{number % 20}"), size, via=draft.chance.choice(via), how="together")
    draft.then("submit together", draft.jobs[0].name)


def late(draft: Draft) -> None:
    """Deadlines: one over before it begins, one that may be met."""
    draft.write(draft.path("late"), 300, ends_in=-5.0, may=frozenset({"deadline"}), follows_order=False)
    limit = draft.chance.choice((1.0, 3.0, 8.0))
    draft.write(draft.path("hurried"), LARGE[1], ends_in=limit, may=frozenset({"deadline"}), follows_order=False)


def postponed(draft: Draft) -> None:
    """Not before its time."""
    draft.write(draft.path("postponed"), starts_in=draft.chance.uniform(2, 15), follows_order=False)


def impossible(draft: Draft) -> None:
    """What can only fail, and says why."""
    draft.move(draft.path("nothing"), draft.path("nowhere"))
    draft.submit("delete", {"path": draft.path("nothing")})


KINDS: Final[Mapping[Callable[[Draft], None], int]] = {
    overwrites: 3,
    large: 3,
    appends: 4,
    no_clobber: 2,
    moves: 3,
    moves_in_parts: 2,
    across: 2,
    trees: 3,
    reads: 3,
    copies: 2,
    submitted_twice: 1,
    transactions: 2,
    bare: 2,
    cancelled: 3,
    cancelled_move: 2,
    paused: 2,
    retried: 2,
    many_small: 4,
    late: 1,
    postponed: 1,
    impossible: 1,
}


def draw_scene(number: int, kind: Callable[[Draft], None], chance: random.Random) -> Scene:
    """A scene of a kind."""
    draft = Draft(number, chance)
    kind(draft)
    return Scene(draft.name, kind.__name__, tuple(draft.jobs), tuple(draft.steps), frozenset(draft.hidden))
