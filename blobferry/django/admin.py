"""The admin's pages of jobs: to look at, and to cancel, pause, resume and retry."""

from typing import Any, Final

from django.contrib import admin, messages
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join
from django.utils.timezone import template_localtime

from blobferry.cli.explanation import explanation
from blobferry.cli.wording import briefly
from blobferry.contract import JobState
from blobferry.django.ferries import ferry
from blobferry.django.job_filters import BoundedPaginator, OperationFilter, StateFilter, SubmittedFilter
from blobferry.django.models import FerryJob
from blobferry.errors import BlobferryError
from blobferry.redaction import printable
from blobferry.values import Attempt, Situation
from blobferry.views.sizes_and_durations import done_of, in_bytes

MOST_AT_ONCE: Final = 1000  #: jobs that one action changes
_SHOWN_REFUSALS: Final = 5
_PAST: Final = {"retry": "retried", "cancel": "asked to cancel", "pause": "asked to pause", "resume": "resumed"}


@admin.register(FerryJob)
class FerryJobAdmin(admin.ModelAdmin):
    """Jobs, read by whoever may view them; the actions are for whoever may change them. Nobody adds or edits rows."""

    list_display = ("path", "operation", "state_and_error", "progress", "created_at")
    list_filter = (StateFilter, OperationFilter, SubmittedFilter)
    search_fields = ("job_id", "path")
    search_help_text = "The id of a job, or the beginning of a path."
    ordering = ("-seq",)
    sortable_by = ()
    list_per_page = 50
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = ("retry", "cancel", "pause", "resume")
    fieldsets = (
        (None, {"fields": ("job_id", "why", "what_follows", "progress")}),
        ("History", {"fields": ("history", "worker", "created_at", "started_at", "finished_at", "result")}),
        ("Request", {"fields": ("operation", "path", "storage", "source", "dest", "labels", "idempotency_key")}),
        ("Options", {"fields": ("priority", "run_at", "deadline")}),
    )

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).using(ferry.alias)

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Not by LIKE '%…%', which reads every row."""
        term = search_term.strip()
        if not term:
            return queryset, False
        return queryset.filter(path__startswith=term) if term.startswith("/") else queryset.filter(job_id=term), False

    # --- permissions -------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Nobody edits a row, so the pages are those for viewing."""
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        return self.has_control_permission(request) or super().has_view_permission(request, obj)

    def has_control_permission(self, request: Any) -> bool:
        """Whether the user may control jobs, by the permission "Can change job"."""
        return bool(request.user.has_perm("blobferry.change_ferryjob"))

    # --- what is shown -----------------------------------------------------------------------------------------------

    @admin.display(description="progress")
    def progress(self, job: FerryJob) -> Any:
        if job.size is None or job.operation == "delete":
            return "" if not job.bytes_done else in_bytes(job.bytes_done)
        bar = '<progress value="{}" max="{}" style="width: 6em"></progress> {}'
        return format_html(bar, job.bytes_done, job.size or 1, done_of(job.bytes_done, job.size))

    @admin.display(description="state")
    def state_and_error(self, job: FerryJob) -> str:
        is_error = job.error_code and job.state != JobState.SUCCEEDED
        return f"{job.state}: {job.error_code}" if is_error else str(job.state)

    @admin.display(description="state")
    def why(self, job: FerryJob) -> str:
        found = _situation(job)
        return f"{briefly(found.job)}: {explanation(found).why}"

    @admin.display(description="next")
    def what_follows(self, job: FerryJob) -> str:
        return explanation(_situation(job)).next

    @admin.display(description="attempts")
    def history(self, job: FerryJob) -> Any:
        attempts = _situation(job).attempts
        names = ("attempt", "started", "ended", "worker", "sent", "outcome", "error", "remark")
        head = format_html_join("", "<th>{}</th>", ((name,) for name in names))
        rows = format_html_join("", "<tr>{}</tr>", ((_cells(attempt),) for attempt in attempts))
        return format_html("<table><tr>{}</tr>{}</table>", head, rows) if attempts else "none yet"

    # --- actions -----------------------------------------------------------------------------------------------------

    @admin.action(permissions=["control"], description="Retry failed jobs")
    def retry(self, request: Any, queryset: Any) -> None:
        self._control(request, queryset, "retry")

    @admin.action(permissions=["control"], description="Cancel jobs")
    def cancel(self, request: Any, queryset: Any) -> None:
        self._control(request, queryset, "cancel")

    @admin.action(permissions=["control"], description="Pause jobs")
    def pause(self, request: Any, queryset: Any) -> None:
        self._control(request, queryset, "pause")

    @admin.action(permissions=["control"], description="Resume paused jobs")
    def resume(self, request: Any, queryset: Any) -> None:
        self._control(request, queryset, "resume")

    def _control(self, request: Any, queryset: Any, verb: str) -> None:
        """Do so to each job; report and log who has done it. A refusal stops no other one."""
        chosen = list(queryset.values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        done, refusals = 0, list[str]()
        for job_id in chosen[:MOST_AT_ONCE]:
            try:
                job = getattr(ferry, verb)(job_id)
            except BlobferryError as error:
                refusals.append(printable(str(error)))
                continue
            done += 1
            row = FerryJob(job_id=job_id, operation=job.operation, path=job.path)
            self.log_change(request, row, f"{_PAST[verb]} (now {job.state})")
        if done:
            self.message_user(request, f"{done} job{'' if done == 1 else 's'} {_PAST[verb]}", messages.SUCCESS)
        if refusals:
            more = len(refusals) - _SHOWN_REFUSALS
            shown = "; ".join(refusals[:_SHOWN_REFUSALS]) + (f"; and {more} more" if more > 0 else "")
            self.message_user(request, f"{len(refusals)} refused: {shown}", messages.WARNING)
        if len(chosen) > MOST_AT_ONCE:
            text = f"only the first {MOST_AT_ONCE} were taken: repeat the action for the others"
            self.message_user(request, text, messages.WARNING)


def _situation(job: FerryJob) -> Situation:
    """Read once for a page."""
    if not hasattr(job, "_situation"):
        job._situation = ferry.situation(job.job_id)
    found: Situation = job._situation
    return found


def _cells(attempt: Attempt) -> Any:
    error = ": ".join(filter(None, (attempt.error_code, attempt.error_message)))
    texts = (
        str(attempt.attempt),
        localize(template_localtime(attempt.started_at)),
        localize(template_localtime(attempt.finished_at)) if attempt.finished_at else "",
        attempt.worker or "",
        in_bytes(attempt.bytes_sent),
        attempt.outcome or "not ended",
        error,
        attempt.remark or "",
    )
    return format_html_join("", "<td>{}</td>", ((printable(text),) for text in texts))
