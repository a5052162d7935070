"""One measurement, and what a contender is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one contender took for one load in one round."""

    units: float  #: jobs, or GiB
    wall: float  #: seconds
    cpu: float  #: seconds, user and system, of all its processes
    memory: int = 0  #: bytes, the highest sum over its processes
    more: Mapping[str, float] = field(default_factory=dict)  #: other figures by name, such as requests per job

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.wall if self.wall else 0.0

    @property
    def cpu_per_unit(self) -> float:
        """Seconds of CPU per unit."""
        return self.cpu / self.units if self.units else 0.0


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who can do a load. ``measure`` raises MissingPeerError if it cannot be had here."""

    name: str
    measure: Callable[[Stage], Measurement]


@dataclass(frozen=True, slots=True)
class Load:
    """One load, and who does it."""

    name: str
    title: str
    unit: str
    contenders: tuple[Contender, ...]
