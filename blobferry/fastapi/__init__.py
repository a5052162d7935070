"""Blobferry in a FastAPI app: `pip install 'blobferry[fastapi]'`. See docs/fastapi.md."""

from blobferry.fastapi.job_router import RequestedJob, get_job, job_router
from blobferry.fastapi.lifespan import Ferry, ferry_lifespan, get_ferry
from blobferry.views.job_view import JobView

__all__ = ["Ferry", "JobView", "RequestedJob", "ferry_lifespan", "get_ferry", "get_job", "job_router"]
