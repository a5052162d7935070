"""From a browser's request to the worker: files in a directory that both see."""

from blobferry.spooling.open_upload import Upload as AnyUpload
from blobferry.spooling.spool_directory import SpoolDirectory
from blobferry.spooling.spooled import Spooled

__all__ = ["AnyUpload", "SpoolDirectory", "Spooled"]
