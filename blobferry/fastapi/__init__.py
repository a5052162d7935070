"""Blobferry in a FastAPI app: `pip install 'blobferry[fastapi]'`. See docs/fastapi.md."""

try:
    import fastapi.sse  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("blobferry.fastapi needs fastapi 0.135 or later: pip install 'blobferry[fastapi]'") from error

from blobferry.fastapi.job_router import RequestedJob, get_job, job_router
from blobferry.fastapi.lifespan import Ferry, ferry_lifespan, get_ferry
from blobferry.views.job_view import JobView

__all__ = ["Ferry", "JobView", "RequestedJob", "ferry_lifespan", "get_ferry", "get_job", "job_router"]
