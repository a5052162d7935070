"""A scene while it is written: jobs are added to it, each a little later than the one before."""

import random
from collections.abc import Mapping
from typing import Any, Final

from dev.chaos.contents import MIB
from dev.chaos.planned_jobs import Spec, Step

#: Bytes, with how often they are drawn: mostly small, some of several parts.
SIZES: Final = {0: 1, 1: 1, 300: 4, 40_000: 6, 900_000: 5, 5 * MIB: 2, 5 * MIB + 1: 2, 12_000_000: 2, 26_000_000: 1}
SMALL: Final = (0, 1, 300, 4096, 4096, 40_000)  #: bytes of files and contents that are sent in batches
LARGE: Final = (11 * MIB, 18_000_000, 30_000_000)  #: several parts, so that there is a middle to be hit
_HOW: Final = {"how", "starts_in", "ends_in", "may", "follows_order", "priority"}


class Draft:
    """A scene while it is written."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self.name = f"s{number}"
        self.chance = chance
        self.jobs: list[Spec] = []
        self.steps: list[Step] = []
        self.hidden: set[str] = set()
        self.clock = 0.0

    def path(self, name: str) -> str:
        """A path of this scene alone."""
        return f"/{self.name}/{name}"

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock += seconds

    def size(self) -> int:
        """Bytes, mostly few."""
        (size,) = self.chance.choices(list(SIZES), weights=list(SIZES.values()))
        return size

    def submit(self, operation: str, arguments: Mapping[str, Any], **how: Any) -> str:
        """A job is submitted; its name."""
        name = f"{self.name}-{len(self.jobs)}"
        priority = self.chance.choice((0, 0, 0, 3, 9)) if how.get("follows_order", True) else 0
        self.jobs.append(Spec(name=name, operation=operation, arguments=arguments, **{"priority": priority, **how}))
        if how.get("how") != "together":
            self.then("submit", name)
            self.wait(self.chance.uniform(0, 0.3))
        return name

    def then(self, action: Any, name: str) -> None:
        """Something else is asked of a job."""
        self.steps.append(Step(self.clock, action, name))

    def write(self, path: str, size: int | None = None, *, via: str = "", **arguments: Any) -> str:
        """A write_stream or put_content of new bytes."""
        how = {key: arguments.pop(key) for key in _HOW & arguments.keys()}
        size = self.size() if size is None else size
        name = f"{self.name}-{len(self.jobs)}"
        via = via or self.chance.choice(("file", "file", "http", "put"))
        if via == "put" and size <= MIB and not arguments.get("offset"):
            arguments.pop("offset", None)
            return self.submit("put_content", {"path": path, **arguments}, size=size, **how)
        source = f"{{site}}/{name}" if via == "http" else f"file://{{files}}/{name}"
        return self.submit("write_stream", {"path": path, "source": source, **arguments}, size=size, **how)

    def move(self, source: str, dest: str, **arguments: Any) -> str:
        """A move."""
        return self.submit("move", {"source_path": source, "dest_path": dest, **arguments})
