"""The jobs as they are planned: how each is submitted, and what may become of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

How = Literal[
    "client",  # Client, in a transaction of its own
    "twice",  # the same, twice with one idempotency key; and once more with another request, which is refused
    "together",  # all of a scene in one submit_many, at its step "submit together"
    "committed",  # in a transaction of an app
    "rolled_back",  # the same, but the transaction comes to nothing: it must never run
    "savepoint",  # in a savepoint that is rolled back, within a transaction that is committed: it must never run
    "bare",  # a message from a Celery that knows nothing of Blobferry: durable from its arrival on
]
NEVER: frozenset[How] = frozenset({"rolled_back", "savepoint"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One job. ``name`` is its idempotency key, or the task id of a bare one."""

    name: str
    operation: str
    arguments: Mapping[str, Any]  #: of the operation; URLs with {files} and {site} in the place of what a run draws
    how: How = "client"
    size: int | None = None  #: bytes of the source of that name, if the operation reads one
    priority: int = 0
    starts_in: float | None = None  #: seconds from the submit to its ``not_before``
    ends_in: float | None = None  #: seconds from the submit to its ``deadline``; negative: too late already
    may: frozenset[str] = frozenset()  #: what else may become of it: "cancelled", "deadline"
    follows_order: bool = True  #: False: it has its paths to itself


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens to a scene, ``at`` so many seconds after its beginning."""

    at: float
    action: Literal["submit", "submit together", "cancel", "pause", "resume", "retry"]
    name: str  #: of the job


@dataclass(frozen=True, slots=True)
class Scene:
    """Some jobs on paths of their own. The order of their submission decides the final state of these paths."""

    name: str
    kind: str
    jobs: tuple[Spec, ...]
    steps: tuple[Step, ...]
    hidden: frozenset[str] = field(default_factory=frozenset)  #: jobs whose source is not there before their retry

    def job(self, name: str) -> Spec:
        """The job of that name."""
        return next(job for job in self.jobs if job.name == name)
