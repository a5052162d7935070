"""200 files of 8 MiB: a worker's backlog, and what the peers make of a folder."""

from functools import partial
from typing import Final

from bench.backlog import work_off
from bench.ferry_stack import ferry_stack
from bench.measurement import Contender, Load, Measurement
from bench.peer_tools import run_library, run_program
from bench.plain_celery import PlainCelery
from bench.stage import BUCKET, Stage

MIB: Final = 1024 * 1024
SIZE: Final = 8 * MIB
COUNT: Final = 200  #: files at scale 1
LEAST: Final = 40  #: files at any scale from 0.1 on; fewer would measure the first seconds
DISTINCT: Final = 8  #: files; peers that take folders get each again under another name


def _count(stage: Stage) -> int:
    return max(stage.scaled(COUNT), LEAST if stage.options.scale >= 0.1 else 10)


def _gib(count: int) -> float:
    return count * SIZE / 1024 / MIB


def _ferry(kind: str, stage: Stage) -> Measurement:
    count, files = _count(stage), stage.files(SIZE, DISTINCT)
    what = {"prefix": f"/medium{stage.number()}/", "files": files, "distinct": DISTINCT}
    with ferry_stack(stage, kind) as stack:
        return work_off(stage, stack, count, _gib(count), operation="write_stream", mode="backlog", **what)


def _celery(stage: Stage) -> Measurement:
    count, files = _count(stage), stage.files(SIZE, DISTINCT)
    what = {"prefix": f"medium{stage.number()}/", "files": files, "distinct": DISTINCT}
    return work_off(stage, PlainCelery(stage), count, _gib(count), task="upload", **what)


def _library(library: str, stage: Stage) -> Measurement:
    count, files, prefix = _count(stage), stage.files(SIZE, DISTINCT), f"{library}{stage.number()}/"
    pairs = [[files.format(number % DISTINCT), f"{prefix}{number}"] for number in range(count)]
    return run_library(stage, library, do="upload", warm=pairs[:4], pairs=pairs, threads=2, units=_gib(count))


def _program(program: str, stage: Stage) -> Measurement:
    count, folder = _count(stage), stage.directory / "medium"
    folder.mkdir(exist_ok=True)
    pattern = stage.files(SIZE, DISTINCT)
    for number in range(count):
        link = folder / str(number)
        if not link.exists():
            link.hardlink_to(pattern.format(number % DISTINCT))
    target = f"{BUCKET}/{program}{stage.number()}"
    arguments = {
        "awscli": ["cp", str(folder), f"s3://{target}", "--recursive", "--no-progress"],
        "s5cmd": ["cp", f"{folder}/", f"s3://{target}/"],
        "rclone": ["copy", str(folder), f"bench:{target}"],
    }[program]
    return run_program(stage, program, arguments, units=_gib(count))


MEDIUM: Final = Load(
    "medium",
    "200 × 8 MiB write_stream",
    "GiB",
    (
        Contender("celery", _celery),
        Contender("blobferry", partial(_ferry, "postgres")),
        Contender("blobferry sqlite", partial(_ferry, "sqlite")),
        *(Contender(peer, partial(_library, peer)) for peer in ("boto3", "crt", "obstore")),
        *(Contender(peer, partial(_program, peer)) for peer in ("awscli", "s5cmd", "rclone")),
    ),
)
