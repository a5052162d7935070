"""The root directory: all that a driver ever names lies below it, and nothing of it shows in a path."""

import pytest

from tests.doubles import Call, RecordingStore
from tests.driver.blobs_and_readers import Breaking, MakeDriver, Reading, content, data, keys, put
from tests.driver.store_kinds import MIN, PART, cases
from worker.driver import Driver
from worker.errors import PathNotFoundError, SourceUnavailableError
from worker.stores.store import Store

pytestmark = pytest.mark.no_cover


def keys_named(call: Call) -> list[str]:
    """Every key and prefix in a call."""
    match call.verb:
        case "delete_batch":
            return list(call.args[0])
        case "copy" | "copy_part":
            return [call.args[0], call.args[1 if call.verb == "copy" else 3]]
        case "presign":
            return [call.args[1]]
        case "list_uploads":
            return [call.args[0] if call.args else call.keywords.get("prefix", "")]
        case _:
            return [call.args[0]]


def do_everything(driver: Driver) -> None:
    """All nine operations, in all their ways."""
    driver.put_content("/a", data(10))
    driver.put_content("/large", data(3 * PART))
    driver.get_content("/a")
    with driver.read_stream("/large", 3) as stream:
        stream.read()
    driver.write_stream("/a", 5, Reading(data(10)))
    driver.write_stream("/large", 2 * PART, Reading(data(3 * PART)))
    driver.write_stream("/large", MIN, Reading(b""))
    with pytest.raises(SourceUnavailableError):
        driver.write_stream("/a", 0, Breaking(data(2 * PART), OSError()))
    driver.write_stream("/large", 0, Reading(data(5 * PART)))
    for path in ("/", "/a"):
        driver.stat(path)
    driver.list("/")
    for operation in (driver.stat, driver.list, driver.delete):
        with pytest.raises(PathNotFoundError):
            operation("/missing")
    driver.move("/a", "/b")
    driver.move("/large", "/a/large")
    driver.put_content("/b/c", b"x")
    driver.delete("/b")
    driver.delete("/a")


@pytest.mark.every_run_on("moto")
def test_no_request_names_anything_outside_of_the_root(recorded: RecordingStore, on: MakeDriver, root: str) -> None:
    do_everything(on(recorded))
    named = [(call.verb, key) for call in recorded.calls for key in keys_named(call)]
    assert [(verb, key) for verb, key in named if not key.startswith(f"{root}/")] == []


@pytest.mark.every_run_on("local", "moto", "swift")
def test_another_root_is_another_world(store: Store, on: MakeDriver, root: str) -> None:
    one, two, beside = on(store, f"{root}/one"), on(store, f"{root}/two"), on(store, f"{root}/one2")
    for driver in (one, two, beside):
        put(driver, "/a", driver.key("/a").encode())
    assert (one.get_content("/a"), one.list("/")) == (f"{root}/one/a".encode(), ["/a"])
    one.delete("/a")
    assert (keys(one), keys(two), keys(beside)) == ([], ["a"], ["a"])
    assert two.get_content("/a") == f"{root}/two/a".encode()


@cases("spelling", ["/{}/a.b/c_d/"], ["{}", "/{}", "{}/", "/{}/", "//{}//", "{}/a/b"])
def test_slashes_around_a_root_make_no_difference(store: Store, on: MakeDriver, root: str, spelling: str) -> None:
    driver = on(store, spelling.format(root))
    driver.put_content("/x/y", b"z")
    assert driver.key("/x/y") == spelling.format(root).strip("/") + "/x/y"
    assert (driver.list("/"), driver.list("/x"), driver.stat("/").is_dir) == (["/x"], ["/x/y"], True)


@cases("spelling", [""], ["/", "//"])
def test_without_a_root_keys_are_paths(store: Store, on: MakeDriver, root: str, spelling: str) -> None:
    driver = on(store, spelling)
    driver.put_content(f"/{root}/a", b"x")
    assert driver.key(f"/{root}/a") == f"{root}/a"
    assert f"/{root}" in driver.list("/")
    assert driver.list(f"/{root}") == [f"/{root}/a"]
    assert driver.stat("/").is_dir
    driver.move(f"/{root}/a", f"/{root}/b")
    assert content(driver, f"/{root}/b") == b"x"
    driver.delete(f"/{root}")
    assert f"/{root}" not in driver.list("/")


def test_an_empty_root_beside_others_lists_as_empty(driver: Driver, on: MakeDriver, root: str) -> None:
    for beside in ("x", "-1"):
        put(on(driver.store, f"{root}{beside}"), "/a", b"x")
    assert (driver.list("/"), driver.stat("/").is_dir) == ([], True)


def test_the_marker_of_the_root_is_not_listed(driver: Driver, root: str) -> None:
    driver.store.put(f"{root}/", b"")
    assert driver.list("/") == []
    driver.put_content("/a", b"x")
    assert driver.list("/") == ["/a"]


@pytest.mark.every_run_on("local", "swift")
def test_a_root_may_hold_what_a_path_may_not(store: Store, on: MakeDriver, root: str) -> None:
    driver = on(store, f"{root}/with blank+ü")
    driver.put_content("/a", data(3 * PART))
    driver.move("/a", "/b")
    driver.write_stream("/b", 2 * PART, Reading(data(10)))
    assert content(driver, "/b") == data(3 * PART)[: 2 * PART] + data(10)
    assert driver.list("/") == ["/b"]
