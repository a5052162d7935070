"""The project's tests, by Blobferry's test kit: no worker, no broker, no store. `manage.py test` runs them."""

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase

from blobferry.django import ferry
from blobferry.testing import recording
from films.models import Film


class UploadTests(TestCase):
    """The form, the list and the end."""

    def setUp(self) -> None:
        """Record what is enqueued."""
        self.kit = self.enterContext(recording(ferry))

    def test_an_upload_is_stored(self) -> None:
        file = SimpleUploadedFile("my holiday.mp4", b"bytes of a film")
        page = self.client.post("/", {"film": file}, follow=True)
        self.assertContains(page, "my holiday.mp4")
        self.assertContains(page, "queued")
        self.kit.assert_enqueued("write_stream", path="/media/films/my_holiday.mp4", count=1)
        film = Film.objects.get()
        assert self.client.get(f"/progress?id={film.pk}").json()[str(film.pk)]["words"] == "queued"

        assert [job.state for job in self.kit.drain()] == ["succeeded"]
        self.kit.run_handlers()
        film.refresh_from_db()
        assert film.size == len(b"bytes of a film")
        self.assertContains(self.client.get("/"), "succeeded")

    def test_a_form_without_a_file_enqueues_nothing(self) -> None:
        page = self.client.post("/", {})
        self.assertContains(page, "This field is required.", status_code=422)
        self.kit.refute_enqueued()
