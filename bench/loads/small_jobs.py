"""Many small jobs: contents in the message, and small files."""

from functools import partial
from typing import Any, Final

from bench.backlog import work_off
from bench.ferry_stack import ferry_stack
from bench.measurement import Contender, Load, Measurement
from bench.plain_celery import PlainCelery
from bench.stage import Stage

SIZE: Final = 4096  #: bytes
CONTENTS: Final = 10_000  #: jobs at scale 1
FILES: Final = 2_000  #: jobs at scale 1
DISTINCT: Final = 64  #: files


def _ferry(kind: str, operation: str, jobs: int, stage: Stage) -> Measurement:
    count = stage.scaled(jobs, 20)
    with ferry_stack(stage, kind) as stack:
        return work_off(stage, stack, count, count, operation=operation, mode="backlog", **_what(stage))


def _celery(task: str, jobs: int, stage: Stage) -> Measurement:
    count = stage.scaled(jobs, 20)
    return work_off(stage, PlainCelery(stage), count, count, task=task, **_what(stage))


def _what(stage: Stage) -> dict[str, Any]:
    files = stage.files(SIZE, DISTINCT)
    return {"prefix": f"/small{stage.number()}/", "size": SIZE, "files": files, "distinct": DISTINCT}


def _load(name: str, title: str, operation: str, task: str, jobs: int) -> Load:
    return Load(
        name,
        title,
        "job",
        (
            Contender("celery", partial(_celery, task, jobs)),
            Contender("blobferry", partial(_ferry, "postgres", operation, jobs)),
            Contender("blobferry sqlite", partial(_ferry, "sqlite", operation, jobs)),
        ),
    )


SMALL: Final = _load("small", "10,000 × 4 KiB put_content", "put_content", "put", CONTENTS)
SMALL_FILES: Final = _load("small-files", "2,000 × 4 KiB files write_stream", "write_stream", "upload", FILES)
