"""What jobs do, in a few lines: the world that they are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dev.chaos.contents import content
from dev.chaos.planned_jobs import Spec

FILES = "file"  #: stands for the files of this host in the place of a storage's name

Place = tuple[str, str]  #: storage and path
#: What a world begins with, and what no job changes: blobs to read from.
FIXTURES: Mapping[Place, tuple[str, int]] = {
    ("default", "/fixtures/small"): ("fixture-small", 70_001),
    ("default", "/fixtures/large"): ("fixture-large", 17 * 1024 * 1024 + 3),
    ("other", "/fixtures/other"): ("fixture-other", 6 * 1024 * 1024),
}


@dataclass(slots=True)
class World:
    """All blobs and files of a scene."""

    blobs: dict[Place, bytes] = field(default_factory=dict)

    def after(self, job: Spec) -> "World | str":
        """The world once the job has been carried out, or the code of the error with which it fails in this one."""
        request, blobs = job.arguments, dict(self.blobs)
        storage = request.get("storage", "default")
        target = request.get("dest_storage") or storage, str(request.get("dest_path") or request.get("path"))
        there = blobs.get(target)
        may_write = request.get("overwrite", True) or there is None
        match job.operation:
            case "put_content" | "write_stream":
                if not may_write:
                    return "blob_exists"
                offset = request.get("offset", 0)
                blobs[target] = (there or b"")[:offset].ljust(offset, b"\0") + self._source(job)
            case "read_stream":
                blobs[FILES, request["dest"]] = _fixture(*target)[request.get("offset", 0) :]
            case "move":
                source = storage, request["source_path"]
                if source not in blobs:
                    return "path_not_found"
                if not may_write:
                    return "blob_exists"
                blobs[target] = blobs.pop(source)
            case "delete":
                storage, path = target
                gone = [place for place in blobs if place[0] == storage and f"{place[1]}/".startswith(f"{path}/")]
                if not gone:
                    return "path_not_found"
                for place in gone:
                    del blobs[place]
        return World(blobs)

    def _source(self, job: Spec) -> bytes:
        source = str(job.arguments.get("source", ""))
        if source.startswith("blob://"):
            storage, _, path = source.removeprefix("blob://").partition("/")
            return _fixture(storage, f"/{path}")
        return content(job.name, job.size or 0)


def _fixture(storage: str, path: str) -> bytes:
    return content(*FIXTURES[storage, path])
