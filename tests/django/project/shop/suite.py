"""The project's own tests, as `manage.py test shop.suite` runs them: nothing of them may leave the test database."""

import os
from tempfile import TemporaryDirectory

import pytest
import redis
from django.conf import settings
from django.core.files.base import ContentFile
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings
from shop.models import Video

from blobferry import Client
from blobferry.django import ferry
from blobferry.django.models import FerryJob
from blobferry.django.storage import FerryStorage
from blobferry.errors import ConfigurationError

PUBLISHING = settings.BLOBFERRY | {"PUBLISH_IN_TESTS": True}


def store_video() -> str:
    """What a view does; the id of its job."""
    with transaction.atomic():
        video = Video.objects.create(path="/videos/7.mp4")
        return ferry.write_stream(video.path, "file:///srv/incoming/7.mp4", labels={"video": str(video.pk)}).id


def messages() -> int:
    """Messages in the real broker."""
    with redis.Redis.from_url(settings.BLOBFERRY["BROKER_URL"]) as broker:
        return int(broker.llen("blobferry"))


class TestInTransaction(TestCase):
    """Each test is a transaction that is rolled back."""

    def test_the_test_sees_its_jobs(self) -> None:
        assert FerryJob.objects.count() == 0
        job_id = store_video()
        assert ferry.get(job_id).labels == {"video": str(Video.objects.get().pk)}
        assert [job.id for job in ferry.jobs()] == [job_id]
        job = FerryJob.objects.get()
        assert (job.job_id, job.state, job.labels["video"]) == (job_id, "queued", str(Video.objects.get().pk))
        assert ferry.cancel(job_id).cancel_requested

    def test_the_jobs_of_other_tests_are_gone(self) -> None:
        assert FerryJob.objects.count() == 0
        store_video()

    def test_nothing_is_published_even_if_callbacks_are_run(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            job_id = store_video()
        assert (len(callbacks), messages()) == (1, 0)
        assert ferry.situation(job_id).published_at is None

    def test_a_file_is_in_the_spool_and_no_store_is_asked(self) -> None:
        with TemporaryDirectory() as spool, override_settings(BLOBFERRY=settings.BLOBFERRY | {"SPOOL_DIR": spool}):
            storage = FerryStorage()
            name = storage.save("7.mp4", ContentFile(b"seven"))
            with storage.open(name) as file:
                assert (name, file.read(), storage.exists("8.mp4")) == ("7.mp4", b"seven", False)
            assert storage.url(name).startswith("/files/spooled/")
            storage.delete(name)
            assert not storage.exists(name)

    def test_a_read_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="PUBLISH_IN_TESTS"):
            ferry.stat("/videos/7.mp4")

    def test_another_client_says_that_it_is_outside(self) -> None:
        with Client(database_url=os.environ["PROJECT_OTHER_URL"]) as client, self.assertWarns(RuntimeWarning):
            client.delete("/real")

    def test_the_number_of_statements_is_that_of_a_row(self) -> None:
        with self.assertNumQueries(1):
            ferry.delete("/videos/7.mp4")

    async def test_async_views_are_in_the_transaction_too(self) -> None:
        job = await ferry.adelete("/videos/7.mp4")
        assert await ferry.aget(job.id) == job
        assert await FerryJob.objects.acount() == 1


class TestCommitting(TransactionTestCase):
    """Each test commits, and a flush follows."""

    def test_what_is_committed_is_not_published(self) -> None:
        assert FerryJob.objects.count() == 0
        store_video()
        assert (FerryJob.objects.count(), messages()) == (1, 0)

    def test_the_flush_takes_the_jobs_along(self) -> None:
        assert FerryJob.objects.count() == 0
        store_video()

    @override_settings(BLOBFERRY=PUBLISHING)
    def test_what_asks_for_it_is_published(self) -> None:
        assert messages() == 0
        store_video()
        assert messages() == 1
        with redis.Redis.from_url(settings.BLOBFERRY["BROKER_URL"]) as broker:
            broker.flushall()
