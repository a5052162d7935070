"""What is remembered: the rows, and every statement that touches them."""

from models.attempt import Attempt
from models.base import Base
from models.job import Job
from models.part import Part
from models.path_lock import PathLock
from models.session import Database
from models.tombstone import Tombstone
from models.upload import Upload

__all__ = ["Attempt", "Base", "Database", "Job", "Part", "PathLock", "Tombstone", "Upload"]
