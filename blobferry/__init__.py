"""Blobferry: background transfer of blobs. This package is what web apps install and import."""

from blobferry.client import Client
from blobferry.contract import JobState
from blobferry.values import FileInfo, Job

__all__ = ["Client", "FileInfo", "Job", "JobState"]
