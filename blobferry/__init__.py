"""Blobferry: background transfer of blobs. Web apps install and import this package."""

from blobferry.async_client import AsyncClient
from blobferry.client import Client
from blobferry.contract import JobState
from blobferry.jobs.new_job import NewJob
from blobferry.sealing import seal
from blobferry.values import Attempt, FileInfo, Job, Situation, Upload

__all__ = ["AsyncClient", "Attempt", "Client", "FileInfo", "Job", "JobState", "NewJob", "Situation", "Upload", "seal"]
