"""What all ways to do harm have in common.

A harm is a generator: it yields its target (process ids, or None for all that run), does its harm, and ends
when it returns. One that finds nothing to hit returns at once.
"""

import random
import threading
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass

from dev.chaos.row_watch import RowWatch
from dev.chaos.system import System

Harm = Generator[Collection[int] | None, None, None]


@dataclass(frozen=True, slots=True)
class Means:
    """What a harm has at hand."""

    system: System
    watch: RowWatch
    target: str
    seconds: float  #: that it is to last, if it lasts
    chance: random.Random
    ending: threading.Event  #: set when the run is cut short

    def last(self) -> None:
        """Let it last."""
        self.ending.wait(self.seconds)


DoHarm = Callable[[Means], Harm]
