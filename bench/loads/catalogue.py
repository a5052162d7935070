"""All loads, by name, in the order in which they run."""

from collections.abc import Mapping
from typing import Final

from bench.loads.clients import IDLE_STACK, LATENCY, SUBMIT
from bench.loads.large_blobs import ONE_GIB, ONE_GIB_TLS, READ_GIB
from bench.loads.medium_files import MEDIUM
from bench.loads.small_jobs import SMALL, SMALL_FILES
from bench.loads.within_the_store import DELETE, MOVE
from bench.measurement import Load

LOADS: Final[Mapping[str, Load]] = {
    load.name: load
    for load in (
        SMALL,
        SMALL_FILES,
        MEDIUM,
        ONE_GIB,
        ONE_GIB_TLS,
        READ_GIB,
        MOVE,
        DELETE,
        SUBMIT,
        LATENCY,
        IDLE_STACK,
    )
}
