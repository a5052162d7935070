"""drain: the worker's own code, in the process of the test, on a store in memory or in a directory."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from blobferry import Client, ConfigurationError, PathNotFoundError
from blobferry.testing import FerryKit, recording


@pytest.fixture
def kit(ferry: Client) -> Iterator[FerryKit]:
    with recording(ferry) as kit:
        yield kit


def test_all_due_jobs_run_in_order_and_their_blobs_are_there(kit: FerryKit, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"bytes")
    first = kit.ferry.write_stream("/a", tmp_path / "source")
    then = kit.ferry.move("/a", "/b")
    last = kit.ferry.read_stream("/b", tmp_path / "dest")
    copied = kit.ferry.write_stream("/c", "blob://cold/there", storage="warm")
    kit.driver("cold").put_content("/there", b"elsewhere")
    ran = kit.drain()
    assert {job.id for job in ran} == {first.id, then.id, last.id, copied.id}
    assert {job.state for job in ran} == {"succeeded"}
    assert (tmp_path / "dest").read_bytes() == b"bytes"
    assert kit.driver("warm").get_content("/c") == b"elsewhere"
    assert kit.drain() == []


def test_a_read_is_answered_from_the_store_of_the_test(kit: FerryKit) -> None:
    kit.ferry.put_content("/a/b", b"bytes")
    kit.drain()
    assert kit.ferry.get_content("/a/b") == b"bytes"
    assert kit.ferry.stat("/a/b").size == 5
    assert kit.ferry.list("/a") == ["/a/b"]
    assert kit.ferry.url_for("/a/b", {"expiry": 60}) == "https://default.invalid/a/b?method=GET&expires=60"
    upload = kit.ferry.url_for("/a/c", {"method": "PUT", "content-type": "image/png"}, storage="cold")
    assert upload.startswith("https://cold.invalid/a/c?method=PUT")
    assert upload.headers == {"content-type": "image/png"}
    with pytest.raises(PathNotFoundError):
        kit.ferry.stat("/c")


def test_a_job_fails_as_in_life(kit: FerryKit, tmp_path: Path) -> None:
    kit.ferry.write_stream("/a", tmp_path / "missing", on_failed={"task": "shop.lost"})
    (job,) = kit.drain()
    assert (job.state, job.error_code) == ("failed", "source_not_found")
    assert [callback.task for callback in kit.callbacks] == ["shop.lost"]


def test_requests_of_the_client_are_applied(kit: FerryKit) -> None:
    cancelled, paused = (
        kit.ferry.delete("/a", on_failed={"task": "shop.lost"}),
        kit.ferry.put_content("/b", b"bytes"),
    )
    kit.ferry.cancel(cancelled.id)
    kit.ferry.pause(paused.id)
    kit.drain()
    assert (kit.ferry.get(cancelled.id).state, kit.ferry.get(paused.id).state) == ("cancelled", "paused")
    assert [callback.event["state"] for callback in kit.callbacks] == ["cancelled"]
    kit.ferry.resume(paused.id)
    assert [job.state for job in kit.drain()] == ["succeeded"]


def test_a_job_for_later_runs_if_the_test_says_so(kit: FerryKit) -> None:
    later = kit.ferry.put_content("/a", b"bytes", not_before=timedelta(days=1))
    assert kit.drain() == []
    assert [job.id for job in kit.drain(scheduled=True)] == [later.id]
    assert kit.ferry.get(later.id).state == "succeeded"


def test_many_jobs_are_drained(kit: FerryKit) -> None:
    for number in range(50):
        kit.ferry.put_content(f"/{number}", b"bytes")
    assert [job.state for job in kit.drain()] == ["succeeded"] * 50


def test_a_spooled_upload_is_taken_and_removed(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    with recording() as own, Client.from_env({**own.variables, "BLOBFERRY_SPOOL_DIR": str(tmp_path / "spool")}) as app:
        (tmp_path / "upload").write_bytes(b"bytes")
        with recording(app) as kit:
            app.write_stream("/a", app.spool(tmp_path / "upload"))
            assert [job.state for job in kit.drain()] == ["succeeded"]
            assert kit.driver().get_content("/a") == b"bytes"
            assert [path for path in (tmp_path / "spool").iterdir() if path.is_file()] == []


def test_the_store_may_be_a_directory(ferry: Client, tmp_path: Path) -> None:
    storages = {"default": {"driver": "local", "rootdirectory": str(tmp_path)}}
    with recording(ferry, storages=storages) as kit:
        ferry.put_content("/a", b"bytes")
        kit.drain()
        assert [path.read_bytes() for path in (tmp_path / "files").iterdir()] == [b"bytes"]


def test_a_wrong_storage_is_reported_by_its_parameter(ferry: Client) -> None:
    with recording(ferry, storages={"default": {"driver": "tape"}}) as kit, pytest.raises(ConfigurationError):
        kit.drain()


def test_without_a_worker_the_error_says_what_to_install(kit: FerryKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "worker.inline_worker", None)  # as if it were not installed
    job = kit.ferry.delete("/a")
    for needs_it in (kit.drain, kit.driver, lambda: kit.ferry.stat("/a")):
        with pytest.raises(ImportError, match="install blobferry-worker"):
            needs_it()
    assert kit.finish(job).state == "succeeded"
