"""The operations of the driver, each with what lies there before and after it, for the matrix of faults."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.doubles import BytesSource
from tests.driver.blobs_and_readers import data, written
from tests.driver.proxied_pairs import FAR, MIN, PART, Blob
from worker.driver import Driver

SMALL, BIG = data(300, seed=1), data(5 * MIN + 20, seed=2)
NEW, LONG = data(200, seed=3), data(2 * PART + 100, seed=4)

Run = Callable[[Driver, Driver], Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the driver, with what lies there before and after."""

    name: str
    run: Run
    before: Mapping[str, Blob]
    after: Mapping[str, Blob] | None = None  #: None: as before
    answer: Any = None
    between: tuple[Mapping[str, Blob], ...] = field(default=())  #: what else an error may leave

    @property
    def sides(self) -> tuple[str, ...]:
        """The buckets that it touches."""
        return ("", FAR) if any(path.startswith(FAR) for path in self.after or ()) else ("",)


def reading(name: str, run: Run, answer: Any) -> Operation:
    return Operation(name, run, {"/a": Blob(BIG), "/d/e/f": Blob(SMALL)}, answer=answer)


def replacing(name: str, run: Run, old: bytes | None, new: Blob, answer: int | None = None) -> Operation:
    before = {"/b": Blob(SMALL)} | ({} if old is None else {"/a": Blob(old)})
    return Operation(name, run, before, before | {"/a": new}, answer)


def putting(name: str, old: bytes | None) -> Operation:
    return replacing(name, lambda near, far: near.put_content("/a", NEW), old, Blob(NEW, kept=False))


def writing(name: str, offset: int, reader: Callable[[bytes], Any], old: bytes | None, new: bytes) -> Operation:
    after = Blob(written(old, offset, new), kept=offset > 0)
    return replacing(name, lambda near, far: near.write_stream("/a", offset, reader(new)), old, after, len(new))


def moving(name: str, run: Run, content: bytes, dest: str = "/to", *, onto: bytes | None = None) -> Operation:
    others = {"/a/child": Blob(NEW)}
    source, target = others | {"/a": Blob(content)}, others | {dest: Blob(content)}
    before = source | ({} if onto is None else {dest: Blob(onto)})
    return Operation(name, run, before, target, between=(source | target,))


def read_to_the_end(driver: Driver, offset: int) -> bytes:
    with driver.read_stream("/a", offset) as stream:
        return stream.read()


def info(driver: Driver, path: str) -> tuple[int, bool]:
    found = driver.stat(path)
    return found.size, found.is_dir


TREE = {f"/d/{name}": Blob(SMALL) for name in ("1", "2", "e/3")} | {"/d": Blob(BIG)}
SIBLINGS = {"/d-": Blob(SMALL), "/d.txt": Blob(NEW)}

OPERATIONS = [
    reading("get_content", lambda near, far: near.get_content("/a"), BIG),
    reading("read_stream", lambda near, far: read_to_the_end(near, 100), BIG[100:]),
    reading("stat of a blob", lambda near, far: info(near, "/a"), (len(BIG), False)),
    reading("stat of a directory", lambda near, far: info(near, "/d"), (0, True)),
    reading("list", lambda near, far: near.list("/"), ["/a", "/d"]),
    putting("put_content, new", None),
    putting("put_content, over", BIG),
    writing("write small", 0, io.BytesIO, BIG, NEW),
    writing("write, reader", 0, io.BytesIO, None, LONG),
    writing("write, source", 0, BytesSource, BIG, LONG),
    writing("append, reader", len(BIG), io.BytesIO, BIG, NEW),
    writing("overwrite from the middle, source", 900, BytesSource, BIG, LONG),
    writing("behind a gap, reader", 800, io.BytesIO, SMALL, NEW),
    moving("move small", lambda near, far: near.move("/a", "/to"), SMALL),
    moving("move in parts", lambda near, far: near.move("/a", "/to"), BIG, onto=SMALL),
    moving("move small elsewhere", lambda near, far: near.move("/a", "/to", dest=far), SMALL, FAR + "/to"),
    moving("move in parts elsewhere", lambda near, far: near.move("/a", "/to", dest=far), BIG, FAR + "/to", onto=SMALL),
    Operation("delete a blob", lambda near, far: near.delete("/a"), {"/a": Blob(BIG)} | SIBLINGS, SIBLINGS),
    Operation("delete a directory", lambda near, far: near.delete("/d"), TREE | SIBLINGS, SIBLINGS),
]
