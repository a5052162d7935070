"""What a run has shown, as tables."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dev.chaos.evidence import Evidence
from dev.chaos.planned_jobs import Scene
from dev.chaos.row_watch import Harm, RowWatch
from dev.chaos.system import BUCKETS


def show_faults(console: Console, watch: RowWatch) -> None:
    """What was injected, whom it hit, and how soon those jobs went on once it was over.

    A job goes on with its next claim, checkpoint or phase, or its end. Seconds in which another fault lasted are left
    out; ``longest`` is with them.
    """
    table = Table(title="Faults, and the seconds without any from the end of each to the next step of a job it hit")
    table.add_column("fault", no_wrap=True)
    for name in ("injected", "jobs hit", "recovered", "p50", "p90", "p99", "max", "longest"):
        table.add_column(name, justify="right", no_wrap=True)
    by_kind = defaultdict(list)
    for harm in watch.harms:
        by_kind[harm.kind].append(harm)
    for kind in sorted(watch.injected):
        table.add_row(kind, str(watch.injected[kind]), *_figures(watch, by_kind[kind]))
    table.add_section()
    table.add_row("all", str(sum(watch.injected.values())), *_figures(watch, watch.harms))
    console.print(table)


def show_jobs(
    console: Console, scenes: Sequence[Scene], evidence: Evidence, received: Mapping[tuple[str, str], int]
) -> None:
    """Which jobs there were, what became of them, and how many of the bytes that the store got were sent again."""
    table = Table(title="Jobs")
    kinds = {job.name: scene.kind for scene in scenes for job in scene.jobs}
    counts = Counter((kinds.get(name, "?"), row["state"]) for name, row in evidence.jobs.items())
    states = sorted({state for _, state in counts})
    table.add_column("scene")
    for state in states:
        table.add_column(state, justify="right")
    for kind in sorted({kind for kind, _ in counts}):
        table.add_row(kind, *(str(counts[kind, state] or "") for state in states))
    table.add_section()
    table.add_row("all", *(str(sum(n for (_, s), n in counts.items() if s == state)) for state in states))
    console.print(table)
    attempts = [attempt for of_job in evidence.attempts.values() for attempt in of_job]
    outcomes = Counter(str(attempt["outcome"]) for attempt in attempts)
    moved = sum(row["size"] or 0 for row in evidence.jobs.values() if row["state"] == "succeeded")
    needed, sent = _sent_twice(evidence, received)
    console.print(
        f"attempts: {len(attempts)} ({', '.join(f'{n} {outcome}' for outcome, n in outcomes.most_common())})\n"
        f"bytes of succeeded jobs: {moved / 1e6:.1f} MB; to paths that got whole blobs only: {needed / 1e6:.1f} MB, "
        f"{sent / 1e6:.1f} MB sent, {100 * max(sent - needed, 0) / max(needed, 1):.2f} % of them again\n"
        f"workers that died with a job: {sum(row['crashes'] for row in evidence.jobs.values())}; "
        f"uploads begun again: {sum(row['restarts'] for row in evidence.jobs.values())}"
    )


def show_batches(console: Console, directory: Path) -> None:
    """How many jobs the workers, whose logs are below the directory, have claimed together."""
    lines = (line for log in directory.rglob("worker-*.log") for line in log.open(errors="replace"))
    claimed = [json.loads(line) for line in lines if '"event": "batch claimed"' in line and line.endswith("}\n")]
    sizes = {
        kind: sorted(of["jobs"] for of in claimed if of["operation"] == kind)
        for kind in ("put_content", "write_stream")
    }
    for kind, found in sizes.items():
        console.print(f"batches of {kind}: {len(found)}, {sum(found)} jobs, at most {max(found, default=0)} in one")


def show_history(console: Console, job_id: str | None, evidence: Evidence, asked: Mapping[str, list[str]]) -> None:
    """All that is known of a job."""
    job = next((row for row in evidence.jobs.values() if row["id"] == job_id), None)
    if job is None:
        return
    shown = {name: value for name, value in job.items() if value not in (None, 0, False, {}) and name != "request"}
    console.print(f"  {shown}\n  request: {str(job['request'])[:300]}", markup=False)
    for attempt in evidence.attempts.get(job["id"], []):
        console.print(f"  {attempt}", markup=False)
    for upload in evidence.uploads:
        if upload["job_id"] == job_id:
            console.print(f"  {upload}", markup=False)
    for answer in asked.get(job["idempotency_key"] or job["id"], []):
        console.print(f"  {answer}", markup=False)


def _sent_twice(evidence: Evidence, received: Mapping[tuple[str, str], int]) -> tuple[int, int]:
    """Bytes that blobs needed and bytes that the store was sent, for the keys whose jobs each send a whole blob."""
    needed: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    others = set()
    for row in evidence.jobs.values():
        request = row["request"]
        across = row["operation"] == "move" and request.get("dest_storage", row["storage"]) != row["storage"]
        sends_all = across or (row["operation"] in ("write_stream", "put_content") and not request.get("offset"))
        place = BUCKETS[request.get("dest_storage") or row["storage"]], row["path"].lstrip("/")
        if row["state"] == "succeeded" and sends_all:
            needed[place].append(row["size"] or 0)
        elif row["operation"] not in ("read_stream", "delete"):
            others.add(place)
    places = needed.keys() - others
    return sum(sum(needed[place]) for place in places), sum(received[place] for place in places)


def _figures(watch: RowWatch, harms: Sequence[Harm]) -> list[str]:
    times = [(watch.undisturbed(harm), harm.recovered) for harm in harms]
    known = sorted(free for free, _ in times if free is not None)
    if not known:
        return [str(len(harms)), "0", "", "", "", "", ""]
    cuts = statistics.quantiles(known, n=100, method="inclusive") if len(known) > 1 else known * 99
    longest = max(whole for _, whole in times if whole is not None)
    figures = cuts[49], cuts[89], cuts[98], known[-1], longest
    return [str(len(harms)), str(len(known)), *(f"{value:.1f}" for value in figures)]
