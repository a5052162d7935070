"""``make memory``: the peak memory of a worker child that moves a 2 GiB file, beside the bound that is promised."""

import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
from rich.console import Console

from dev.process import work_directory
from dev.services import moto, postgres, postgres_database, valkey
from dev.stack import Stack

MIB = 1024 * 1024
SIZE = 2048 * MIB
BASE = 120  #: MiB that a child may take beside its buffers
SHAPES = ((4, 16), (2, 64))  #: part_threads, part size in MiB


def measure(console: Console, part_threads: int, part_size: int) -> bool:
    """Move the file; print the peak and the bound. True if it holds."""
    with ExitStack() as services, work_directory("memory") as directory:
        broker = services.enter_context(valkey())
        s3 = services.enter_context(moto())
        settings = {
            "BLOBFERRY_TRANSFER__PART_SIZE": str(part_size * MIB),
            "BLOBFERRY_TRANSFER__PART_THREADS": str(part_threads),
            "BLOBFERRY_CONCURRENCY": "1",
        }
        database = services.enter_context(postgres_database(services.enter_context(postgres())))
        stack = Stack(broker.url, database, s3, directory, settings=settings)
        stack.prepare()
        file = stack.incoming / "sparse.bin"
        with file.open("wb") as sparse:
            sparse.truncate(SIZE)
        worker = services.enter_context(stack.worker())
        client = services.enter_context(stack.client())
        job = client.write_stream("/memory/sparse.bin", file)
        job = client.wait(job.id, timeout=300)
        children = psutil.Process(worker.pids[0]).children()
        peak = max(_peak(child.pid) for child in children if not {"sweep", "--beside"} & set(child.cmdline()))
    bound = BASE + part_threads * min(part_size, 64)
    console.print(
        f"{SIZE // MIB} MiB, {part_threads} threads × {part_size} MiB: {job.state}, "
        f"peak {peak} MiB, bound {bound} MiB = {BASE} + {part_threads} × {min(part_size, 64)}"
    )
    return job.state == "succeeded" and peak <= bound


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def main() -> None:
    """Measure the shapes; exit status 0 only if the bound holds for each."""
    console = Console(highlight=False, soft_wrap=True)
    sys.exit(0 if all([measure(console, *shape) for shape in SHAPES]) else 1)


if __name__ == "__main__":
    main()
