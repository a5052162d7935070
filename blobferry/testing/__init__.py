"""The test kit: tests of an app record its jobs, end them by hand, or run them, and touch nothing real.

It needs nothing beside the client, but for ``drain`` and the real stack, which need the worker. See docs/testing.md.
"""

from blobferry.testing.enqueued_jobs import EnqueuedJobs
from blobferry.testing.ferry_kit import FerryKit, recording
from blobferry.testing.fresh_tables import create_tables
from blobferry.testing.told_callbacks import ToldCallback
from blobferry.testing.told_ends import ToldWebhook

__all__ = ["EnqueuedJobs", "FerryKit", "ToldCallback", "ToldWebhook", "create_tables", "recording"]
