"""An app of its own process: an async SQLAlchemy session, a job in its transaction, the router, and its own figures."""

import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from blobferry.fastapi import Ferry, JobView, ferry_lifespan, job_router

sessions = async_sessionmaker(create_async_engine(os.environ["APP_DATABASE_URL"]))
queries: list[float] = []
OWN_ROW = text("INSERT INTO blobferry_tombstones (id, finished_at) VALUES (:id, '2026-01-01 00:00:00')")


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session, session.begin():
        yield session


app = FastAPI(lifespan=ferry_lifespan())
app.include_router(job_router(see=None, heartbeat=float(os.environ["HEARTBEAT"])))


@app.get("/ping")
async def ping() -> str:
    return "pong"


@app.post("/videos")
async def submit(
    ferry: Ferry, session: Annotated[AsyncSession, Depends(get_session, scope="function")], fails: bool = False
) -> JobView:
    """The app's own row and a job, in one transaction."""
    await session.execute(OWN_ROW, {"id": str(uuid4())})
    job = await ferry.write_stream("/a", "file:///srv/incoming/7.mp4", session=session)
    if fails:
        raise ZeroDivisionError
    return JobView.of(job)


@app.get("/figures")
async def figures(ferry: Ferry) -> dict[str, Any]:
    """What the listeners cost: queries, with the time since the first call; threads; jobs that are watched."""
    if not queries:
        queries.append(time.monotonic())
        event.listen(ferry.client._engine, "before_cursor_execute", lambda *others: queries.append(time.monotonic()))
    return {
        "seconds": time.monotonic() - queries[0],
        "queries": len(queries) - 1,
        "threads": threading.active_count(),
        "watched": sum(ferry.client._reader.shared._watched.values()),
    }
