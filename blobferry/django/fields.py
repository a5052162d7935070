"""FerryFileField: a FileField that shows how far its file is on its way into the store."""

from collections.abc import Sequence
from typing import Any, cast

from django.core import checks
from django.db.models import FileField
from django.db.models.fields.files import FieldFile

from blobferry.contract import JobState
from blobferry.django.storage import FerryStorage
from blobferry.values import Job
from blobferry.views.job_view import JobView


class FerryFieldFile(FieldFile):
    """The file of a row, and its latest job, which is read once: another look needs ``refresh_from_db``."""

    _read: tuple[str, Job | None] | None = None  #: the job, and the name of its file

    @property
    def job(self) -> Job | None:
        """The job that writes or deletes the file; None without a file, and weeks after the job's end."""
        if not self:
            return None
        if self._read is None or self._read[0] != self.name:
            name = cast(str, self.name)
            self._read = (name, cast(FerryStorage, self.storage).job(name))
        return self._read[1]

    @property
    def view(self) -> JobView | None:
        """The job in words and numbers: ``words``, ``percent``, ``bytes_done``, ``seconds_left``…"""
        return None if self.job is None else JobView.of(self.job)

    @property
    def state(self) -> str:
        """The state of the job; "" if there is none."""
        return "" if self.job is None else str(self.job.state)

    @property
    def progress(self) -> str:
        """How far it is in words, such as "uploading, 0.3 of 1.5 GiB (20%)"; "" if no job tells."""
        if self.view is None:
            return ""
        moves = self.view.state in (JobState.RUNNING, JobState.PAUSED) and self.view.size
        return f"{self.view.words}, {self.view.progress}" if moves else self.view.words

    def retry(self) -> Job | None:
        """Let the failed job continue, in the transaction that is open; any other is unchanged.

        Raises TooLateError for a job that has succeeded or was cancelled.
        """
        if self.job is not None:
            job = cast(FerryStorage, self.storage).ferry.retry(self.job.id)
            self._read = (cast(str, self.name), job)
        return self.job

    def save(self, name: str, content: Any, save: bool = True) -> None:
        """As FieldFile does it."""
        self._read = None
        super().save(name, content, save)


class FerryFileField(FileField):
    """A FileField on a FerryStorage: ``video.file.state``, ``.progress``, ``.view``, ``.job``, ``.retry()``."""

    attr_class = FerryFieldFile

    def check(self, **kwargs: Any) -> Sequence[checks.CheckMessage]:
        found: list[checks.CheckMessage] = list(super().check(**kwargs))
        if not isinstance(self.storage, FerryStorage):
            problem = f"needs a FerryStorage, and has a {self.storage.__class__.__name__}"
            hint = (
                'give it storage=FerryStorage(), or name blobferry.django.storage.FerryStorage in STORAGES["default"]'
            )
            found.append(checks.Error(f"FerryFileField {problem}", hint=hint, obj=self, id="blobferry.E003"))
        return found
