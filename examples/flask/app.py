"""Films, in Flask: a form that uploads one, a list, and a bar that shows how far each one is.

flask run                                                     the app
blobferry listen films --label app=films --app app:client     the process that learns the ends
"""

import os

from flask import Flask, abort, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from blobferry import Client, Job, safe_path
from blobferry.flask import FlaskFerry, JobView, job_blueprint


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


app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["BLOBFERRY_DATABASE_URL"]
db = SQLAlchemy(app, model_class=Base)
client = Client.from_env()
ferry = FlaskFerry(app, client=client)
app.register_blueprint(job_blueprint(see=None))  # an app with users has a function here, which says who may see a job
with app.app_context():
    Base.metadata.create_all(db.engine)  # those of jobs are the worker's to make


@app.get("/")
def index() -> str:
    """All films, the newest first."""
    films = list(db.session.scalars(select(Film).order_by(Film.id.desc()).limit(100)))
    jobs = ferry.client.get_many(film.job_id for film in films)
    views = {job.id: JobView.of(job) for job in jobs.values()}
    return render_template("index.html", films=films, jobs=views)


@app.post("/films")
def upload() -> ResponseReturnValue:
    """Keep the file where the worker finds it; the film and its job exist both, or neither."""
    file = request.files.get("film")
    if file is None or not file.filename:
        abort(422, "choose a file first")
    spooled = ferry.client.spool(file)
    row = Film(title=file.filename)
    db.session.add(row)
    db.session.flush()
    row.path = safe_path("films", str(row.id), file.filename)
    job = ferry.client.write_stream(row.path, spooled, labels={"app": "films"}, session=db.session)
    row.job_id = job.id
    db.session.commit()
    return redirect("/", 303)


@app.get("/films/<int:number>")
def show(number: int) -> ResponseReturnValue:
    """The film itself, from the store."""
    film = db.session.get(Film, number)
    if film is None or film.size is None:
        abort(404, "there is no such film, or it is not stored yet")
    return redirect(ferry.client.url_for(film.path, {"expiry": 3600}))


@client.on("succeeded")
def stored(job: Job) -> None:
    """Note that a film is in the store. It may be called twice for a job."""
    with app.app_context():
        db.session.execute(update(Film).where(Film.job_id == job.id).values(size=job.size))
        db.session.commit()
