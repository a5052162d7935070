"""The admin's pages of jobs."""

import html
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connections
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from blobferry import Job, NewJob
from blobferry.django.job_filters import MOST_COUNTED
from tests.client.conftest import SOURCE, Site
from tests.django.conftest import Project

LIST = "/admin/blobferry/ferryjob/"


@pytest.fixture
def admin_project(make_project: Callable[..., Project], site: Site) -> Iterator[Project]:
    """A project whose own tables are there, too."""
    project = make_project(site)
    before = set(connections["default"].introspection.table_names())
    call_command("migrate", verbosity=0, skip_checks=True)
    yield project
    if connections["default"].vendor == "postgresql":  # which the next test uses
        with connections["default"].cursor() as cursor:
            for table in set(connections["default"].introspection.table_names()) - before:
                cursor.execute(f'DROP TABLE "{table}" CASCADE')
    connections["default"].close()


def browser(*permissions: str) -> Browser:
    """Of a member of the staff with these permissions for jobs."""
    user = User.objects.create_user("-".join(("staff", *permissions)), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{name}_ferryjob" for name in permissions]))
    browser = Browser()
    browser.force_login(user)
    return browser


def text_of(response: Any) -> str:
    """The words of a page."""
    assert response.status_code == 200, response.status_code
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


def rows_of(response: Any) -> list[str]:
    """The ids in a list."""
    assert response.status_code == 200, response.status_code
    return re.findall(r'<a href="/admin/blobferry/ferryjob/([^/"]+)/change/', response.content.decode())


def act(browser: Browser, action: str, *jobs: Job) -> str:
    """Choose the jobs in the list, and the action; the words of the page that follows."""
    chosen = {"action": action, "_selected_action": [job.id for job in jobs]}
    return text_of(browser.post(LIST, chosen, follow=True))


def test_the_list_shows_the_newest_first_with_their_progress(admin_project: Project) -> None:
    first = admin_project.ferry.write_stream("/videos/7.mp4", SOURCE)
    second = admin_project.ferry.delete("/b")
    admin_project.site.change(first, state="running", size=4096, bytes_done=1024)
    page = browser("view").get(LIST)
    assert rows_of(page) == [second.id, first.id]
    assert "1.0/4.0 KiB" in text_of(page)
    assert '<progress value="1024" max="4096"' in page.content.decode()


def test_filters_and_search_find_jobs(admin_project: Project) -> None:
    ferry, site = admin_project.ferry, admin_project.site
    video, deleted = ferry.write_stream("/videos/7.mp4", SOURCE), ferry.delete("/b")
    site.change(video, state="failed")
    look = browser("view")
    site.change(video, error_code="source_not_found")
    failed = look.get(LIST, {"state": "failed"})
    assert rows_of(failed) == [video.id]
    assert "failed: source_not_found" in text_of(failed)
    assert rows_of(look.get(LIST, {"operation": "delete"})) == [deleted.id]
    assert rows_of(look.get(LIST, {"submitted": "1h"})) == [deleted.id, video.id]
    site.change(video, created_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert rows_of(look.get(LIST, {"submitted": "7d"})) == [deleted.id]
    assert rows_of(look.get(LIST, {"q": "/videos/"})) == [video.id]
    assert rows_of(look.get(LIST, {"q": deleted.id})) == [deleted.id]
    assert rows_of(look.get(LIST, {"q": "7.mp4"})) == []


def test_the_page_of_a_job_explains_it_with_its_history(admin_project: Project) -> None:
    job = admin_project.ferry.write_stream("/videos/7.mp4", SOURCE, labels={"video": "7"})
    admin_project.site.change(job, state="failed", error_code="source_not_found", error_message="<gone>", attempt=1)
    admin_project.site.add_attempt(
        job, attempt=1, worker="w@host", outcome="failed", error_code="source_not_found", error_message="<gone>"
    )
    page = browser("view").get(f"{LIST}{job.id}/change/")
    words = text_of(page)
    assert "w@host 0 B failed source_not_found: <gone>" in words
    assert "retry" in words
    assert '"video": "7"' in words
    assert "&lt;gone&gt;" in page.content.decode()
    assert 'name="_save"' not in page.content.decode()


def test_who_may_change_jobs_controls_them_and_is_named(admin_project: Project) -> None:
    ferry, site = admin_project.ferry, admin_project.site
    failed, running = ferry.write_stream("/a", SOURCE), ferry.delete("/b")
    site.change(failed, state="failed")
    site.take_messages()
    admin = browser("view", "change")
    assert "1 job retried" in act(admin, "retry", failed)
    assert ferry.get(failed.id).state == "retrying"
    assert site.message_ids() == [failed.id]
    assert "2 jobs asked to pause" in act(admin, "pause", failed, running)
    assert "1 job asked to cancel" in act(admin, "cancel", running)
    assert "1 refused" in act(admin, "resume", running)
    assert ferry.get(running.id).cancel_requested
    logged = [(entry.object_id, entry.change_message) for entry in LogEntry.objects.order_by("pk")]
    assert (failed.id, "retried (now retrying)") in logged
    assert (running.id, "asked to cancel (now queued)") in logged


def test_who_may_only_view_them_changes_nothing(admin_project: Project) -> None:
    job = admin_project.ferry.delete("/b")
    look = browser("view")
    assert "Cancel jobs" not in look.get(LIST).content.decode()
    act(look, "cancel", job)
    assert look.post(f"{LIST}{job.id}/change/", {"state": "failed"}).status_code == 403
    assert not admin_project.ferry.get(job.id).cancel_requested
    nobody = browser()
    assert nobody.get(LIST).status_code == 403
    assert nobody.get(f"{LIST}{job.id}/change/").status_code == 403


@pytest.mark.parametrize("url", [f"{LIST}add/", f"{LIST}JOB/delete/"])
def test_nobody_adds_or_deletes_rows(admin_project: Project, url: str) -> None:
    job = admin_project.ferry.delete("/b")
    user = User.objects.create_superuser("root")
    admin = Browser()
    admin.force_login(user)
    assert admin.post(url.replace("JOB", job.id), {"post": "yes"}).status_code == 403
    assert admin.post(f"{LIST}{job.id}/change/", {"state": "failed"}).status_code == 403
    assert admin_project.ferry.get(job.id) == job


def test_no_statement_of_a_list_reads_the_whole_table(admin_project: Project) -> None:
    admin_project.ferry.submit_many(NewJob.delete(f"/{number}") for number in range(60))
    look = browser("view")
    with CaptureQueriesContext(connections["default"]) as found:
        page = look.get(LIST)
    assert len(rows_of(page)) == 50
    of_jobs = [query["sql"] for query in found if "blobferry_jobs" in query["sql"]]
    assert len(of_jobs) == 2, of_jobs
    assert all("LIMIT" in sql for sql in of_jobs)
    assert f"LIMIT {MOST_COUNTED + 1}" in of_jobs[0]
    with CaptureQueriesContext(connections["default"]) as found:
        look.get(LIST, {"state": "failed"})
    (listing,) = [query["sql"] for query in found if "blobferry_jobs" in query["sql"] and "ORDER BY" in query["sql"]]
    with connections["default"].cursor() as cursor:
        if cursor.db.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {listing}")
        else:
            cursor.execute("SET enable_seqscan = off")
            cursor.execute(f"EXPLAIN {listing}")
        assert "ix_blobferry_jobs_failed" in str(cursor.fetchall())
