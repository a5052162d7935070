"""What the store does itself: a move of 5 GiB where each request takes 50 ms, and the delete of 100,000 keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from bench.ferry_stack import ferry_stack
from bench.job_alone import run_alone
from bench.measurement import Contender, Load, Measurement
from bench.peer_tools import run_library, run_program
from bench.stage import BUCKET, Stage, control

GIB: Final = 1024**3
SIZE: Final = 5 * GIB
DELAY: Final = 0.05  #: seconds per request
KEYS: Final = 100_000  #: at scale 1


@contextmanager
def _slow(stage: Stage) -> Iterator[None]:
    control(stage.sink, "pace", delay=DELAY)
    try:
        yield
    finally:
        control(stage.sink, "pace", delay=0)


def _filled(stage: Stage, count: int, size: int) -> str:
    prefix = f"within{stage.number()}/"
    control(stage.sink, "fill", bucket=BUCKET, prefix=prefix, count=count, size=size)
    return prefix


# --- moves -----------------------------------------------------------------------------------------------------------


def _move_job(stage: Stage) -> Measurement:
    source = f"/{_filled(stage, 1, SIZE)}00000000"
    with ferry_stack(stage, "postgres") as stack, _slow(stage):
        job = {"source_path": source, "dest_path": f"{source}-moved"}
        return run_alone(stage, stack, "move", [job], 1)


def _move_boto3(stage: Stage) -> Measurement:
    source = f"{_filled(stage, 1, SIZE)}00000000"
    small = f"{_filled(stage, 1, 1000)}00000000"
    with _slow(stage):
        return run_library(
            stage, "boto3", do="move", warm=[[small, f"{small}-moved"]], pairs=[[source, f"{source}-moved"]], units=1
        )


def _move_program(program: str, stage: Stage) -> Measurement:
    source = f"{BUCKET}/{_filled(stage, 1, SIZE)}00000000"
    arguments = {
        "awscli": ["mv", f"s3://{source}", f"s3://{source}-moved", "--no-progress"],
        "s5cmd": ["mv", f"s3://{source}", f"s3://{source}-moved"],
        "rclone": ["moveto", f"bench:{source}", f"bench:{source}-moved"],
    }[program]
    with _slow(stage):
        return run_program(stage, program, arguments, units=1)


# --- deletes ---------------------------------------------------------------------------------------------------------


def _delete_job(stage: Stage) -> Measurement:
    count = stage.scaled(KEYS, 100)
    prefix = _filled(stage, count, 1000)
    with ferry_stack(stage, "postgres") as stack:
        return run_alone(stage, stack, "delete", [{"path": f"/{prefix.rstrip('/')}"}], count)


def _delete_boto3(stage: Stage) -> Measurement:
    count = stage.scaled(KEYS, 100)
    small, prefix = _filled(stage, 10, 1000), _filled(stage, count, 1000)
    return run_library(stage, "boto3", do="delete", warm=[[small, ""]], pairs=[[prefix, ""]], units=count)


def _delete_program(program: str, stage: Stage) -> Measurement:
    count = stage.scaled(KEYS, 100)
    prefix = f"{BUCKET}/{_filled(stage, count, 1000)}"
    arguments = {"s5cmd": ["rm", f"s3://{prefix}*"], "rclone": ["purge", f"bench:{prefix}"]}[program]
    return run_program(stage, program, arguments, units=count)


MOVE: Final = Load(
    "move",
    "5 GiB move within the store, 50 ms a request",
    "move",
    (
        Contender("boto3", _move_boto3),
        Contender("blobferry", _move_job),
        *(Contender(peer, partial(_move_program, peer)) for peer in ("awscli", "s5cmd", "rclone")),
    ),
)
DELETE: Final = Load(
    "delete",
    "100,000 keys deleted",
    "key",
    (
        Contender("boto3", _delete_boto3),
        Contender("blobferry", _delete_job),
        *(Contender(peer, partial(_delete_program, peer)) for peer in ("s5cmd", "rclone")),
    ),
)
