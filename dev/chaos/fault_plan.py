"""The plan of a run: which scene begins when and what goes wrong when, from a seed. The interleaving is not planned."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dev.chaos.planned_jobs import Scene
from dev.chaos.scenes import KINDS, draw_scene
from dev.zoo import PROFILES

BETWEEN_SCENES: Final = 1.6  #: seconds, on average
BETWEEN_FAULTS: Final = 4.0  #: seconds, on average
#: Profiles of the zoo without settings, that honour conditions: else a late request may replace what came since.
STORES: Final = [
    name
    for name, profile in PROFILES.items()
    if profile.checks_signatures and not (profile.parameters or profile.not_guaranteed)
]
QUIET_AT_FIRST: Final = 5.0  #: seconds without a fault, so that something runs


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A way to do harm."""

    name: str
    targets: tuple[str, ...]  #: one of which is hit; with ``all_of_them``, all
    weight: int
    lasts: tuple[float, float] = (0, 0)  #: seconds, at least and at most
    all_of_them: bool = False


_WORKERS: Final = ("worker-a", "worker-b")
FAULTS: Final[Sequence[FaultKind]] = (
    FaultKind("kill child", _WORKERS, 6),
    FaultKind("kill worker", _WORKERS, 3, (0, 6)),
    FaultKind("kill parent", _WORKERS, 2, (1, 6)),
    FaultKind("drain worker", _WORKERS, 3, (0, 4)),
    FaultKind("take mount", _WORKERS, 2, (8, 15)),
    FaultKind("stop child", _WORKERS, 3, (7, 14)),
    FaultKind("stop worker", _WORKERS, 2, (7, 14)),
    FaultKind("stop worker in a delete", _WORKERS, 2, (7, 14)),
    FaultKind("kill caretaker", _WORKERS, 3),
    FaultKind("flush broker", ("broker",), 3),
    FaultKind("restart broker", ("broker",), 2, (0, 5)),
    FaultKind("read-only broker", ("broker",), 2, (2, 8)),
    FaultKind("freeze broker", ("broker",), 2, (3, 15)),
    FaultKind("half-open broker", ("broker",), 2, (3, 15)),
    FaultKind("cut broker", ("broker",), 2),
    FaultKind("refuse broker", ("broker",), 2, (2, 10)),
    FaultKind("restart database", ("database",), 2, (0, 5)),
    FaultKind("cut database", ("database",), 3),
    FaultKind("cut before commit", ("database",), 4, (0, 5)),
    FaultKind("cut after commit", ("database",), 4, (0, 5)),
    FaultKind("freeze database", ("database",), 2, (2, 12)),
    FaultKind("half-open database", ("database",), 2, (2, 12)),
    FaultKind("lock row", ("database",), 3, (2, 9)),
    FaultKind("restart store", ("store",), 2, (0, 4)),
    FaultKind("store storm", ("store",), 4, (3, 8)),
    FaultKind("lose upload", ("store",), 3),
    FaultKind("freeze everything", ("broker", "database", "store"), 1, (4, 12), all_of_them=True),
    FaultKind("duplicate messages", ("messages",), 3),
    FaultKind("replay old messages", ("messages",), 3),
)


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One harm, ``at`` so many seconds after the beginning."""

    at: float
    kind: FaultKind
    targets: tuple[str, ...]
    lasts: float
    seed: int  #: of what the harm itself has to choose


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, as far as a seed can tell."""

    seed: int
    seconds: float
    profile: str  #: of the zoo, that the store behaves as
    scenes: Sequence[tuple[float, Scene]]  #: when, and what
    faults: Sequence[PlannedFault]


def draw_plan(seed: int, seconds: float) -> Plan:
    """The plan of a seed. Every kind of scene and of fault comes once before any comes twice, if there is time."""
    chance = random.Random(seed)
    scenes, faults = _scenes(chance, seconds), _faults(chance, seconds)
    return Plan(seed, seconds, chance.choice(STORES), scenes, faults)


def _scenes(chance: random.Random, seconds: float) -> list[tuple[float, Scene]]:
    kinds = list(KINDS)
    chance.shuffle(kinds)
    scenes: list[tuple[float, Scene]] = []
    at = 0.0
    while at < seconds:
        number = len(scenes)
        kind = kinds[number] if number < len(kinds) else chance.choices(list(KINDS), list(KINDS.values()))[0]
        scenes.append((at, draw_scene(number, kind, random.Random(chance.random()))))
        at += chance.uniform(0, 2 * BETWEEN_SCENES)
    return scenes


def _faults(chance: random.Random, seconds: float) -> list[PlannedFault]:
    kinds = list(FAULTS)
    chance.shuffle(kinds)
    faults: list[PlannedFault] = []
    at = QUIET_AT_FIRST
    while at < seconds:
        number = len(faults)
        kind = kinds[number] if number < len(kinds) else chance.choices(FAULTS, [kind.weight for kind in FAULTS])[0]
        targets = kind.targets if kind.all_of_them else (chance.choice(kind.targets),)
        faults.append(PlannedFault(at, kind, targets, chance.uniform(*kind.lasts), chance.getrandbits(32)))
        at += chance.uniform(0, 2 * BETWEEN_FAULTS)
    return faults
