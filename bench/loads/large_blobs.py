"""Large blobs: one of 1 GiB, over http and TLS, uploaded and read; and the engine alone beside the job."""

from functools import partial
from typing import Final

from bench.ferry_stack import ferry_stack
from bench.job_alone import run_alone
from bench.measurement import Contender, Load, Measurement
from bench.peer_tools import run_library, run_program
from bench.stage import BUCKET, Stage, control

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
WARM: Final = 20 * MIB  #: bytes of the files with which a process is warmed up


def _size(stage: Stage) -> int:
    """1 GiB from scale 0.1 on: the figures are per GiB, and a smaller blob would measure how programs start."""
    return max(MIB, min(GIB, int(GIB * stage.options.scale * 10)) // MIB * MIB)


# --- uploads ---------------------------------------------------------------------------------------------------------


def _upload_job(secure: bool, stage: Stage) -> Measurement:
    file, size = stage.files(_size(stage), 1).format(0), _size(stage)
    with ferry_stack(stage, "postgres", secure=secure) as stack:
        job = {"path": f"/gib/{stage.number()}", "source": f"file://{file}"}
        return run_alone(stage, stack, "write_stream", [job], size / GIB)


def _upload_engine(secure: bool, stage: Stage) -> Measurement:
    file, size = stage.files(_size(stage), 1).format(0), _size(stage)
    with ferry_stack(stage, "sqlite", secure=secure) as stack:
        warm = [stage.files(WARM, 1).format(0)] * 3
        took = stack.ask("engine_alone.py", files=[file], warm=warm, prefix=f"/engine{stage.number()}/")
    return Measurement(size / GIB, took["wall"], took["cpu"])


def _upload_library(library: str, secure: bool, stage: Stage) -> Measurement:
    file, size = stage.files(_size(stage), 1).format(0), _size(stage)
    warm = [[stage.files(WARM, 1).format(0), f"warm/{library}"]] * 3
    pairs = [[file, f"{library}/{stage.number()}"]]
    return run_library(stage, library, do="upload", warm=warm, pairs=pairs, secure=secure, units=size / GIB)


def _upload_program(program: str, secure: bool, stage: Stage) -> Measurement:
    file, size = stage.files(_size(stage), 1).format(0), _size(stage)
    target = f"{BUCKET}/{program}/{stage.number()}"
    arguments = {
        "awscli": ["cp", file, f"s3://{target}", "--no-progress"],
        "s5cmd": ["cp", file, f"s3://{target}"],
        "rclone": ["copyto", file, f"bench:{target}"],
    }[program]
    return run_program(stage, program, arguments, secure=secure, units=size / GIB)


def _uploads(name: str, title: str, secure: bool) -> Load:
    return Load(
        name,
        title,
        "GiB",
        (
            Contender("blobferry", partial(_upload_job, secure)),
            Contender("engine alone", partial(_upload_engine, secure)),
            *(Contender(peer, partial(_upload_library, peer, secure)) for peer in ("boto3", "crt", "obstore")),
            *(Contender(peer, partial(_upload_program, peer, secure)) for peer in ("awscli", "s5cmd", "rclone")),
        ),
    )


# --- downloads -------------------------------------------------------------------------------------------------------


def _filled(stage: Stage) -> str:
    prefix = f"read{stage.number()}/"
    control(stage.sink, "fill", bucket=BUCKET, prefix=prefix, count=1, size=_size(stage))
    return f"{prefix}00000000"


def _target(stage: Stage) -> str:
    target = stage.directory / "read"
    target.unlink(missing_ok=True)
    return str(target)


def _read_job(stage: Stage) -> Measurement:
    key, size, target = _filled(stage), _size(stage), _target(stage)
    with ferry_stack(stage, "postgres") as stack:
        return run_alone(stage, stack, "read_stream", [{"path": f"/{key}", "dest": f"file://{target}"}], size / GIB)


def _read_library(library: str, stage: Stage) -> Measurement:
    key, size, target = _filled(stage), _size(stage), _target(stage)
    control(stage.sink, "fill", bucket=BUCKET, prefix="warm-read/", count=1, size=WARM)
    warm = [["warm-read/00000000", f"{target}-warm"]] * 3
    return run_library(stage, library, do="download", warm=warm, pairs=[[key, target]], units=size / GIB)


def _read_program(program: str, stage: Stage) -> Measurement:
    key, size, target = _filled(stage), _size(stage), _target(stage)
    arguments = {
        "awscli": ["cp", f"s3://{BUCKET}/{key}", target, "--no-progress"],
        "s5cmd": ["cp", f"s3://{BUCKET}/{key}", target],
        "rclone": ["copyto", f"bench:{BUCKET}/{key}", target],
    }[program]
    return run_program(stage, program, arguments, units=size / GIB)


ONE_GIB: Final = _uploads("gib", "1 × 1 GiB write_stream, http", False)
ONE_GIB_TLS: Final = _uploads("gib-tls", "1 × 1 GiB write_stream, TLS", True)
READ_GIB: Final = Load(
    "read",
    "1 GiB read_stream to a file, http",
    "GiB",
    (
        Contender("blobferry", _read_job),
        *(Contender(peer, partial(_read_library, peer)) for peer in ("boto3", "crt", "obstore")),
        *(Contender(peer, partial(_read_program, peer)) for peer in ("awscli", "s5cmd", "rclone")),
    ),
)
