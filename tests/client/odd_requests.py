"""Requests of every shape, as Hypothesis draws them: mostly good ones with one to three things wrong, some wholly odd.

What they hold need not be JSON, unless it is to go into a message.
"""

import array
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from blobferry.contract import OPERATIONS, READS, Operation
from blobferry.redaction import short_repr

MIB: Final = 1024 * 1024
Odd = st.SearchStrategy[Any]
ALL: Final[Mapping[str, Operation]] = {**OPERATIONS, **READS}


class Call(NamedTuple):
    """An operation, and what is given to it."""

    operation: str
    arguments: dict[str, Any]

    def __repr__(self) -> str:
        cut = {name[:99]: short_repr(value) for name, value in self.arguments.items()}
        return f"{self.operation} {cut}"


class Word(str):
    """Text, and not quite."""

    __slots__ = ()


class Choice(StrEnum):
    """A web framework's choice field."""

    PATH = "/choice"
    STORAGE = "archive"


class Level(IntEnum):
    """The same for numbers."""

    HIGH = 7


class Nowhere(tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None


class Broken:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __bool__(self) -> bool:
        raise ZeroDivisionError


def _deep(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def _endless() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["labels"] = endless
    return endless


# --- what is good --------------------------------------------------------------------------------------------------

_PATHS: Final = st.sampled_from(
    ["/a", "/videos/7.mp4", "/A-Z_0.9/x", "/...", "/" + "x" * 1023, Choice.PATH, Word("/w")]
)
_MOMENTS: Final = st.sampled_from(
    [
        datetime(2030, 1, 1, tzinfo=UTC),
        datetime(2031, 5, 1, 6, tzinfo=timezone(timedelta(hours=-11, seconds=7))),
        "2030-01-01T00:00:00+14:00",
        "2030-01-01T00:00:00.000001Z",
        "9999-12-30T00:00:00Z",
    ]
)
_TEXTS: Final = st.dictionaries(st.text("ab☃ ", max_size=3), st.text("xyz☃'\"\\\n", max_size=5), max_size=3)
_OPTIONS: Final = st.fixed_dictionaries({}, optional={"method": st.sampled_from(["GET", "HEAD"]), "expiry": _MOMENTS})

_CALLBACKS: Final = st.sampled_from([None, {"task": "shop.stored", "args": [7], "options": {"queue": "shop"}}])
GOOD: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "on_done": _CALLBACKS,
    "on_failed": _CALLBACKS,
    "path": _PATHS,
    "paths": st.lists(_PATHS, min_size=1, max_size=3),
    "source_path": _PATHS,
    "dest_path": _PATHS,
    "contents": st.binary(max_size=9) | st.sampled_from([bytearray(b"x"), {"base64": "YWI="}, array.array("H", [1])]),
    "source": st.sampled_from(
        [
            "file:///srv/a%20b",
            "blob://default/a",
            "http://127.0.0.1:9/a?b=c",
            "https://u:p@127.0.0.1/a?X-Amz-Signature=s",
        ]
    ),
    "dest": st.sampled_from(["file:///srv/out/a", "file:/srv/ä"]),
    "offset": st.integers(0, 9) | st.sampled_from([5 * 1024**4, Level.HIGH]),
    "overwrite": st.booleans(),
    "metadata": st.sampled_from([{"a": "b"}, {}, None, {"x-1": "y z"}]),
    "content_type": st.sampled_from(["video/mp4", "a", None]),
    "dest_storage": st.sampled_from(["archive", None, "default", Choice.STORAGE]),
    "options": _OPTIONS | st.none(),
    "after": st.sampled_from(["/a", "/ä ☃", None, Word("/w")]),
    "limit": st.integers(1, 10_000) | st.none(),
    "storage": st.sampled_from(["default", "archive", Choice.STORAGE]),
    "idempotency_key": st.sampled_from(["video-7", "ä☃", "k" * 255, "%s'\"", None]) | st.integers().map(str),
    "priority": st.integers(0, 9) | st.just(Level.HIGH),
    "not_before": _MOMENTS | st.none(),
    "deadline": _MOMENTS | st.none(),
    "labels": _TEXTS | st.none(),
    "reuse": st.sampled_from(["failed", None]),
    "webhook": st.sampled_from(["https://shop.example/hook", "http://u:p@127.0.0.1:9/a?b=c", None]),
    "webhook_secret": st.sampled_from(["default", "billing", None]),
    "recursive": st.booleans() | st.none(),
    "delete_source": st.booleans() | st.none(),
}

# --- what is odd ---------------------------------------------------------------------------------------------------

_LETTERS: Final = st.sampled_from(
    [*"/.:@?#&%=[]\\{}'\"-_ aZ0", "\0", "\n", "\r", "\x1b", "\x7f", "\ud800", "\udc80", "ä", "☃"]
)
_WORDS: Final = st.one_of(
    st.text(_LETTERS, max_size=12),
    st.text(_LETTERS, max_size=9).map(lambda text: "/" + text),
    st.sampled_from(["", "/", "//", "/a/../b", "/a/./b", "/.", "/a/", "/a\n", "/ä", "\u202e/a", "/" + "x" * 1024]),
    st.sampled_from(["x" * 156, "x" * 256, "/" + "a" * MIB, "☃" * MIB, "\ud800" * 99, "nan", "Infinity", "true", "5"]),
    st.sampled_from(
        ["DROP TABLE blobferry_jobs; --", "%(x)s", "{0}", "$1", "session", "default\n", "archive ", "__class__"]
    ),
)
_URLS: Final = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["file:", "FILE:", "http:", "HTTPS:", "blob:", "ftp:", "data:", "javascript:", "sealed:", ""]),
        st.sampled_from(["//", "/", "", "///", "//127.0.0.1", "//127.0.0.1:0", "//[::1", "//[::1]:99999", "//u:p@"]),
        st.text(_LETTERS, max_size=9),
    ),
    st.sampled_from(["sealed:AAAA", "sealed:", "sealed:sealed:AAAA", "sealed:" + "A" * 20_000, {"sealed": "AAAA"}]),
    st.sampled_from(["http://127.0.0.1/" + "a" * MIB, "file:///%00", "blob://default/a/../b", "http://\u2100/", "//"]),
)
_NUMBERS: Final = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([-1, 2**31, 2**63, 2**64, 10_000 * 5 * 1024**3 + 1, 10**99, -(10**99), 10**5000, True, False]),
    st.sampled_from([float("nan"), float("inf"), -0.0, 1e308, 0.5]),
)
_TIMES: Final = st.one_of(
    st.sampled_from(["2030-01-01", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "soon", "2030-01-01T00:00:00+99:00"]),
    st.sampled_from(["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2030-W01-1T00Z"]),
)
_JSON_LEAVES: Final = st.none() | _WORDS | _URLS | _NUMBERS | _TIMES
_JSON: Final = st.one_of(
    _JSON_LEAVES,
    st.lists(_JSON_LEAVES, max_size=2),
    st.dictionaries(
        st.sampled_from(["base64", "method", "expiry", "sealed", "__type__", "a", ""]) | _WORDS,
        _JSON_LEAVES,
        max_size=2,
    ),
    st.sampled_from([_deep(50), {"base64": "A" * (2 * MIB)}, {str(number): "x" for number in range(5000)}]),
)
_OBJECTS: Final[st.SearchStrategy[Any]] = st.one_of(
    st.sampled_from([b"/a", bytearray(b"/a"), memoryview(b"abcd")[::2], bytes(MIB + 1), b"file:///srv/a"]),
    st.sampled_from(
        [{"a"}, frozenset({"a"}), ("a",), object(), Broken(), print, Ellipsis, 1j, range(3), ValueError("x")]
    ),
    st.sampled_from(
        [Word("/w"), Word("\ud800"), Choice.PATH, Level.HIGH, timedelta(1), UTC, MappingProxyType({"a": "b"})]
    ),
    st.sampled_from([_deep(100_000), {7: 8}, {None: "a"}, {"a": b"b"}, {b"a": "b"}, {("a",): "b"}]),
    st.builds(_endless),
)
_ANYTHING: Final = _JSON | _OBJECTS
_ODD_MOMENTS: Final = st.one_of(
    # Not sampled: Hypothesis would ask for their hashes.
    st.builds(datetime, st.just(2030), st.just(1), st.just(1), tzinfo=st.builds(Nowhere) | st.builds(tzinfo)),
    st.sampled_from([datetime(2030, 1, 1), datetime.max, datetime.min]),  # noqa: DTZ001, DTZ901
    st.sampled_from([datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]),
)
#: What is odd in just the way in which such an argument may be.
_PARTICULAR: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    **dict.fromkeys(("source", "dest", "webhook"), _URLS),
    **dict.fromkeys(("path", "source_path", "dest_path", "after", "storage", "dest_storage", "content_type"), _WORDS),
    "paths": st.lists(_WORDS, max_size=3),
    **dict.fromkeys(("offset", "limit", "priority"), _NUMBERS),
    **dict.fromkeys(("not_before", "deadline"), _TIMES | _ODD_MOMENTS),
    **dict.fromkeys(("labels", "metadata"), st.dictionaries(_WORDS, _WORDS | _NUMBERS, max_size=2)),
}

_KINDS: Final = (*("replace",) * 5, "spoil", "drop", "foreign", "unknown")
_RARELY: Final = st.sampled_from([False, False, True])
_FAULTS: Final = st.sampled_from([0, 1, 1, 1, 1, 2, 3])  #: one alone is not hidden behind another


def requests(names: tuple[str, ...], *, of_json: bool = False) -> st.SearchStrategy[Call]:
    """Requests for these operations, nine of ten of them good but for up to three things; ``of_json``: in a message."""
    odd = _JSON if of_json else _ANYTHING
    particular = _PARTICULAR if not of_json else {**_PARTICULAR, "not_before": _TIMES, "deadline": _TIMES}
    wild = st.builds(Call, st.sampled_from(names), st.dictionaries(_WORDS | st.sampled_from([*GOOD]), odd, max_size=5))
    return st.integers(0, 9).flatmap(lambda number: wild if number == 0 else _spoilt(names, odd, particular))


@st.composite
def _spoilt(draw: st.DrawFn, names: tuple[str, ...], odd: Odd, particular: Mapping[str, Odd]) -> Call:
    operation = ALL[draw(st.sampled_from(names))]
    others = [*operation.optional, *operation.options]
    given = [*operation.required, *(name for name in others if draw(_RARELY))]
    arguments = {name: draw(GOOD[name]) for name in given}
    for _ in range(draw(_FAULTS)):
        kind, name = draw(st.sampled_from(_KINDS)), draw(st.sampled_from([*operation.required, *others]))
        _spoil(draw, kind, name, arguments, particular.get(name, odd) if draw(st.booleans()) else odd)
    return Call(operation.name, arguments)


def _spoil(draw: st.DrawFn, kind: str, name: str, arguments: dict[str, Any], odd: Odd) -> None:
    """One thing goes wrong; now and then it is none."""
    match kind:
        case "replace":
            arguments[name] = draw(odd)
        case "drop":
            arguments.pop(name, None)
        case "foreign":
            other = draw(st.sampled_from([*GOOD]))
            arguments[other] = draw(GOOD[other])
        case "unknown":
            arguments[draw(_WORDS)] = draw(odd)
        case _ if isinstance(text := arguments.get(name), str):
            cut = draw(st.integers(0, len(text)))
            arguments[name] = text[:cut] + draw(_LETTERS) + text[cut:]


# --- a shell's -----------------------------------------------------------------------------------------------------

_TYPED_ODD: Final = st.one_of(_WORDS, _URLS.map(str), _TIMES, st.integers().map(str))
_FILES: Final = st.sampled_from(["-", "file:///srv/a", "https://u:p@h/a?b=c", "a.bin", "/" + "n" * 300, "x" * 5000, ""])
_TYPED_PATHS: Final = st.sampled_from(["/a", "/videos/7.mp4", "/", "a"])
_POSITIONAL: Final[Mapping[str, tuple[st.SearchStrategy[str], ...]]] = {
    "write": (_FILES, _TYPED_PATHS),
    "read": (_TYPED_PATHS, _FILES.filter(lambda file: file != "-")),
    "move": (_TYPED_PATHS, _TYPED_PATHS),
    **dict.fromkeys(("delete", "stat", "list", "url"), (_TYPED_PATHS,)),
    **dict.fromkeys(("status", "cancel", "pause", "resume", "retry"), (st.sampled_from(["job-1", "☃", "x" * 156]),)),
    **dict.fromkeys(("jobs", "uploads"), ()),
}
_CHOICES: Final[Mapping[str, st.SearchStrategy[str]]] = {
    "--storage": st.sampled_from(["default", "archive"]),
    "--label": st.sampled_from(["a=b", "☃=", "tenant=a=b"]),
    "--priority": st.integers(0, 9).map(str),
    "--not-before": st.sampled_from(["2030-01-01T00:00:00+14:00", "2030-01-01T00:00:00Z"]),
    "--deadline": st.sampled_from(["2030-01-01T00:00:00+14:00", "9999-12-30T00:00:00Z"]),
    "--idempotency-key": st.sampled_from(["video-7", "ä☃", "k" * 255]),
    "--offset": st.sampled_from(["0", "7", str(2**40)]),
    "--metadata": st.sampled_from(["a=b", "x-1=y z"]),
    "--content-type": st.just("video/mp4"),
    "--dest-storage": st.just("archive"),
    "--since": st.just("2030-01-01T00:00:00Z"),
    "--limit": st.sampled_from(["1", "10000"]),
    "--under": _TYPED_PATHS,
}
_FLAGS: Final = ("--json", "--no-overwrite", "--all", "--help")
_OF_JOBS: Final = ("--storage", "--label", "--priority", "--not-before", "--deadline", "--idempotency-key")
_FITTING: Final[Mapping[str, tuple[str, ...]]] = {
    "write": (*_OF_JOBS, "--offset", "--metadata", "--content-type"),
    "read": (*_OF_JOBS, "--offset"),
    "move": (*_OF_JOBS, "--dest-storage"),
    "delete": _OF_JOBS,
    "jobs": ("--storage", "--label", "--since", "--limit", "--under"),
}


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """Words behind ``blobferry``, as an operating system passes them on. None of them waits for anything."""
    name = draw(st.sampled_from([*_POSITIONAL]))
    words = [draw(word) for word in _POSITIONAL[name]]
    options = st.sampled_from(_FITTING.get(name, ("--storage",)))
    for option in draw(st.lists(options, max_size=3)):
        words += [option, draw(_CHOICES[option])]
    if draw(st.booleans()):
        words.append("--json")
    for kind in draw(st.lists(st.sampled_from(["replace", "replace", "insert", "drop", "option", "flag"]), max_size=3)):
        place = draw(st.integers(0, len(words)))
        match kind:
            case "insert":
                words.insert(place, draw(_TYPED_ODD))
            case "option":
                option = draw(st.sampled_from([*_CHOICES]))
                words += [option, draw(_CHOICES[option] | _TYPED_ODD)]
            case "flag":
                words.insert(place, draw(st.sampled_from(_FLAGS)))
            case "replace" | "drop" if place < len(words):
                words[place : place + 1] = [draw(_TYPED_ODD)] if kind == "replace" else []
    if name in ("stat", "list", "url"):
        words += ["--timeout", "0"]
    return [name, *(_typed(word) for word in words)]


def _typed(word: str) -> str:
    """The word as it can be typed: bytes that are no UTF-8 arrive as lone surrogates, zero bytes never."""
    return word.replace("\0", "").replace("\ud800", "\udcff")[:100_000]


# --- a message's ---------------------------------------------------------------------------------------------------


class Envelope(NamedTuple):
    """What a bare message says besides the arguments."""

    task_id: Any
    headers: dict[str, Any]
    options: dict[str, Any]  #: as Celery's request has them

    def __repr__(self) -> str:
        return f"{short_repr(self.task_id)} {short_repr(self.headers)} {short_repr(self.options)}"


_IDS: Final = st.uuids(version=4).map(str)
_ODD_IDS: Final = st.one_of(st.integers(), _WORDS, st.none(), st.just([]), st.just({"a": 1}), st.just("order 7/☃"))
_HEADERS: Final = st.fixed_dictionaries(
    {}, optional={"blobferry_row": st.just(True) | _JSON, "publish_seq": st.just(0) | _JSON}
)
_OPTIONS_KEPT: Final = ("callbacks", "errbacks", "chain", "chord", "group", "group_index", "parent_id", "root_id")


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    """Half of them as Celery's ``send_task`` makes them."""
    if draw(st.booleans()):
        return Envelope(draw(_IDS), {}, {})
    task_id = draw(_IDS | _ODD_IDS)
    headers = draw(st.just({}) | _HEADERS)
    return Envelope(task_id, headers, draw(st.dictionaries(st.sampled_from(_OPTIONS_KEPT), _JSON, max_size=2)))
