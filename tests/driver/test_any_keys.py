"""``keys = "any"``: what other programs have stored is named, listed, read, moved and deleted as it is."""

import unicodedata
from typing import Any

import pytest

from tests.doubles import RecordingStore
from tests.driver.blobs_and_readers import MakeDriver, Reading, data, keys, put
from tests.driver.store_kinds import COPYING, cases
from tests.fetching import fetch
from worker.driver import Driver
from worker.errors import InvalidPathError
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine

pytestmark = pytest.mark.no_cover

LARGE = 2 * COPYING.threshold + 13
NAMES = {
    "a blank": "my video.mp4",
    "blanks at both ends": " a ",
    "a plus sign": "a+b",
    "a percent sign": "100%",
    "an escape": "a%2Fb%20c%zz",
    "accents": "café",
    "accents apart": unicodedata.normalize("NFD", "café"),
    "an emoji of several": "👩‍👩‍👧",
    "another script": "видео 動画",
    "right to left": "\u202eabc",
    "marks of XML": "<a & 'b' \"c\">",
    "marks of URLs": "a?b=c#d;e:f@g",
    "brackets": "[a]{b}|c^d`e~f*g!h$i,j(k)=l",
    "a backslash": "a\\b",
    "a line separator": "a\u2028b",
    "three dots": "...",
    "the highest": "\U0010ffff\uffff",
}
#: Swift's own listings or paths cannot hold these.
ON_SERVERS = {name: NAMES[name] for name in NAMES if name not in ("the highest",)}


@pytest.fixture
def anything(store: Store, root: str, engine: Engine) -> Driver:
    return Driver(store, root=root, engine=engine, copying=COPYING, keys="any")


@cases("name", ON_SERVERS, NAMES)
@pytest.mark.every_run_on("local", "moto", "swift")
def test_any_name_is_written_found_listed_read_moved_and_deleted(anything: Driver, name: str) -> None:
    path, moved = f"/d {name}/{name}", f"/{name}"
    put(anything, path, data(LARGE))
    put(anything, f"{path}/below", b"x")
    assert anything.list("/") == [f"/d {name}"]
    assert anything.list(f"/d {name}") == [path]
    assert (anything.stat(path).size, anything.stat(f"/d {name}").is_dir) == (LARGE, True)
    assert anything.get_content(path) == data(LARGE)
    anything.move(path, moved)
    anything.put_content(path, b"small")
    anything.move(path, f"{moved}+")
    assert anything.write_stream(moved, 10, Reading(b"end")) == 3
    assert anything.get_content(moved) == data(LARGE)[:10] + b"end"
    assert keys(anything) == sorted([f"d {name}/{name}/below", name, f"{name}+"], key=str.encode)
    anything.delete(f"/d {name}")
    anything.delete(moved)
    assert keys(anything) == [f"{name}+"]
    anything.delete(f"{moved}+")


@pytest.mark.parametrize("kind", ["moto", "swift"])
@pytest.mark.parametrize("name", ON_SERVERS.values(), ids=ON_SERVERS)
@pytest.mark.every_run_on("moto", "swift")
def test_any_name_has_a_url(anything: Driver, name: str) -> None:
    put(anything, f"/{name}", data(50))
    assert fetch(anything.url_for(f"/{name}"))[:2] == (200, data(50))


CONTROL = r"holds '.*', and components hold no control characters"
#: By what is wrong: the path, and what the error says.
NEVER: dict[str, tuple[Any, str]] = {
    "empty": ("", "begins with '/'"),
    "relative": ("a b", "begins with '/'"),
    "an empty component": ("/a//b", "has an empty component"),
    "a trailing slash": ("/a /", "ends with '/'"),
    "one dot": ("/ä/.", "has the component '.'"),
    "two dots": ("/ä/../b", "has the component '..'"),
    "a line end": ("/a\nb", CONTROL),
    "a final line end": ("/a\n", CONTROL),
    "a tab": ("/a\tb", CONTROL),
    "a zero byte": ("/a\0b", CONTROL),
    "delete": ("/a\x7f", CONTROL),
    "a C1 control": ("/a\x85b", CONTROL),
    "a surrogate": ("/\ud800", CONTROL),
    "too many bytes": ("/" + "ä" * 513, "more than 1,024 bytes"),
    "no text": (b"/a", "is a string, not of type bytes"),
    "None": (None, "is a string, not of type NoneType"),
}


@pytest.mark.parametrize(("path", "says"), NEVER.values(), ids=NEVER)
def test_what_no_key_should_be_is_refused_and_no_request_is_sent(
    store: Store, root: str, engine: Engine, path: Any, says: str
) -> None:
    recorded = RecordingStore(store)
    driver = Driver(recorded, root=root, engine=engine, keys="any")
    with pytest.raises(InvalidPathError, match=says) as caught:
        driver.get_content(path)
    assert (caught.value.path, caught.value.keys, caught.value.driver) == (path, "any", store.name)
    assert recorded.calls == []


def test_a_key_may_have_all_of_its_1024_bytes(store: Store, engine: Engine, on: MakeDriver, root: str) -> None:
    driver = Driver(store, engine=engine, keys="any")
    longest = f"/{root}/" + "ä" * ((1_024 - len(root) - 1) // 2)
    assert len(driver.key(longest).encode()) in (1_023, 1_024)
    driver.put_content(longest, b"x")
    assert driver.get_content(longest) == b"x"
    driver.delete(longest)
    with pytest.raises(InvalidPathError):
        driver.key(longest + "ää")


def test_without_any_keys_the_error_names_the_setting(driver: Driver) -> None:
    with pytest.raises(
        InvalidPathError, match=r'ASCII letters, digits.*\(keys = "registry"\).*keys = "any" takes them'
    ):
        driver.stat("/a b")


def test_the_parameter_decides(root: str) -> None:
    given = {"driver": "memory"}
    assert Driver.from_parameters(given | {"keys": "any"}).key("/a b") == "a b"
    with pytest.raises(InvalidPathError):
        Driver.from_parameters(given).key("/a b")
