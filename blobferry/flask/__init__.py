"""Blobferry in a Flask app: `pip install 'blobferry[flask]'`. See docs/flask.md."""

try:
    import flask  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("blobferry.flask needs flask 3 or later: pip install 'blobferry[flask]'") from error

from blobferry.flask.flask_ferry import FlaskFerry
from blobferry.flask.job_blueprint import job_blueprint
from blobferry.views.job_view import JobView

__all__ = ["FlaskFerry", "JobView", "job_blueprint"]
