"""What callers notice: how fast a client submits, and how soon a job on an idle stack has succeeded."""

import time
from functools import partial
from statistics import quantiles
from typing import Final

import psutil

from bench.ferry_stack import ferry_stack
from bench.measurement import Contender, Load, Measurement
from bench.peer_environments import MissingPeerError
from bench.stage import Stage

SUBMITTED: Final = 10_000  #: jobs at scale 1
WAITED_FOR: Final = 1_000  #: jobs at scale 1
PAUSE: Final = 0.02  #: seconds between two jobs on the idle stack
IDLE: Final = 120.0  #: seconds at scale 1


def _submit(mode: str, kind: str, stage: Stage) -> Measurement:
    count = stage.scaled(SUBMITTED, 50)
    what = {"first": 0, "count": count, "prefix": f"/submit{stage.number()}/", "size": 4096, "mode": mode}
    with ferry_stack(stage, kind) as stack:
        took = stack.submit(operation="put_content", **what)
        if took["mode"] == "missing":
            raise MissingPeerError("this checkout has no submit_many")
    return Measurement(count, took["wall"], took["cpu"])


def _latency(kind: str, stage: Stage) -> Measurement:
    count, prefix = stage.scaled(WAITED_FOR, 20), f"/latency{stage.number()}/"
    jobs = [{"path": f"{prefix}{number}"} for number in range(count + 20)]
    with ferry_stack(stage, kind) as stack, stack.worker() as tracked:
        stack.ask("ferry_run.py", operation="put_content", size=4096, jobs=jobs[:20])
        before = tracked.cpu()
        walls = stack.ask("ferry_run.py", operation="put_content", size=4096, jobs=jobs[20:], pause=PAUSE)["walls"]
        cpu = tracked.cpu() - before
    hundredths = quantiles(walls, n=100, method="inclusive")
    more = {"p50 ms": hundredths[49] * 1000, "p99 ms": hundredths[98] * 1000}
    return Measurement(count, sum(walls), cpu, tracked.peak.memory, more)


def _idle(kind: str, stage: Stage) -> Measurement:
    seconds = max(10.0, IDLE * stage.options.scale)
    with ferry_stack(stage, kind) as stack, stack.worker() as tracked:
        stack.ask("ferry_run.py", operation="put_content", size=4096, jobs=[{"path": f"/idle{stage.number()}"}])
        caretaker = next(
            child for child in psutil.Process(tracked.pid).children(recursive=True) if "sweep" in child.cmdline()
        )
        before, of_caretaker, started = tracked.cpu(), sum(caretaker.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        wall = time.monotonic() - started
        cpu = tracked.cpu() - before
        share = (sum(caretaker.cpu_times()[:2]) - of_caretaker) / wall
    return Measurement(wall, wall, cpu, tracked.peak.memory, {"caretaker % of a core": share * 100})


SUBMIT: Final = Load(
    "submit",
    "submit, publishing included, one client",
    "job",
    tuple(
        Contender(f"{label} {kind}", partial(_submit, mode, kind))
        for mode, label in (("one", "one by one"), ("many", "submit_many"))
        for kind in ("postgres", "sqlite")
    ),
)
LATENCY: Final = Load(
    "latency",
    "idle stack: submit to succeeded, 4 KiB",
    "job",
    tuple(Contender(f"blobferry {kind}", partial(_latency, kind)) for kind in ("postgres", "sqlite")),
)
IDLE_STACK: Final = Load(
    "idle",
    "a worker without jobs",
    "s",
    tuple(Contender(f"blobferry {kind}", partial(_idle, kind)) for kind in ("postgres", "sqlite")),
)
