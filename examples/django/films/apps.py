"""The app, and what it does at the end of a job: `manage.py blobferry_listen` calls it."""

from typing import Any

from django.apps import AppConfig

from blobferry.django.signals import job_finished


class FilmsConfig(AppConfig):
    """The app."""

    name = "films"

    def ready(self) -> None:
        """Learn the ends of jobs."""
        job_finished.connect(note_end)


def note_end(state: str, path: str, size: int | None, **event: Any) -> None:
    """Note that a film is in the store. It may be called twice for a job."""
    from films.models import Film  # noqa: PLC0415  # models exist only after apps

    if state == "succeeded":
        Film.objects.filter(file=path.removeprefix("/media/")).update(size=size)
