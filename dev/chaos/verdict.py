"""The verdict: compares what is really there with what the model expects."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from dev.chaos.contents import content
from dev.chaos.evidence import Digest, Evidence, Row, digest
from dev.chaos.job_model import FILES, FIXTURES, Place, World
from dev.chaos.planned_jobs import NEVER, Scene, Spec
from dev.chaos.system import System
from dev.chaos.young_probes import is_young_probe

SETTLED: Final = ("completed", "gone")
FOREIGN: Final = "foreign/upload"  #: the key of an upload that another program has begun


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be; of a job, if it is one's."""

    text: str
    job_id: str | None = None


@dataclass
class Verdict:
    """What is wrong, found scene by scene."""

    system: System
    evidence: Evidence
    excused: Mapping[str, str]  #: error codes with which jobs may fail, by their id
    retried: frozenset[str]  #: jobs that lost their place in line, for they had to be retried
    found: list[Violation] = field(default_factory=list)
    expected: dict[Place, Digest] = field(default_factory=dict)
    young_probes: list[str] = field(default_factory=list)  #: keys of blobs and uploads that killed probes have left

    def check(self, scenes: Sequence[Scene]) -> list[Violation]:
        """Everything."""
        self.expected = {place: digest(content(*made)) for place, made in FIXTURES.items()}
        for scene in scenes:
            self._check_scene(scene)
        blobs = {place: what for place, what in self.evidence.blobs.items() if not self._may_stay(place[1][1:])}
        self._compare(blobs, {at: what for at, what in self.expected.items() if at[0] != FILES}, "blob")
        files = {at[1]: what for at, what in self.expected.items() if at[0] == FILES}
        self._compare(self.evidence.files, files, "file")
        self._check_uploads()
        self._check_history()
        known = {job.name for scene in scenes for job in scene.jobs}
        for name, row in self.evidence.jobs.items():
            if name not in known:
                self._say(f"{name}: nobody submitted it", row["id"])
        return self.found

    def _say(self, text: str, job_id: str | None = None) -> None:
        self.found.append(Violation(text, job_id))

    def _may_stay(self, key: str) -> bool:
        """Whether the caretakers have yet to remove it, an hour after its probe."""
        is_young = is_young_probe(key, datetime.now(UTC))
        if is_young:
            self.young_probes.append(key)
        return is_young

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _check_scene(self, scene: Scene) -> None:
        world = World()
        for job in self._in_order(scene):
            row = self.evidence.jobs.get(job.name)
            if job.how in NEVER:
                if row is not None:
                    self._say(f"{job.name}: its transaction was rolled back, and yet there is a row", row["id"])
            elif row is None:
                if job.how != "bare":  # such a message is durable from its arrival on, and may be lost before
                    self._say(f"{job.name}: submitted, and there is no row")
            else:
                world = self._after(world, scene, job, row)
        for (storage, place), data in world.blobs.items():
            where = self.system.filled(place).removeprefix("file://") if storage == FILES else place
            self.expected[storage, where] = digest(data)

    def _in_order(self, scene: Scene) -> list[Spec]:
        """The order of submission; of the ends, if a job had to be retried and so came later than it was submitted."""
        jobs = self.evidence.jobs
        if not any(job.name in self.retried for job in scene.jobs):
            return list(scene.jobs)
        ended = [job for job in scene.jobs if job.name in jobs and jobs[job.name]["finished_at"]]
        return sorted(ended, key=lambda job: jobs[job.name]["finished_at"])

    def _after(self, world: World, scene: Scene, job: Spec, row: Row) -> World:
        outcome, state, code = world.after(job), row["state"], row["error_code"]
        if state == "succeeded":
            if isinstance(outcome, World):
                return outcome
            self._say(f"{job.name} ({scene.kind}): succeeded, and should have failed with {outcome}", row["id"])
        elif (code if state == "failed" else state) not in (outcome, self.excused.get(row["id"], ""), *job.may):
            should = "succeeded" if isinstance(outcome, World) else f"failed with {outcome}"
            self._say(
                f"{job.name} ({scene.kind}): {state}, {code}: {row['error_message']}; it should have {should}",
                row["id"],
            )
        if job.starts_in and row["started_at"] and row["started_at"] < row["not_before"]:
            self._say(f"{job.name}: started at {row['started_at']}, not before {row['not_before']}", row["id"])
        return world

    def _compare(self, there: Any, expected: Any, what: str) -> None:
        for place in sorted(there.keys() | expected.keys()):
            if place not in expected:
                self._say(f"{what} {place}: {there[place]} should not be there")
            elif place not in there:
                self._say(f"{what} {place} is missing: it should be {expected[place]}")
            elif there[place] != expected[place]:
                self._say(f"{what} {place}: is {there[place]}, should be {expected[place]}")

    # --- uploads -----------------------------------------------------------------------------------------------------

    def _check_uploads(self) -> None:
        states = {row["id"]: row["state"] for row in self.evidence.jobs.values()}
        kept = set()
        for upload in self.evidence.uploads:
            if upload["state"] in SETTLED:
                if upload["state"] == "completed":  # a Swift that is killed while it completes may keep the upload, too
                    kept.add((upload["bucket"], upload["key"], upload["upload_id"]))
                continue
            if states.get(upload["job_id"]) == "failed" and upload["recheck_at"]:
                kept.add((upload["bucket"], upload["key"], upload["upload_id"]))
            else:
                shown = {name: upload[name] for name in ("id", "state", "key", "upload_id", "recheck_at")}
                self._say(f"upload {shown} of a job that is {states.get(upload['job_id'])}", upload["job_id"])
        foreign = [left for left in self.evidence.unfinished if left[1] == FOREIGN]
        if len(foreign) != 1:
            self._say(f"the upload of another program: there are {len(foreign)}")
        for left in self.evidence.unfinished:
            if left not in kept and left not in foreign and not self._may_stay(left[1]):
                self._say(f"unfinished upload in the store, and no row keeps it: {left}")

    # --- history -----------------------------------------------------------------------------------------------------

    def _check_history(self) -> None:
        for row in self.evidence.jobs.values():
            for problem in _problems(row, self.evidence.attempts.get(row["id"], [])):
                self._say(f"{row['idempotency_key'] or row['id']}: {problem}", row["id"])


def _problems(job: Row, attempts: Sequence[Row]) -> Iterator[str]:
    if [attempt["attempt"] for attempt in attempts] != list(range(1, job["attempt"] + 1)):
        yield f"attempt {job['attempt']}, and the history has {[attempt['attempt'] for attempt in attempts]}"
    for attempt in attempts:
        if attempt["finished_at"] is None or attempt["outcome"] is None:
            yield f"attempt {attempt['attempt']} has no end"
            return
        if attempt["finished_at"] < attempt["started_at"]:
            yield f"attempt {attempt['attempt']} ended before it began"
    for one, next_one in pairwise(attempts):
        if next_one["started_at"] < one["finished_at"]:
            yield f"attempts {one['attempt']} and {next_one['attempt']} ran at once"
    if attempts and job["state"] == "succeeded" and attempts[-1]["outcome"] != "succeeded":
        yield f"succeeded, and the last attempt {attempts[-1]['outcome']}"
    if job["lease_expires_at"] is not None:
        yield "it is final, and yet a run holds its lease"
