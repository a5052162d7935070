"""One job at a time on a worker that is warm and otherwise idle."""

from collections.abc import Sequence
from typing import Any

from bench.backlog import request_counts, reset_counts
from bench.ferry_stack import FerryStack
from bench.measurement import Measurement
from bench.stage import Stage

WARM: int = 4  #: small jobs and larger ones, so that both children have done some of each


def run_alone(
    stage: Stage, stack: FerryStack, operation: str, jobs: Sequence[dict[str, Any]], units: float
) -> Measurement:
    """Let a worker do the jobs, one after the other; ``wall`` is the sum of what their client waited."""
    pattern = stage.files(20 * 1024 * 1024, 1)
    with stack.worker() as tracked:
        prefix = f"/warm{stage.number()}/"
        stack.ask(
            "ferry_run.py", operation="put_content", size=256, jobs=[{"path": prefix + str(n)} for n in range(WARM)]
        )
        files = [{"path": f"{prefix}f{n}", "source": "file://" + pattern.format(0)} for n in range(WARM)]
        stack.ask("ferry_run.py", operation="write_stream", jobs=files)
        reset_counts(stage)
        before = tracked.cpu()
        walls = stack.ask("ferry_run.py", operation=operation, jobs=list(jobs))["walls"]
        cpu = tracked.cpu() - before
        return Measurement(units, sum(walls), cpu, tracked.peak.memory, request_counts(stage, len(jobs)))
