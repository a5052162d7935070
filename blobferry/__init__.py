"""Blobferry: background transfer of blobs. This package is what web apps install and import."""

from blobferry.client import Client
from blobferry.contract import JobState
from blobferry.sealing import seal
from blobferry.values import Attempt, FileInfo, Job, Situation, Upload

__all__ = ["Attempt", "Client", "FileInfo", "Job", "JobState", "Situation", "Upload", "seal"]
