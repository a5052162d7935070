"""A file system in a dict against the driver: random operations, of which no outcome may differ.

Each sequence has an empty root directory of its own. After every step the paths that it named are compared and no
upload may be open; after every sequence everything is.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.doubles import BytesSource
from tests.driver.blobs_and_readers import Breaking, MakeDriver, Reading, content, data, keys, written
from tests.driver.store_kinds import MIN, PART
from worker.driver import Driver
from worker.errors import (
    BlobExistsError,
    BlobferryError,
    InvalidOffsetError,
    InvalidPathError,
    PathNotFoundError,
    SourceUnavailableError,
    UnsupportedMethodError,
)
from worker.stores.store import Store

pytestmark = pytest.mark.no_cover

# Names that begin with each other, and those that sort before and after the slash.
PATHS = ["/a", "/ab", "/a-b", "/a.b", "/a0", "/a/b", "/a/b/c", "/a/-", "/a-b/c", "/b", "/b/c"]
BAD = ["", "/", "a", "/a/", "/a//b", "/a/..", "/a\n"]
SIZES = sorted({0, 1, 2, MIN - 1, MIN, MIN + 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, 3 * PART + 7})

Outcome = tuple[str, Any]
"""What an operation answered, or the error that it raised."""


@dataclass
class Model:
    """What the contract says, in a dict. Markers are keys with a slash at their end."""

    has_urls: bool
    blobs: dict[str, bytes] = field(default_factory=dict)

    def is_directory(self, path: str) -> bool:
        return path == "/" or any(key.startswith(path + "/") for key in self.blobs)

    def get_content(self, path: str) -> Outcome:
        return ("answer", self.blobs[path]) if path in self.blobs else ("missing", path)

    def read_stream(self, path: str, offset: int) -> Outcome:
        if offset < 0:
            return ("offset", offset)
        return ("answer", self.blobs[path][offset:]) if path in self.blobs else ("missing", path)

    def put_content(self, path: str, contents: bytes, overwrite: bool) -> Outcome:
        return self.write_stream(path, 0, contents, "reader", overwrite, put=True)

    def write_stream(
        self, path: str, offset: int, contents: bytes, reader: str, overwrite: bool, *, put: bool = False
    ) -> Outcome:
        if offset < 0:
            return ("offset", offset)
        if not overwrite and path in self.blobs:
            return ("exists", None)
        if reader == "broken":
            return ("source", len(contents))
        self.blobs[path] = written(self.blobs.get(path), offset, contents)
        return ("answer", None if put else len(contents))

    def stat(self, path: str) -> Outcome:
        if path in self.blobs:
            return ("answer", (path, len(self.blobs[path]), False, True))
        return ("answer", (path, 0, True, False)) if self.is_directory(path) else ("missing", path)

    def list(self, path: str) -> Outcome:
        if not self.is_directory(path):
            return ("missing", path)
        prefix = path.rstrip("/") + "/"
        names = {key[len(prefix) :].partition("/")[0] for key in self.blobs if key.startswith(prefix)}
        return ("answer", sorted(prefix + name for name in names if name))

    def move(self, source: str, dest: str, overwrite: bool) -> Outcome:
        if source not in self.blobs:
            return ("missing", source)
        if source != dest:
            if not overwrite and dest in self.blobs:
                return ("exists", None)
            self.blobs[dest] = self.blobs.pop(source)
        return ("answer", None)

    def delete(self, path: str) -> Outcome:
        gone = [key for key in self.blobs if key == path or key.startswith(path + "/")]
        for key in gone:
            del self.blobs[key]
        return ("answer", None) if gone else ("missing", path)

    def url_for(self, path: str) -> Outcome:
        return ("answer", "a URL") if self.has_urls else ("unsupported", None)

    def mark(self, path: str) -> Outcome:
        self.blobs[path + "/"] = b""
        return ("answer", None)


@dataclass
class Real:
    """The same operations of a driver; those that need no translation are the driver's own."""

    driver: Driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    def read_stream(self, path: str, offset: int) -> Any:
        with self.driver.read_stream(path, offset) as stream:
            return stream.read()

    def put_content(self, path: str, contents: bytes, overwrite: bool) -> Any:
        return self.driver.put_content(path, contents, overwrite=overwrite)

    def write_stream(self, path: str, offset: int, contents: bytes, reader: str, overwrite: bool) -> Any:
        readers: dict[str, Callable[[], Any]] = {
            "reader": lambda: Reading(contents),
            "short reads": lambda: Reading(contents, most=300),
            "source": lambda: BytesSource(contents),
            "broken": lambda: Breaking(contents, OSError("gone")),
        }
        return self.driver.write_stream(path, offset, readers[reader](), overwrite=overwrite)

    def stat(self, path: str) -> Any:
        found = self.driver.stat(path)
        return (found.path, found.size, found.is_dir, found.mod_time is not None)

    def list(self, path: str) -> Any:
        return sorted(self.driver.list(path))

    def move(self, source: str, dest: str, overwrite: bool) -> Any:
        return self.driver.move(source, dest, overwrite=overwrite)

    def url_for(self, path: str) -> Any:
        assert self.driver.url_for(path).startswith("http")
        return "a URL"

    def mark(self, path: str) -> Any:
        self.driver.store.put(self.driver.key(path) + "/", b"")


#: The model's word for an error, and what it must tell.
WORDS: dict[type[BlobferryError], tuple[str, str | None]] = {
    PathNotFoundError: ("missing", "path"),
    InvalidPathError: ("path", "path"),
    InvalidOffsetError: ("offset", "offset"),
    BlobExistsError: ("exists", None),
    UnsupportedMethodError: ("unsupported", None),
    SourceUnavailableError: ("source", "total_read"),
}


def outcome(work: Callable[[], Any]) -> Outcome:
    """What the work answers, in the model's words."""
    try:
        return ("answer", work())
    except BlobferryError as error:
        word, name = next((found for kind, found in WORDS.items() if isinstance(error, kind)), (repr(error), None))
        return (word, name and getattr(error, name))


def first_bad(step: tuple[Any, ...]) -> str | None:
    """The first path of a step that is no path for it."""
    name, paths = step[0], step[1:3] if step[0] == "move" else step[1:2]
    good = ("/",) if name in ("list", "stat") else ()
    return next((path for path in paths if path in BAD and path not in good), None)


path = st.sampled_from(PATHS)
any_path = st.sampled_from(PATHS * 2 + BAD)
size = st.sampled_from(SIZES)
offset = st.one_of(st.just(0), size, st.sampled_from([-1, "end", "end-1", "end+1"]))
overwrite = st.sampled_from([True, True, True, False])
reader = st.sampled_from(["reader", "short reads", "source"])
STEP = st.one_of(
    st.tuples(st.just("put_content"), any_path, size, overwrite),
    st.tuples(st.just("write_stream"), path, offset, size, reader, overwrite),
    st.tuples(st.just("write_stream"), path, offset, size, st.sampled_from(["broken", "reader"]), st.just(True)),
    st.tuples(st.just("write_stream"), any_path, offset, size, reader, overwrite),
    st.tuples(st.just("move"), path, path, overwrite),
    st.tuples(st.just("move"), any_path, any_path, overwrite),
    st.tuples(st.just("delete"), any_path),
    st.tuples(st.just("get_content"), any_path),
    st.tuples(st.just("read_stream"), any_path, offset),
    st.tuples(st.just("stat"), any_path),
    st.tuples(st.just("list"), any_path),
    st.tuples(st.just("url_for"), any_path),
    st.tuples(st.just("mark"), path),
)


def concrete(step: tuple[Any, ...], model: Model, seed: int) -> tuple[Any, ...]:
    """The step with its bytes, and with offsets that say "end" in numbers."""
    name, *arguments = step
    if name in ("write_stream", "read_stream") and isinstance(arguments[1], str):
        end = len(model.blobs.get(arguments[0], b""))
        arguments[1] = max(end + {"end": 0, "end-1": -1, "end+1": 1}[arguments[1]], 0)
    if name in ("write_stream", "put_content"):
        position = 2 if name == "write_stream" else 1
        arguments[position] = data(arguments[position], seed)
    return (name, *arguments)


@dataclass
class Comparison:
    """Sequences of steps on one store, each below an empty root of its own."""

    store: Store
    on: MakeDriver
    root: str
    has_urls: bool
    steps: int = 0
    roots: Iterator[int] = field(default_factory=itertools.count)

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        driver = self.on(self.store, f"{self.root}/{next(self.roots)}")
        model, real = Model(self.has_urls), Real(driver)
        for step in steps:
            self.steps += 1
            name, *arguments = concrete(step, model, self.steps)
            shown = f"{name} {[len(a) if isinstance(a, bytes) else a for a in arguments]}"
            bad = first_bad((name, *arguments))
            expected: Outcome = ("path", bad) if bad is not None else getattr(model, name)(*arguments)
            assert outcome(lambda: getattr(real, name)(*arguments)) == expected, shown  # noqa: B023  called at once
            for named in [each for each in arguments if each in PATHS]:
                assert content(driver, named) == model.blobs.get(named), f"{named} after {shown}"
            assert [entry.key for entry in self.store.list_uploads(self.root)] == [], f"open uploads after {shown}"
        assert keys(driver) == sorted(key[1:] for key in model.blobs)
        blobs = {key: blob for key, blob in model.blobs.items() if not key.endswith("/")}
        assert {key: content(driver, key) for key in blobs} == blobs


LENGTH = 50  #: steps of one sequence
SEQUENCES = {"memory": 100, "local": 100, "moto": 6}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_the_driver_does_what_the_model_does(store: Store, kind: str, on: MakeDriver, root: str) -> None:
    comparison = Comparison(store, on, root, has_urls=kind == "moto")

    @settings(
        max_examples=SEQUENCES[kind],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if kind == "memory" else [Phase.generate],
    )
    @given(st.lists(STEP, min_size=LENGTH, max_size=LENGTH))
    def check(steps: list[tuple[Any, ...]]) -> None:
        comparison.run(steps)

    check()
    assert comparison.steps >= SEQUENCES[kind] * LENGTH


@pytest.mark.parametrize("other", PATHS)
def test_the_model_itself_knows_what_a_sibling_is(other: str) -> None:
    model = Model(has_urls=False, blobs={other: b"x"})
    assert model.is_directory("/a") == other.startswith("/a/")
