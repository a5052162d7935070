"""Films, in FastAPI: a form that uploads one, a list, and a bar that shows how far each one is.

uvicorn app:app                                              the app
blobferry listen films --label app=films --app app:ferry     the process that learns the ends
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from blobferry import AsyncClient, Job, safe_path
from blobferry.fastapi import Ferry, JobView, ferry_lifespan, job_router

engine = create_async_engine(os.environ["BLOBFERRY_DATABASE_URL"])
sessions = async_sessionmaker(engine)
ferry = AsyncClient.from_env()
templates = Jinja2Templates(Path(__file__).parent / "templates")


class Base(DeclarativeBase):
    """The app's own tables."""


class Film(Base):
    """An uploaded film."""

    __tablename__ = "films"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    path: Mapped[str] = mapped_column(default="")  #: of the blob
    job_id: Mapped[str] = mapped_column(default="")  #: that stores it
    size: Mapped[int | None]  #: in bytes, once it is stored


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the app's tables; those of jobs are the worker's to make."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with ferry_lifespan(ferry)(app):
        yield


async def get_session() -> AsyncIterator[AsyncSession]:
    """One transaction for each request."""
    async with sessions() as session, session.begin():
        yield session


Session = Annotated[AsyncSession, Depends(get_session, scope="function")]
app = FastAPI(title="Films", lifespan=lifespan)
app.include_router(job_router(see=None))  # an app with users has a dependency here, which says who may see a job


@app.get("/")
async def index(request: Request, session: Session, ferry: Ferry) -> HTMLResponse:
    """All films, the newest first."""
    films = list(await session.scalars(select(Film).order_by(Film.id.desc()).limit(100)))
    jobs = await ferry.get_many(film.job_id for film in films)
    views = {job.id: JobView.of(job) for job in jobs.values()}
    return templates.TemplateResponse(request, "index.html", {"films": films, "jobs": views})


@app.post("/films")
async def upload(film: UploadFile, session: Session, ferry: Ferry) -> RedirectResponse:
    """Keep the file where the worker finds it; the film and its job exist both, or neither."""
    if not film.filename:
        raise HTTPException(422, "choose a file first")
    spooled = await ferry.spool(film)
    row = Film(title=film.filename)
    session.add(row)
    await session.flush()
    row.path = safe_path("films", str(row.id), film.filename)
    job = await ferry.write_stream(row.path, spooled, labels={"app": "films"}, session=session)
    row.job_id = job.id
    return RedirectResponse("/", 303)


@app.get("/films/{number}")
async def show(number: int, session: Session, ferry: Ferry) -> RedirectResponse:
    """The film itself, from the store."""
    film = await session.get(Film, number)
    if film is None or film.size is None:
        raise HTTPException(404, "there is no such film, or it is not stored yet")
    return RedirectResponse(await ferry.url_for(film.path, {"expiry": 3600}))


@ferry.on("succeeded")
async def stored(job: Job) -> None:
    """Note that a film is in the store. It may be called twice for a job."""
    async with sessions() as session, session.begin():
        await session.execute(update(Film).where(Film.job_id == job.id).values(size=job.size))
