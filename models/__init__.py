"""What is remembered: the mapped rows, and in ``queries`` every statement that the worker runs on them."""

from models.attempt import AttemptRow
from models.base import Base
from models.claimed_job import ClaimedJob
from models.delivery import DeliveryRow
from models.job import JobRow
from models.lack import LackRow
from models.living_worker import LivingWorkerRow
from models.message_row import MessageRow
from models.part import PartRow
from models.path_lock import PathLockRow
from models.session import Database
from models.tombstone import TombstoneRow
from models.upload import UploadRow

__all__ = [
    "AttemptRow",
    "Base",
    "ClaimedJob",
    "Database",
    "DeliveryRow",
    "JobRow",
    "LackRow",
    "LivingWorkerRow",
    "MessageRow",
    "PartRow",
    "PathLockRow",
    "TombstoneRow",
    "UploadRow",
]
