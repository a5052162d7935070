"""Announcements of transactions that commit on an event loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from blobferry.jobs.announcement import Announcement, Row


@dataclass(frozen=True, slots=True)
class LaterAnnouncement(Announcement):
    """Announces in a thread: SQLAlchemy's events of a commit run on the event loop, which would wait for the broker.

    A process that dies in between leaves the jobs to the caretaker, as after any lost message.
    """

    later: Callable[[Callable[[], object]], None]

    @classmethod
    def of(cls, announcement: Announcement, later: Callable[[Callable[[], object]], None]) -> Self:
        """The announcement, made later."""
        return cls(announcement.engine, announcement.announcer, later)

    def announce(self, rows: Sequence[Row]) -> None:
        """Publish the jobs in a thread."""
        self.later(lambda: Announcement.announce(self, rows))
