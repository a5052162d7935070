"""All loads, by name, in the order in which they run."""

from collections.abc import Mapping
from typing import Final

from bench.loads.small_jobs import SMALL, SMALL_FILES
from bench.measurement import Load

LOADS: Final[Mapping[str, Load]] = {load.name: load for load in (SMALL, SMALL_FILES)}
