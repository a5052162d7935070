"""The view that apps may join."""

from sqlalchemy import text

from blobferry import Client
from tests.client.conftest import SOURCE, Site
from tests.client.test_finished import end_now, run

COLUMNS = (
    *("job_id", "operation", "storage", "path", "state", "is_final", "size", "bytes_done", "error_code"),
    *("error_message", "labels", "created_at", "started_at", "finished_at"),
)


def test_the_view_has_these_columns_and_says_what_the_job_is(ferry: Client, site: Site) -> None:
    waiting = ferry.write_stream("/waits", SOURCE)
    end_now(site, *run(site, "/ended"))
    with site.database.begin() as session:
        found = session.execute(text("SELECT * FROM blobferry_status ORDER BY path"))
        assert tuple(found.keys()) == COLUMNS
        states = [(row.job_id == waiting.id, row.path, row.state, bool(row.is_final)) for row in found]
    assert states == [(False, "/ended", "succeeded", True), (True, "/waits", "queued", False)]
