"""MessageRow: of a job's row, what its messages need; the contents of a put_content are never among it."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, case, null, type_coerce

from blobferry.contract import APART_REQUEST
from blobferry.sql.tables import jobs
from models.job import JobRow


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A job that is to have a message."""

    seq: int
    id: str
    operation: str
    queue: str
    storage: str
    source: str | None
    request: dict[str, Any] | None  #: None for a put_content of an earlier version, since it holds the contents
    state: str
    publish_seq: int
    message_options: dict[str, Any] | None
    parent_id: str | None
    root_id: str | None

    @classmethod
    def of(cls, row: Row[*tuple[Any, ...]], **changed: Any) -> "MessageRow":
        """The job in a row of a SELECT of ``MESSAGE_COLUMNS`` and others, with these values changed since then."""
        return cls(**{name: row._mapping[name] for name in cls.__slots__} | changed)

    def as_row(self) -> dict[str, Any]:
        """The columns by name, in the shape of the rows that the client's Core queries return."""
        return asdict(self)


def _request() -> ColumnElement[Any]:
    holds_contents = and_(JobRow.operation == "put_content", JobRow.request_version < APART_REQUEST)
    return type_coerce(case((holds_contents, null()), else_=JobRow.request), jobs.c.request.type).label("request")


MESSAGE_COLUMNS: Final = tuple(
    _request() if name == "request" else getattr(JobRow, name) for name in MessageRow.__slots__
)
